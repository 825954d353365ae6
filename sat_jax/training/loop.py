"""The training loop: from batches to a trained model, over any number of starts."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from sat_jax.config import MaeConfig
from sat_jax.errors import SatError
from sat_jax.runtime.sharding import make_mesh, replicated, shard_batch
from sat_jax.streaming.pieces import Variables
from sat_jax.training.batches import Batch, BatchSource, check_batches
from sat_jax.training.checkpoints import BestModels, RunCheckpoints
from sat_jax.training.config import TrainConfig
from sat_jax.training.processes import explain_lost_process, gather
from sat_jax.training.progress import Progress
from sat_jax.training.step import TrainState, compiled_step, make_state, state_shape
from sat_jax.training.stopping import CheckpointClock, stop_on_signal
from sat_jax.training.validation import ValidationSource, make_validator
from sat_jax.training.workdir import open_workdir, write_config
from sat_jax.weights.checkpoint import Checkpoint, is_checkpoint, save_checkpoint


class TrainResult(NamedTuple):
    """Result of a start of a run.

    Attributes:
      step: steps made so far, by all starts together.
      model: checkpoint folder of the trained model; None if SIGTERM stopped the run before its end.
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
    """Trains a model, or resumes the run in `workdir`.

    A killed run loses the steps since its last checkpoint, and nothing else: a resumed run gets
    the same weights to the bit, on the same machine. On SIGTERM the state is saved before this
    function returns. With several processes, all call this with the same arguments except for
    their own rows of the batches.

    Args:
      config: the run.
      batches: the training data. Batch i must not depend on the step of the start.
      workdir: the run's folder, see `sat_jax.training.workdir`.
      make_variables: from a random key to the initial weights; not called when a run is resumed.
      labels: names of the model's classes; empty for an autoencoder.
      source: origin of the exported model, for people.
      validation: validation clips. With them the average of the best models is exported, else the
        last model.
      accept_changes: whether to resume a run whose config differs, where checkpoints allow that.

    Raises:
      SatError: the folder has another run or can't be used, the batches don't suit the model or
        end early, the loss is not finite, or another process has stopped.
      KeyboardInterrupt: Ctrl-C stopped the run; the state is saved.
    """
    folder = Path(workdir)
    with explain_lost_process(), open_workdir(folder, config, accept_changes=accept_changes):
        step, variables = _train(config, batches, folder, make_variables, validation)
        if variables is None:
            return TrainResult(step, None)
        path = folder / "model"
        if not path.exists():  # An earlier start may have written it.
            exported = Checkpoint(
                config=config.model, variables=variables, labels=tuple(labels), source=source
            )
            save_checkpoint(path, exported)
        return TrainResult(step, path)


def _train(
    config: TrainConfig,
    batches: BatchSource,
    folder: Path,
    make_variables: Callable[[jax.Array], Variables],
    validation: ValidationSource | None,
) -> tuple[int, Variables | None]:
    """Runs the remaining steps.

    Returns:
      The number of steps made, and the trained variables; None if a signal stopped the run.
    """
    mesh = make_mesh()
    shape = state_shape(config, mesh)
    with (
        RunCheckpoints(folder / "checkpoints", keep=config.keep_checkpoints) as checkpoints,
        BestModels(folder / "best", keep=config.keep_best) as best,
    ):
        state = checkpoints.restore_latest(shape)
        if state is None:
            state = _first_state(config, shape, make_variables(_run_keys(config)[0]))
        start = int(state.step)
        _check_export_path(folder / "model", complete=start == config.num_steps)
        with (
            Progress(config, folder, start=start) as progress,
            contextlib.closing(check_batches(batches(start), config, mesh)) as checked_batches,
        ):
            write_config(folder, config)
            loop = _Loop(config, mesh, checkpoints, best, progress, validation)
            state, is_complete = loop.run(state, checked_batches)
        step = int(state.step)
        if not is_complete:
            return step, None
        best.wait()
        average = best.average(state.variables)
        return step, gather(state.variables) if average is None else average


class _Loop:
    """Runs the remaining steps; saves and validates on schedule."""

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
        self._validate = make_validator(config.model, mesh)
        self._step = compiled_step(config, mesh)
        # On all devices, so that no step has to copy it.
        keys = jax.jit(functools.partial(_run_keys, config), out_shardings=replicated(mesh))
        self._key = keys()[1]

    def run(self, state: TrainState, batches: Iterator[Batch]) -> tuple[TrainState, bool]:
        """Runs until the last step or until a signal.

        Returns:
          The state then, and whether the run is complete. A run that is stopped after its last
          step is not: its model may have to be validated.
        """
        config, clock = self._config, CheckpointClock(self._config)
        stopping = False
        with stop_on_signal() as should_stop:
            # An earlier start may have saved the state and stopped before its validation.
            if self._is_validated_after(int(state.step)) and not self._progress.has_validation:
                self._run_validation(int(state.step), state)
            for step in range(int(state.step) + 1, config.num_steps + 1):
                batch = next(batches)
                state = self._run_step(step, state, batch)
                stopping, due = should_stop(step), clock.is_due(step)
                validating = self._is_validated_after(step)
                # Validation takes long and may fail: an unreadable clip must not cost the steps.
                if stopping or due or validating:
                    self._progress.finish_step()
                    self._checkpoints.save(state)
                if stopping:
                    break
                if validating:
                    self._run_validation(step, state)
        self._progress.finish_step()
        return state, not stopping

    def _run_step(self, step: int, state: TrainState, batch: Batch) -> TrainState:
        arrays = {"waveform": batch["waveform"]}
        if not isinstance(self._config.model, MaeConfig):
            arrays["target"] = batch["target"]
        placed = shard_batch(self._mesh, arrays)
        with jax.transfer_guard("disallow"):  # A hidden copy would make the devices wait.
            state, metrics = self._step(state, placed, key=self._key)
        num_examples = len(batch["waveform"]) * jax.process_count()
        self._progress.add_step(step, metrics, num_examples, batch.get("clips", ()))
        return state

    def _is_validated_after(self, step: int) -> bool:
        is_due = step % self._config.evaluate_every == 0 or step == self._config.num_steps
        return self._validation is not None and step > 0 and is_due

    def _run_validation(self, step: int, state: TrainState) -> None:
        assert self._validation is not None, "_is_validated_after asks for it"
        numbers = self._validate(state.variables, self._validation())
        self._best.save(step, state.variables, numbers["score"])
        self._best.wait()  # A validation that is logged must not be repeated.
        self._progress.log_validation(step, numbers)


def _run_keys(config: TrainConfig) -> jax.Array:
    """Returns two random keys: of the initial weights, and of all steps."""
    return jax.random.split(jax.random.key(config.seed))


def _first_state(config: TrainConfig, shape: TrainState, variables: Variables) -> TrainState:
    """Returns the state of a new run, each array created on the devices of its sharding."""
    # NumPy arrays can go to all devices of all processes; arrays on one device can't.
    host = jax.tree.map(np.asarray, variables)
    shardings = jax.tree.map(lambda x: x.sharding, shape)
    make = jax.jit(functools.partial(make_state, config), out_shardings=shardings)
    state: TrainState = make(host)
    return state


def _check_export_path(path: Path, *, complete: bool) -> None:
    """Checks before the first step that the trained model can be written."""
    if path.exists() and not (complete and is_checkpoint(path)):
        raise SatError(f"{path} exists already: move it, or choose another workdir")
