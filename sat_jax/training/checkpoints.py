"""Checkpoints of a run, written by orbax and checked when they are read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from sat_jax.errors import SatError
from sat_jax.training.checksum import checksum
from sat_jax.training.damage import set_aside
from sat_jax.training.processes import (
    all_agree,
    gather,
    is_first,
    is_lost_process,
    wait_for_all,
    wait_unless_failed,
)
from sat_jax.training.step import TrainState
from sat_jax.training.step_folder import load_metadata, load_tree
from sat_jax.weights.orbax_errors import hide_abandoned_arrays, orbax_errors, orbax_write_errors


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
            async_options=ocp.options.AsyncOptions(barrier_sync_fn=wait_unless_failed),
        )
        with orbax_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def __enter__(self) -> Self:
        """Returns itself."""
        # orbax's threads log errors with tracebacks; `wait` raises the same errors.
        hide_abandoned_arrays()
        self._verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.FATAL)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits until everything is written, unless a process is gone that has to write."""
        try:
            if not is_lost_process(error):
                self.wait()
                self._manager.close()
        finally:
            logging.set_verbosity(self._verbosity)

    @property
    def steps(self) -> Sequence[int]:
        """Steps of the complete folders, in order."""
        return sorted(self._manager.all_steps())

    def wait(self) -> None:
        """Returns when everything is written.

        Raises:
          SatError: a checkpoint can't be written.
        """
        with orbax_write_errors(self._folder):
            self._manager.wait_until_finished()

    def _save(self, step: int, tree: Any, **kwargs: Any) -> None:
        import orbax.checkpoint as ocp

        if step in self._manager.all_steps():
            return
        args = ocp.args.StandardSave(  # type: ignore[call-arg]
            tree, custom_metadata={"checksum": checksum(tree), **kwargs}
        )
        with orbax_write_errors(self._folder):
            self._manager.save(step, args=args, metrics=kwargs or None)

    def _read(self, step: int, like: Any) -> Any:
        """Reads and checks a step, whatever devices wrote it.

        Raises:
          SatError: one of the processes found damage; all of them raise this.
        """
        problem = SatError("another process can't read it")
        tree = None
        try:
            tree, expected = load_tree(self._folder / str(step), like)
        except SatError as error:
            problem = error
        if all_agree(tree is not None):
            if all_agree(expected in (None, checksum(tree))):
                return tree
            problem = SatError("the checksum of its values is wrong")
        raise problem

    def _set_aside(self, problems: Mapping[int, SatError], consequence: str) -> None:
        """Renames damaged steps; the line on each ends in `consequence`."""
        if not problems:
            return
        if is_first():
            for step, problem in problems.items():
                set_aside(self._folder / str(step), problem, consequence)
        wait_for_all(f"{self._folder.name} set aside")
        self._manager.reload()


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

    def save(self, state: TrainState) -> None:
        """Starts to write a state, unless it is there; afterwards the state may be donated.

        Raises:
          SatError: this checkpoint or the one before can't be written.
        """
        self._save(int(state.step), state)

    def restore_latest(self, like: Any) -> TrainState | None:
        """Reads the latest state that is not damaged, and sets the damaged ones after it aside.

        Args:
          like: a state of `jax.ShapeDtypeStruct` with the shardings to use.

        Returns:
          The state; None if none was saved.

        Raises:
          SatError: all of them are damaged; none is set aside.
        """
        problems: dict[int, SatError] = {}
        for step in reversed(self.steps):
            try:
                state: TrainState = self._read(step, like)
            except SatError as error:
                problems[step] = error
            else:
                self._set_aside(problems, f"; the run goes on from step {step}")
                return state
        if problems:
            newest = max(problems)
            raise SatError(
                f"all checkpoints in {self._folder} are damaged (that of step {newest}: "
                f"{problems[newest]}): move the folder away to start again from step 0"
            )
        return None


class BestModels(_StepFolders):
    """The best models of a run so far, by their score on the validation clips."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Opens or creates the folder; sets models without a valid score aside.

        Args:
          folder: the folder of the models.
          keep: how many of the best are kept.

        Raises:
          SatError: the folder can't be used.
        """
        if is_first():
            for step in sorted(folder.glob("*")):
                if step.name.isdecimal():
                    _check_score(step)
        wait_for_all("scores")
        super().__init__(folder, max_to_keep=keep, best_fn=_score, best_mode="max")

    def save(self, step: int, variables: Any, score: float) -> None:
        """Starts to write a model if it is among the best; higher scores are better.

        Raises:
          SatError: this model or the one before can't be written.
        """
        self._save(step, variables, score=score)

    def average(self, like: Any) -> Any:
        """Averages the kept models, and sets damaged ones aside.

        Args:
          like: a variable tree of sharded arrays.

        Returns:
          The mean weights as NumPy arrays; None if there is no model.
        """
        shape = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding), like
        )
        total, problems = None, {}
        for step in self.steps:
            try:
                model = gather(self._read(step, shape))
            except SatError as error:
                problems[step] = error
                continue
            arrays = jax.tree.map(lambda x: np.asarray(x, np.float64), model)
            total = arrays if total is None else jax.tree.map(np.add, total, arrays)
        self._set_aside(problems, "; the average is made without it")
        if total is None:
            return None
        return jax.tree.map(lambda x: (x / len(self.steps)).astype(np.float32), total)


def _score(metrics: Any) -> float:
    return float(metrics["score"])


def _check_score(folder: Path) -> None:
    """Sets a model aside whose score is not the one that was saved."""
    try:
        with orbax_errors("its score can't be read"):
            metrics = json.loads((folder / "metrics" / "metrics").read_text(encoding="utf-8"))
            saved = load_metadata(folder)
            # As text, because a NaN equals no number.
            is_right = str(_score(metrics)) == str(_score({**metrics, **saved}))
    except SatError as error:
        set_aside(folder, error)
    else:
        if not is_right:
            set_aside(folder, "its score is wrong")
