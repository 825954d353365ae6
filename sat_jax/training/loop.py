"""The training loop: batches in, a trained model out, through any number of starts (floor 5)."""

import contextlib
import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from sat_jax.checkpoint import Checkpoint, is_checkpoint, save_checkpoint
from sat_jax.config import ModelConfig
from sat_jax.errors import SatError
from sat_jax.models.clip import Variables
from sat_jax.models.transformer import AudioTransformer, init_variables
from sat_jax.training.checkpoints import RunCheckpoints
from sat_jax.training.config import OptimizerConfig, TrainConfig
from sat_jax.training.optimizer import make_optimizer, make_schedule
from sat_jax.training.state import TrainState, init_state
from sat_jax.training.step import Batch, StepMetrics, make_train_step
from sat_jax.training.workdir import RunLog, open_workdir

BatchSource = Callable[[int], Iterator[Batch]]
"""From the number of steps made so far to the batches of the steps that follow."""


class TrainResult(NamedTuple):
    """How a start of a run ended.

    Attributes:
      step: updates made so far, by all starts together.
      model: the checkpoint folder of the trained model, or None where SIGTERM came first.
    """

    step: int
    model: Path | None


def train(
    config: TrainConfig,
    batches: BatchSource,
    workdir: str | Path,
    *,
    make_variables: Callable[[jax.Array], Variables],
    labels: Sequence[str],
    source: str = "",
) -> TrainResult:
    """Trains a model, or goes on where an earlier start of the same run stopped.

    A start that is killed loses the steps since its last checkpoint, and nothing else: going on
    gives the very same weights (on the same machine). At SIGTERM the state is saved before this
    function returns.

    Args:
      config: the run.
      batches: what it learns from; batch i must not depend on where the iterator started.
      workdir: the run's folder, see `sat_jax.training.workdir`.
      make_variables: from a random key to the first weights; not called when going on.
      labels: names of the model's classes.
      source: where the exported model came from, for people.

    Returns:
      How far it came.

    Raises:
      SatError: the folder belongs to another run or can't be used, batches don't suit the model
        or end early, or the loss is not finite.
    """
    folder = Path(workdir)
    open_workdir(folder, config)
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    tx = make_optimizer(config.optimizer, config.num_steps)
    step_fn = functools.partial(
        _compiled_step(config.model, config.optimizer, config.num_steps), key=run_key
    )
    with RunCheckpoints(folder / "checkpoints", keep=config.keep_checkpoints) as checkpoints:
        state = _first_state(config, tx, checkpoints, make_variables, init_key)
        start = int(state.step)
        _check_unused(folder / "model", done=start == config.num_steps)
        with (
            RunLog(folder / "log.jsonl", step=start) as log,
            _Watch(config, log, start) as watch,
            contextlib.closing(_checked(batches(start), config)) as source_batches,
            _stop_at_sigterm() as stop,
        ):
            state = _run(config, state, step_fn, source_batches, checkpoints, watch, stop)
    step = int(state.step)
    if step < config.num_steps:
        return TrainResult(step, None)
    return TrainResult(step, _export(folder / "model", config, state, labels, source))


