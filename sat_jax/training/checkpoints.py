"""Checkpoints of a run, written by orbax."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from sat_jax.errors import SatError
from sat_jax.training.processes import gather
from sat_jax.training.step import TrainState
from sat_jax.weights.orbax_errors import orbax_errors

_WRITE_ERRORS = (OSError, ValueError)
"""Errors of orbax and its store when a disk is full."""


class _StepFolders:
    """A folder with one folder per step.

    Writing goes on in the background. A step's folder gets its name when it is complete, so a
    killed program leaves no half checkpoint. All processes make the same calls.
    """

    def __init__(self, folder: Path, **policy: Any) -> None:
        import orbax.checkpoint as ocp

        self._folder = folder
        options = ocp.CheckpointManagerOptions(
            **policy,
            cleanup_tmp_directories=True,
            # Two folders may be written at once: processes must not take the barrier of one for
            # that of the other.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                barrier_sync_key_prefix=folder.name
            ),
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        except OSError as error:
            raise SatError(f"{folder} can't be used: {error}") from error

    def __enter__(self) -> Self:
        """Returns itself."""
        # orbax's threads log errors with tracebacks; `wait` raises the same errors.
        self._verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.FATAL)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits until everything is written."""
        try:
            self.wait()
            self._manager.close()
        finally:
            logging.set_verbosity(self._verbosity)

    def wait(self) -> None:
        """Returns when everything is written.

        Raises:
          SatError: a checkpoint can't be written.
        """
        try:
            self._manager.wait_until_finished()
        except _WRITE_ERRORS as error:
            raise self._write_error(error) from error

    def _save(self, step: int, tree: Any, **kwargs: Any) -> None:
        import orbax.checkpoint as ocp

        if step in self._manager.all_steps():
            return
        try:
            self._manager.save(step, args=ocp.args.StandardSave(tree), **kwargs)  # type: ignore[call-arg]
        except _WRITE_ERRORS as error:
            raise self._write_error(error) from error

    def _restore(self, step: int, like: Any, way_out: str) -> Any:
        import orbax.checkpoint as ocp

        with orbax_errors(f"{self._folder / str(step)} is damaged: {way_out}"):
            return self._manager.restore(
                step,
                args=ocp.args.StandardRestore(like),  # type: ignore[call-arg]
            )

    def _write_error(self, error: Exception) -> SatError:
        reason = str(error).splitlines()[0]
        return SatError(f"cannot write checkpoints to {self._folder}: {reason}")


class RunCheckpoints(_StepFolders):
    """The latest states of a run, to resume from."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Opens or creates the folder.

        Args:
          folder: the folder of the checkpoints.
          keep: how many of the latest are kept.

        Raises:
          SatError: the folder can't be used.
        """
        from orbax.checkpoint.checkpoint_managers import preservation_policy

        super().__init__(folder, preservation_policy=preservation_policy.LatestN(keep))

    @property
    def latest(self) -> int | None:
        """Step of the latest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Starts to write a state, unless it is there; afterwards the state may be donated.

        Raises:
          SatError: this checkpoint or the one before can't be written.
        """
        self._save(int(state.step), state)

    def restore(self, step: int, like: Any) -> TrainState:
        """Reads a checkpoint, whatever devices wrote it.

        Args:
          step: its step.
          like: a state of `jax.ShapeDtypeStruct` with the shardings to use.

        Raises:
          SatError: it is damaged.
        """
        state: TrainState = self._restore(
            step, like, "remove this folder to resume from the checkpoint before it"
        )
        return state


class BestModels(_StepFolders):
    """The best models of a run so far, by their score on the validation clips."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Opens or creates the folder.

        Args:
          folder: the folder of the models.
          keep: how many of the best are kept.

        Raises:
          SatError: the folder can't be used.
        """
        super().__init__(folder, max_to_keep=keep, best_fn=_score, best_mode="max")

    def save(self, step: int, variables: Any, score: float) -> None:
        """Starts to write a model if it is among the best; higher scores are better.

        Raises:
          SatError: this model or the one before can't be written.
        """
        self._save(step, variables, metrics={"score": score})

    @property
    def steps(self) -> Sequence[int]:
        """Steps of the models that are kept."""
        return sorted(self._manager.all_steps())

    def average(self, like: Any) -> Any:
        """Returns the mean weights of all kept models as NumPy arrays.

        Args:
          like: a variable tree of sharded arrays.

        Raises:
          SatError: there is no model, or one is damaged.
        """
        if not self.steps:
            raise SatError(f"{self._folder} has no model")
        shape = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding), like
        )
        total = None
        for step in self.steps:
            model = self._restore(step, shape, "remove this folder to leave its model out")
            arrays = jax.tree.map(lambda x: np.asarray(x, np.float64), gather(model))
            total = arrays if total is None else jax.tree.map(np.add, total, arrays)
        return jax.tree.map(lambda x: (x / len(self.steps)).astype(np.float32), total)


def _score(metrics: Any) -> float:
    return float(metrics["score"])
