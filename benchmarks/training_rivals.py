"""Rivals of the training benchmarks: our step and eager PyTorch's, each in its own process."""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from sat_jax.runtime.devices import keep_freed_memory, usable_cores, use_cores_as_devices

LEARNING_RATE, CLIP_NORM = 1e-4, 1.0
NUM_STEPS = 10**9
"""Steps of the run: so many that the learning rate does not change."""

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Model, weights and batch of all rivals.

    Attributes:
      ours: the model as a `sat_jax.config.ModelConfig`.
      theirs: the same model as a `tests.reference.torch_model.Config`.
      weights: initial weights under PyTorch's published names.
      batch: waveforms [b, s] and targets [b, y].
    """

    ours: Any
    theirs: Any
    weights: Arrays
    batch: Arrays


class Rival(NamedTuple):
    """A compiled training step.

    Attributes:
      call: makes the next step and returns its loss.
      facts: other numbers, by name.
    """

    call: Callable[[], float]
    facts: Mapping[str, Any]


def make_task(name: str, batch_size: int, seed: int = 0) -> Task:
    """Returns a streaming model with random weights and a batch of windows of two chunks.

    Raises:
      SystemExit: the model is unknown.
    """
    import torch

    from sat_jax.models import registry
    from tests.reference.torch_model import MODELS, SAT

    if name not in MODELS or not MODELS[name].cache_length:
        streaming = ", ".join(known for known, model in MODELS.items() if model.cache_length)
        raise SystemExit(f"--models: {name} is not one of {streaming}")
    torch.manual_seed(seed)
    theirs = MODELS[name]
    rng = np.random.default_rng(seed)
    samples = round(2 * theirs.target_length / 96 * 16_000)
    return Task(
        ours=registry.MODELS[name],
        theirs=theirs,
        weights={key: x.numpy().copy() for key, x in SAT(theirs).state_dict().items()},
        batch={
            "waveform": (0.1 * rng.standard_normal((batch_size, samples))).astype(np.float32),
            "target": rng.random((batch_size, theirs.outputdim), np.float32),
        },
    )


def jax_gradients(task: Task) -> dict[str, np.ndarray]:
    """Returns the gradients of our loss by PyTorch's names, and the loss as "loss"."""
    import jax

    from sat_jax.convert.weight_table import to_torch
    from sat_jax.training.objectives import make_objective

    variables = initial_variables(task)
    loss_and_grads = jax.jit(jax.value_and_grad(make_objective(run_config(task)), has_aux=True))
    (loss, _), grads = loss_and_grads(
        variables["params"], variables["batch_stats"], dict(task.batch), jax.random.key(0)
    )
    return {"loss": np.asarray(loss), **to_torch({"params": grads}, task.ours)}


def torch_gradients(task: Task) -> dict[str, np.ndarray]:
    """Returns the gradients of PyTorch's loss, and the loss as "loss"."""
    model = torch_model(task)
    loss = torch_loss(model, *torch_batch(task))
    loss.backward()
    grads = {key: weight.grad.numpy() for key, weight in model.named_parameters()}
    return {"loss": loss.detach().numpy(), **grads}


def jax_step(task: Task) -> Rival:
    """Returns our training step, compiled for this machine's CPU.

    The facts are the seconds of tracing and compiling, the memory of a step without state and
    batch, and the number of devices.
    """
    keep_freed_memory()
    use_cores_as_devices(len(task.batch["waveform"]))
    import jax

    from sat_jax.runtime.sharding import make_mesh, shard_batch
    from sat_jax.training.step import compiled_step, make_state

    config, mesh, key = run_config(task), make_mesh(), jax.random.key(0)
    state = jax.jit(functools.partial(make_state, config))(initial_variables(task))
    step: Any = compiled_step(config, mesh)
    started = time.perf_counter()
    compiled = step.lower(state, shard_batch(mesh, task.batch), key=key).compile()
    compile_seconds = time.perf_counter() - started

    def call() -> float:
        nonlocal state
        state, metrics = compiled(state, shard_batch(mesh, task.batch), key=key)
        jax.block_until_ready(state)
        return float(metrics.loss)

    temporary_bytes = compiled.memory_analysis().temp_size_in_bytes
    facts = {"compile_s": compile_seconds, "temporary_mb": temporary_bytes / 1e6}
    return Rival(call, {**facts, "devices": mesh.size})


def torch_step(task: Task, *, fused: bool = False, keep_memory: bool = False) -> Rival:
    """Returns the step in eager PyTorch.

    Args:
      task: model, weights and batch.
      fused: whether AdamW is fused, instead of a loop over the weights.
      keep_memory: whether freed memory is kept, as in `jax_step`.
    """
    if keep_memory:
        keep_freed_memory()
    import torch

    torch.set_num_threads(usable_cores())
    model, arrays = torch_model(task), torch_batch(task)
    # None is PyTorch's default: on CPUs a loop over the weights.
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=fused or None
    )

    def call() -> float:
        optimizer.zero_grad()
        loss = torch_loss(model, *arrays)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        return float(loss.item())

    return Rival(call, {})


@contextlib.contextmanager
def own_process(
    make: Callable[[Any], Rival],
    task: Any,
    *,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Rival]:
    """Yields a rival in another process, which ends with the context.

    Args:
      make: `jax_step`, `torch_step` or the like.
      task: its argument.
      environment: variables that the process has beside those of this one.

    Raises:
      RuntimeError: the process ended.
    """
    start = multiprocessing.get_context("spawn")
    here, there = start.Pipe()
    process = start.Process(target=_serve, args=(there, make, task), daemon=True)
    with _environment({**(environment or {}), "JAX_ENABLE_COMPILATION_CACHE": "false"}):
        process.start()
    there.close()

    def receive() -> Any:
        try:
            return here.recv()
        except EOFError:
            raise RuntimeError("a rival's process ended, see above") from None

    def call() -> float:
        here.send(True)
        return receive()

    try:
        yield Rival(call, receive())
    finally:
        here.close()
        process.join()


def _serve(pipe: Connection, make: Callable[[Task], Rival], task: Task) -> None:
    rival = make(task)
    pipe.send(rival.facts)
    with contextlib.suppress(EOFError):  # The benchmark is over.
        while pipe.recv():
            pipe.send(rival.call())


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_config(task: Task) -> Any:
    """Returns the training run of a task."""
    from sat_jax.training.config import OptimizerConfig, TrainConfig

    optimizer = OptimizerConfig(learning_rate=LEARNING_RATE, clip_norm=CLIP_NORM)
    return TrainConfig(model=task.ours, optimizer=optimizer, num_steps=NUM_STEPS)


def initial_variables(task: Task) -> Any:
    """Returns the initial weights as a Flax variable tree."""
    from sat_jax.convert.weight_table import from_torch

    return from_torch(dict(task.weights))


def torch_model(task: Task) -> Any:
    """Returns the model in PyTorch with the initial weights."""
    import torch

    from tests.reference.torch_model import SAT

    model = SAT(task.theirs).train()
    model.load_state_dict({key: torch.from_numpy(x.copy()) for key, x in task.weights.items()})
    return model


def torch_batch(task: Task) -> Any:
    """Returns waveforms and targets in PyTorch."""
    import torch

    return [torch.from_numpy(task.batch[key]) for key in ("waveform", "target")]


def torch_loss(model: Any, waveform: Any, target: Any) -> Any:
    """Returns the published loss: one log-mel per window, its chunks in turn, their mean."""
    import torch.nn.functional as F

    return F.binary_cross_entropy(model.forward_clip(waveform), target)