@functools.cache  # A run that is taken up again in the same process is not compiled again.
def _compiled_step(
    model: ModelConfig, optimizer: OptimizerConfig, num_steps: int
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    return make_train_step(AudioTransformer(model), make_optimizer(optimizer, num_steps))


def _first_state(
    config: TrainConfig,
    tx: optax.GradientTransformation,
    checkpoints: RunCheckpoints,
    make_variables: Callable[[jax.Array], Variables],
    key: jax.Array,
) -> TrainState:
    """The latest checkpoint's state, else a new run's."""
    if checkpoints.latest is None:
        return init_state(make_variables(key), tx)
    like = jax.eval_shape(lambda key: init_state(init_variables(config.model, key), tx), key)
    return checkpoints.restore(checkpoints.latest, like)


def _run(
    config: TrainConfig,
    state: TrainState,
    step_fn: Callable[..., tuple[TrainState, StepMetrics]],
    batches: Iterator[Batch],
    checkpoints: RunCheckpoints,
    watch: "_Watch",
    stop: threading.Event,
) -> TrainState:
    """Makes the steps that are left, or those until `stop` is set."""
    for step in range(int(state.step) + 1, config.num_steps + 1):
        batch = next(batches)
        state, metrics = step_fn(state, batch["waveform"], batch["target"])
        watch.see(step, metrics, batch)
        stopping = stop.is_set()
        if stopping or step == config.num_steps or step % config.checkpoint_every == 0:
            watch.settle()
            checkpoints.save(state)
        if stopping:
            break
    return state


class _Seen(NamedTuple):
    """A step under way."""

    step: int
    metrics: StepMetrics
    batch: Batch


class _Watch:
    """Looks at each step's numbers once the next one is under way, so that devices never wait."""

    def __init__(self, config: TrainConfig, log: RunLog, start: int) -> None:
        from tqdm import tqdm

        self._config, self._log = config, log
        self._schedule = make_schedule(config.optimizer, config.num_steps)
        self._seen: _Seen | None = None
        self._examples, self._since = 0, time.perf_counter()
        # None draws it on a terminal only.
        self._bar = tqdm(total=config.num_steps, initial=start, unit="step", disable=None)

    def __enter__(self) -> "_Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def see(self, step: int, metrics: StepMetrics, batch: Batch) -> None:
        """Takes note of a step, and settles the one before."""
        self.settle()
        self._seen = _Seen(step, metrics, batch)

    def settle(self) -> None:
        """Waits for the step last seen, checks and logs it.

        Raises:
          SatError: its loss or gradient is not finite.
        """
        if self._seen is None:
            return
        seen, self._seen = self._seen, None
        loss, grad_norm = (float(x) for x in jax.device_get(seen.metrics))
        # A gradient can be ill before the loss is; weights would carry it into a checkpoint.
        if not math.isfinite(loss) or not math.isfinite(grad_norm):
            clips = list(seen.batch.get("clips", ()))
            self._log.write(step=seen.step, loss=str(loss), grad_norm=str(grad_norm), clips=clips)
            raise SatError(
                f"step {seen.step} has loss {loss} and gradient norm {grad_norm}, and was not "
                "saved: lower optimizer.learning_rate, or look at the batch's clips, which the "
                "last line of the log names"
            )
        self._examples += len(seen.batch["target"])
        self._bar.update()
        if seen.step % self._config.log_every == 0 or seen.step == self._config.num_steps:
            self._write(seen.step, loss, grad_norm)

    def _write(self, step: int, loss: float, grad_norm: float) -> None:
        now = time.perf_counter()
        rate = self._examples / (now - self._since)
        self._examples, self._since = 0, now
        lr = float(self._schedule(step - 1))
        self._bar.set_postfix(loss=f"{loss:.4f}", lr=f"{lr:.2e}", examples_per_s=f"{rate:.1f}")
        self._log.write(
            step=step, loss=loss, grad_norm=grad_norm, lr=lr, examples_per_s=round(rate, 2)
        )


def _checked(batches: Iterator[Batch], config: TrainConfig) -> Generator[Batch, None, None]:
    """The batches, if they suit the model; closes their source when closed."""
    try:
        for batch in batches:
            waveform, target = batch["waveform"].shape, batch["target"].shape
            if target != (waveform[0], config.model.num_classes) or len(waveform) != 2:
                raise SatError(
                    f"a batch has waveforms {list(waveform)} and targets {list(target)}, the "
                    f"model has {config.model.num_classes} classes: give [b, samples] and "
                    "[b, classes]"
                )
            yield batch
    finally:
        if hasattr(batches, "close"):
            batches.close()
    raise SatError("the batches ended before the run did: their source must go on for ever")


@contextlib.contextmanager
def _stop_at_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; the second one acts as it would have before.

    Signals reach the main thread only; elsewhere the event stays unset.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGTERM)

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before)

    signal.signal(signal.SIGTERM, ask_to_stop)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_unused(path: Path, *, done: bool) -> None:
    """Refuses to train for days towards a folder that is taken."""
    if path.exists() and not (done and is_checkpoint(path)):
        raise SatError(
            f"{path} exists before the run is through: move it, or choose another workdir"
        )


def _export(
    path: Path, config: TrainConfig, state: TrainState, labels: Sequence[str], source: str
) -> Path:
    """Writes the trained model, unless an earlier start did."""
    if not path.exists():
        variables: Any = jax.tree.map(np.asarray, state.variables)
        save_checkpoint(
            path,
            Checkpoint(
                config=config.model, variables=variables, labels=tuple(labels), source=source
            ),
        )
    return path
