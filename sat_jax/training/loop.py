"""The training loop: batches in, a trained model out, through any number of starts."""

import contextlib
import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import jax
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import MaeConfig
from sat_jax.errors import SatError
from sat_jax.runtime.sharding import check_batch_size, make_mesh, shard_batch
from sat_jax.streaming.pieces import Variables
from sat_jax.training.checkpoints import BestModels, RunCheckpoints, gather
from sat_jax.training.compile import compiled_step, make_state, state_shape
from sat_jax.training.config import TrainConfig
from sat_jax.training.progress import Progress
from sat_jax.training.state import TrainState
from sat_jax.training.stopping import CheckpointClock, stop_when_asked
from sat_jax.training.validation import Measure, ValidationSource, first_shape, make_measure
from sat_jax.training.workdir import open_workdir, write_config
from sat_jax.weights.checkpoint import Checkpoint, is_checkpoint, save_checkpoint


class Batch(TypedDict):
    """Windows of sound: this process's rows of a batch.

    Attributes:
      waveform: float32 [b, s] in [-1, 1] at the model's rate.
      target: float32 [b, y] or [b, k, y] in [0, 1]; an autoencoder needs none.
      clips: what people call the clips, b names; shown when a batch breaks the run.
    """

    waveform: np.ndarray
    target: NotRequired[np.ndarray]
    clips: NotRequired[Sequence[str]]


BatchSource = Callable[[int], Iterator[Batch]]
"""From the number of steps made so far to the batches of the steps that follow."""


class TrainResult(NamedTuple):
    """How a start of a run ended.

    Attributes:
      step: steps made so far, by all starts together.
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
    validation: ValidationSource | None = None,
    accept_changes: bool = False,
) -> TrainResult:
    """Trains a model, or goes on where an earlier start of the same run stopped.

    A start that is killed loses the steps since its last checkpoint, and nothing else: going on
    gives the very same weights (on the same machine). At SIGTERM the state is saved before this
    function returns. With several processes, all call this with the same arguments but for their
    own rows of the batches.

    Args:
      config: the run.
      batches: what it learns from; batch i must not depend on where the iterator started.
      workdir: the run's folder, see `sat_jax.training.workdir`.
      make_variables: from a random key to the first weights; not called when going on.
      labels: names of the model's classes; none for an autoencoder.
      source: where the exported model came from, for people.
      validation: clips to measure the model on; the average of the best models is exported then,
        else the last one.
      accept_changes: whether to go on from a run of another config, for all that checkpoints hold.

    Returns:
      How far it came.

    Raises:
      SatError: the folder belongs to another run or can't be used, batches don't suit the model
        or end early, or the loss is not finite.
      KeyboardInterrupt: the user stopped it by Ctrl-C; the state is saved.
    """
    folder = Path(workdir)
    with open_workdir(folder, config, accept_changes=accept_changes):
        step, variables = _go_on(config, batches, folder, make_variables, validation)
        if variables is None:
            return TrainResult(step, None)
        return TrainResult(step, _export(folder / "model", config, variables, labels, source))


def _go_on(
    config: TrainConfig,
    batches: BatchSource,
    folder: Path,
    make_variables: Callable[[jax.Array], Variables],
    validation: ValidationSource | None,
) -> tuple[int, Variables | None]:
    """Makes the steps that are left; the model too if none is, and else the run was stopped."""
    mesh = make_mesh()
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    shape = state_shape(config, mesh)
    with (
        RunCheckpoints(folder / "checkpoints", keep=config.keep_checkpoints) as checkpoints,
        BestModels(folder / "best", keep=config.keep_best) as best,
    ):
        if checkpoints.latest is None:
            state = _first_state(config, shape, make_variables(init_key))
        else:
            state = checkpoints.restore(checkpoints.latest, shape)
        start = int(state.step)
        _check_unused(folder / "model", done=start == config.num_steps)
        with (
            Progress(config, folder, start=start) as progress,
            contextlib.closing(_checked(batches(start), config, mesh)) as source_batches,
        ):
            write_config(folder, config)
            run = _Run(config, mesh, checkpoints, best, progress, validation)
            state, through = run.go_on(state, source_batches, run_key)
        step = int(state.step)
        if not through:
            return step, None
        best.wait()
        if best.steps:
            return step, best.average(first_shape(state.variables))
        return step, gather(state.variables)


class _Run:
    """The steps between two starts, and what is to be done beside them."""

    def __init__(
        self,
        config: TrainConfig,
        mesh: Mesh,
        checkpoints: RunCheckpoints,
        best: BestModels,
        progress: Progress,
        validation: ValidationSource | None,
    ) -> None:
        self._config, self._mesh = config, mesh
        self._checkpoints, self._best, self._progress = checkpoints, best, progress
        self._validation = validation
        self._measure: Measure | None = None

    def go_on(
        self, state: TrainState, batches: Iterator[Batch], key: jax.Array
    ) -> tuple[TrainState, bool]:
        """Makes the steps that are left, or those until the run is asked to stop.

        Returns:
          The state then, and whether the run is through: asked to stop after its last step, it is
          not, since the model may have to be measured yet.
        """
        config, clock = self._config, CheckpointClock(self._config)
        stopping = False
        step_fn = compiled_step(config, self._mesh)
        with stop_when_asked() as should_stop:
            self._make_up_for_measuring(int(state.step), state)
            for step in range(int(state.step) + 1, config.num_steps + 1):
                batch = next(batches)
                state, metrics = step_fn(state, self._place(batch), key=key)
                num_examples = len(batch["waveform"]) * jax.process_count()
                self._progress.see(step, metrics, num_examples, batch.get("clips", ()))
                stopping, due = should_stop(step), clock.is_due(step)
                measuring = self._is_measured_after(step)
                # Measuring takes long and may fail: a broken clip must not cost the steps.
                if stopping or due or measuring:
                    self._progress.settle()
                    self._checkpoints.save(state)
                if stopping:
                    break
                if measuring:
                    self._evaluate(step, state)
        self._progress.settle()
        return state, not stopping

    def _place(self, batch: Batch) -> dict[str, jax.Array]:
        wanted = ("waveform",) if isinstance(self._config.model, MaeConfig) else _ARRAYS
        return shard_batch(self._mesh, {name: batch[name] for name in wanted})  # type: ignore[literal-required]

    def _is_measured_after(self, step: int) -> bool:
        on_time = step % self._config.evaluate_every == 0 or step == self._config.num_steps
        return self._validation is not None and step > 0 and on_time

    def _make_up_for_measuring(self, step: int, state: TrainState) -> None:
        """Measures the model that an earlier start saved and was stopped before it measured it."""
        if self._is_measured_after(step) and not self._progress.was_measured:
            self._evaluate(step, state)

    def _evaluate(self, step: int, state: TrainState) -> None:
        assert self._validation is not None, "asked before"
        if self._measure is None:
            self._measure = make_measure(self._config.model, self._mesh)
        numbers = self._measure(state.variables, self._validation())
        self._best.save(step, state.variables, numbers["score"])
        self._best.wait()  # What the log tells of need not be done again.
        self._progress.measured(step, numbers)


_ARRAYS = ("waveform", "target")


def _first_state(config: TrainConfig, shape: TrainState, variables: Variables) -> TrainState:
    """A new run's state, each part made where it is to lie."""
    # NumPy arrays may go to all devices of all processes; arrays on one device may not.
    host = jax.tree.map(np.asarray, variables)
    places = jax.tree.map(lambda x: x.sharding, shape)
    state: TrainState = jax.jit(functools.partial(make_state, config), out_shardings=places)(host)
    return state


