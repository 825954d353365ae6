"""Checkpoints of a run, to go on from; the only file of training that knows orbax (floor 4)."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

from sat_jax.errors import SatError
from sat_jax.restoring import restoring
from sat_jax.training.state import TrainState


class RunCheckpoints:
    """The latest states of a run, in one folder a step.

    Writing goes on in the background; a folder gets its name only when it is complete, so that
    a killed program leaves no half of one behind.
    """

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

        self._folder = folder
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.LatestN(keep), cleanup_tmp_directories=True
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        except OSError as error:
            raise SatError(f"{folder} can't be used: {error}") from error

    def __enter__(self) -> Self:
        """The checkpoints themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits until all is written."""
        self.wait()
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The step of the latest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState) -> None:
        """Starts to write a state, unless its step is there; it may be given away afterwards.

        Raises:
          SatError: this checkpoint, or the one before, can't be written.
        """
        import orbax.checkpoint as ocp

        step = int(state.step)
        if step == self.latest:
            return
        try:
            self._manager.save(step, args=ocp.args.StandardSave(state))  # type: ignore[call-arg]
        except OSError as error:
            raise self._unwritable(error) from error

    def wait(self) -> None:
        """Returns when all is written.

        Raises:
          SatError: something could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except OSError as error:
            raise self._unwritable(error) from error

    def restore(self, step: int, like: Any) -> TrainState:
        """Reads a checkpoint.

        Args:
          step: which.
          like: a state of the same shapes, arrays or `jax.ShapeDtypeStruct`.

        Raises:
          SatError: it is damaged.
        """
        import orbax.checkpoint as ocp

        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), like)
        damaged = (
            f"{self._folder / str(step)} is damaged: remove this folder to go on from the "
            "checkpoint before it"
        )
        with restoring(damaged):
            state: TrainState = self._manager.restore(
                step,
                args=ocp.args.StandardRestore(like),  # type: ignore[call-arg]
            )
        return state

    def _unwritable(self, error: OSError) -> SatError:
        return SatError(f"checkpoints can't be written to {self._folder}: {error}")
