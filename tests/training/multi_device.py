"""A training run for tests with many devices and processes.

python multi_device.py WORKDIR [--fsdp] [--devices N] [--process I --of N --port P]
"""

import argparse
import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    os.environ["JAX_PLATFORMS"] = "cpu"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--fsdp", action="store_true")
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--port", type=int)
    parser.add_argument("--hold-at", type=int, default=-1, help="step before which to wait")
    parser.add_argument("--unreadable", type=int, help="step that this process can't read")
    parser.add_argument("--file-size", type=int, help="largest file that this process can write")
    parser.add_argument("--join-seconds", type=int, default=300)
    args = parser.parse_args()
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={args.devices}"

    import jax

    from sat_jax.errors import SatError
    from sat_jax.training.processes import join_processes, leave

    try:
        if args.of > 1:
            join_processes(
                f"127.0.0.1:{args.port}",
                args.of,
                args.process,
                heartbeat_seconds=30,
                join_seconds=args.join_seconds,
            )
        if args.unreadable is not None:
            refuse_to_read(args.unreadable)
        if args.file_size:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (args.file_size, args.file_size))
        result = run(
            args.workdir,
            fsdp=args.fsdp,
            process=args.process,
            num_processes=args.of,
            hold_at=args.hold_at,
        )
    except SatError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        leave(1)
    print(json.dumps({"step": result.step, "devices": jax.device_count()}), flush=True)


def refuse_to_read(step):
    """Lets this process alone find that a step is damaged."""
    from sat_jax.errors import SatError
    from sat_jax.training import checkpoints

    load = checkpoints.load_tree

    def load_tree(folder, like):
        if folder.parent.name == "checkpoints" and folder.name == str(step):
            raise SatError("it is only damaged here")
        return load(folder, like)

    checkpoints.load_tree = load_tree


def run(workdir, *, fsdp=False, process=0, num_processes=1, hold_at=-1):
    """Trains for six steps on all devices of all processes."""
    import jax
    import numpy as np

    from sat_jax.config import ModelConfig
    from sat_jax.training.config import OptimizerConfig, TrainConfig
    from sat_jax.training.loop import train
    from sat_jax.weights.warm_start import fresh_variables

    model = ModelConfig(
        width=64, depth=1, target_length=32, cache_length=32, num_classes=3, dropout=0.1
    )
    config = TrainConfig(
        model=model,
        optimizer=OptimizerConfig(learning_rate=1e-3, clip_norm=1.0),
        num_steps=6,
        checkpoint_every=2,
        evaluate_every=3,
        log_every=1,
        ema_decay=0.9,
        fsdp=fsdp,
    )
    rows = 16 // num_processes
    mine = slice(process * rows, (process + 1) * rows)

    def batches(start):
        while True:
            if start == hold_at:
                print("holding", flush=True)
                sys.stdin.readline()
            rng = np.random.default_rng(start)
            waveform = 0.1 * rng.standard_normal((16, 10_400)).astype(np.float32)
            yield {"waveform": waveform[mine], "target": rng.random((16, 3), np.float32)[mine]}
            start += 1

    def validation():
        rng = np.random.default_rng(99)
        for first in (0, 16):
            waveform = 0.1 * rng.standard_normal((16, 10_400)).astype(np.float32)
            target = (rng.random((16, 3)) > 0.5).astype(np.float32)
            yield {
                "waveform": waveform[mine],
                "num_samples": np.full(16, 10_400, np.int32)[mine],
                "is_real": (np.arange(first, first + 16) < 27)[mine],
                "target": target[mine],
            }

    return train(
        config,
        batches,
        workdir,
        make_variables=lambda key: jax.jit(fresh_variables, static_argnums=0)(model, key),
        labels=("a", "b", "c"),
        validation=validation,
    )


if __name__ == "__main__":
    main()