def _checked(
    batches: Iterator[Batch], config: TrainConfig, mesh: Mesh
) -> Generator[Batch, None, None]:
    """The batches, if they suit model and devices; closes their source when closed."""
    try:
        for batch in batches:
            waveform = batch["waveform"].shape
            if len(waveform) != 2:
                raise SatError(f"a batch has waveforms {list(waveform)}: give [b, samples]")
            check_batch_size(mesh, waveform[0] * jax.process_count())
            if not isinstance(config.model, MaeConfig):
                _check_target(batch, config.model.num_classes)
            yield batch
    finally:
        if hasattr(batches, "close"):
            batches.close()
    raise SatError("the batches ended before the run did: their source must go on for ever")


def _check_target(batch: Batch, num_classes: int) -> None:
    waveform, target = batch["waveform"].shape, batch["target"].shape
    if len(target) not in (2, 3) or (target[0], target[-1]) != (waveform[0], num_classes):
        raise SatError(
            f"a batch has waveforms {list(waveform)} and targets {list(target)}, the model has "
            f"{num_classes} classes: give [b, samples] and [b, classes] or [b, chunks, classes]"
        )


def _check_unused(path: Path, *, done: bool) -> None:
    """Refuses to train for days towards a folder that is taken."""
    if path.exists() and not (done and is_checkpoint(path)):
        raise SatError(
            f"{path} exists before the run is through: move it, or choose another workdir"
        )


def _export(
    path: Path, config: TrainConfig, variables: Any, labels: Sequence[str], source: str
) -> Path:
    """Writes the trained model, unless an earlier start did."""
    if not path.exists():
        save_checkpoint(
            path,
            Checkpoint(
                config=config.model,
                variables=variables,
                labels=tuple(labels),
                source=source,
            ),
        )
    return path
