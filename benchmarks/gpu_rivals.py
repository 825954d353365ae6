"""Rivals of the GPU benchmark in bfloat16: our step, and PyTorch's, eager and compiled.

Weights and optimiser state are float32. The batch is on the GPU before. A call makes several steps
and waits for the last one only, so the GPU never waits for the host.
"""

import time
from typing import Any

from benchmarks.training_rivals import (
    CLIP_NORM,
    LEARNING_RATE,
    Rival,
    Task,
    initial_variables,
    run_config,
    torch_batch,
    torch_model,
)

STEPS_PER_CALL = 10
PRODUCT_SIZE = 8192
"""Rows and columns of the matrices that show the best speed of the GPU."""


def product(task: Any = None) -> Rival:
    """Returns products of random bfloat16 matrices; a call returns their TFLOP/s.

    The facts are JAX's name of the GPU, "" without one, and whether PyTorch sees a GPU.
    """
    del task
    import jax
    import jax.numpy as jnp
    import torch

    gpu = jax.devices()[0].device_kind if jax.default_backend() == "gpu" else ""
    multiply = jax.jit(jnp.dot)

    def call() -> float:
        shape = (PRODUCT_SIZE, PRODUCT_SIZE)
        square = jax.random.normal(jax.random.key(0), shape, jnp.bfloat16)
        multiply(square, square).block_until_ready()
        started, repeats = time.perf_counter(), 20
        for _ in range(repeats):
            result = multiply(square, square)
        result.block_until_ready()
        return 2e-12 * PRODUCT_SIZE**3 * repeats / (time.perf_counter() - started)

    return Rival(call, {"gpu": gpu, "torch": torch.cuda.is_available()})


def jax_steps(task: Task) -> Rival:
    """Returns our training step. The facts are those of `training_rivals.jax_step`."""
    import functools

    import jax

    from sat_jax.runtime.sharding import make_mesh, shard_batch
    from sat_jax.training.step import compiled_step, make_state

    config, mesh, key = run_config(task), make_mesh(), jax.random.key(0)
    state = jax.jit(functools.partial(make_state, config))(initial_variables(task))
    batch, step = shard_batch(mesh, task.batch), compiled_step(config, mesh)
    started = time.perf_counter()
    compiled = step.lower(state, batch, key=key).compile()  # type: ignore[attr-defined]
    compile_seconds = time.perf_counter() - started

    def call() -> float:
        nonlocal state
        for _ in range(STEPS_PER_CALL):
            state, metrics = compiled(state, batch, key=key)
        jax.block_until_ready(state)
        return float(metrics.loss)

    temporary_bytes = compiled.memory_analysis().temp_size_in_bytes
    return Rival(call, {"compile_s": compile_seconds, "temporary_mb": temporary_bytes / 1e6})


def torch_steps(task: Task, *, compiled: bool = False) -> Rival:
    """Returns PyTorch's step: autocast to bfloat16, fused AdamW, eager or by `torch.compile`."""
    import torch
    import torch.nn.functional as F

    model = torch_model(task).cuda()
    arrays = [array.cuda() for array in torch_batch(task)]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
    )

    def loss_of(waveform: Any, target: Any) -> Any:
        with torch.autocast("cuda", torch.bfloat16):
            probs = model.forward_clip(waveform)
        return F.binary_cross_entropy(probs.float(), target)

    # torch.compile does not support the complex numbers of the spectrogram.
    model.log_mel = torch.compiler.disable(model.log_mel)
    compute = torch.compile(loss_of) if compiled else loss_of
    started = time.perf_counter()
    compute(*arrays).backward()
    torch.cuda.synchronize()

    def call() -> float:
        for _ in range(STEPS_PER_CALL):
            optimizer.zero_grad()
            loss = compute(*arrays)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        torch.cuda.synchronize()
        return float(loss.item())

    return Rival(call, {"compile_s": time.perf_counter() - started})
