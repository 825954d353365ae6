"""Steps of a run on disk; the only file of training that knows orbax."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from absl import logging

from sat_jax.errors import SatError
from sat_jax.training.state import TrainState
from sat_jax.weights.orbax_errors import orbax_errors

_UNWRITABLE = (OSError, ValueError)
"""What orbax and its store raise where a disk is full."""


class _Steps:
    """One folder a step.

    Writing goes on in the background; a folder gets its name only when it is complete, so that
    a killed program leaves no half of one behind. With several processes, all make the same calls.
    """

    def __init__(self, folder: Path, options: Any) -> None:
        import orbax.checkpoint as ocp

        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        except OSError as error:
            raise SatError(f"{folder} can't be used: {error}") from error

    def __enter__(self) -> Self:
        """The folder itself."""
        # What orbax's threads log with tracebacks is raised as well, when they are waited for.
        self._verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.FATAL)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits until all is written."""
        try:
            self.wait()
            self._manager.close()
        finally:
            logging.set_verbosity(self._verbosity)

    def wait(self) -> None:
        """Returns when all is written.

        Raises:
          SatError: something could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except _UNWRITABLE as error:
            raise self._unwritable(error) from error

    def _save(self, step: int, tree: Any, **kwargs: Any) -> None:
        import orbax.checkpoint as ocp

        if step in self._manager.all_steps():
            return
        try:
            self._manager.save(step, args=ocp.args.StandardSave(tree), **kwargs)  # type: ignore[call-arg]
        except _UNWRITABLE as error:
            raise self._unwritable(error) from error

    def _restore(self, step: int, like: Any, way_out: str) -> Any:
        import orbax.checkpoint as ocp

        with orbax_errors(f"{self._folder / str(step)} is damaged: {way_out}"):
            return self._manager.restore(
                step,
                args=ocp.args.StandardRestore(like),  # type: ignore[call-arg]
            )

    def _unwritable(self, error: Exception) -> SatError:
        reason = str(error).splitlines()[0]
        return SatError(f"checkpoints can't be written to {self._folder}: {reason}")


class RunCheckpoints(_Steps):
    """The latest states of a run, to go on from."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Opens a folder, or makes it.

        Args:
          folder: where the checkpoints are.
          keep: how many of the latest stay.

        Raises:
          SatError: the folder can't be used.
        """
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import preservation_policy

        super().__init__(
            folder,
            ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.LatestN(keep),
                cleanup_tmp_directories=True,
            ),
        )

    @property
    def latest(self) -> int | None:
        """The step of the latest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Starts to write a state, unless its step is there; it may be given away afterwards.

        Raises:
          SatError: this checkpoint, or the one before, can't be written.
        """
        self._save(int(state.step), state)

    def restore(self, step: int, like: Any) -> TrainState:
        """Reads a checkpoint, whatever devices wrote it.

        Args:
          step: which.
          like: a state of `jax.ShapeDtypeStruct` with the shardings to have.

        Raises:
          SatError: it is damaged.
        """
        state: TrainState = self._restore(
            step, like, "remove this folder to go on from the checkpoint before it"
        )
        return state


class BestModels(_Steps):
    """The best models of a run so far, by a number measured on other clips."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Opens a folder, or makes it.

        Args:
          folder: where the models are.
          keep: how many of the best stay.

        Raises:
          SatError: the folder can't be used.
        """
        import orbax.checkpoint as ocp

        super().__init__(
            folder,
            ocp.CheckpointManagerOptions(
                max_to_keep=keep, best_fn=_score, best_mode="max", cleanup_tmp_directories=True
            ),
        )

    def save(self, step: int, variables: Any, score: float) -> None:
        """Starts to write a model if it is among the best; higher scores are better.

        Raises:
          SatError: this model, or the one before, can't be written.
        """
        self._save(step, variables, metrics={"score": score})

    @property
    def steps(self) -> Sequence[int]:
        """The steps of the models that are kept."""
        return sorted(self._manager.all_steps())

    def average(self, like: Any) -> Any:
        """The mean of the weights of all models kept, as NumPy arrays.

        Args:
          like: a variable tree of `jax.ShapeDtypeStruct` with shardings.

        Raises:
          SatError: there is none, or one is damaged.
        """
        if not self.steps:
            raise SatError(f"{self._folder} holds no model")
        total = None
        for step in self.steps:
            model = self._restore(step, like, "remove this folder to leave its model out")
            arrays = jax.tree.map(lambda x: np.asarray(x, np.float64), gather(model))
            total = arrays if total is None else jax.tree.map(np.add, total, arrays)
        return jax.tree.map(lambda x: (x / len(self.steps)).astype(np.float32), total)


def gather(tree: Any) -> Any:
    """Whole arrays in this process's memory, wherever their parts are; all processes call it."""
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def _score(metrics: Any) -> float:
    return float(metrics["score"])
