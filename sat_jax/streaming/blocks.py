"""Samples and frames that arrive in blocks of any length, on the host."""

import functools
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from sat_jax.config import FrontendConfig
from sat_jax.models.frontend import framed_power_db
from sat_jax.runtime.program_store import ProgramStore

FRAMES_PER_BLOCK = 500
"""Frames that one call of the spectrogram program makes: 5 s at the published settings."""


def rebuffer(blocks: Iterable[np.ndarray], size: int, *, first: int = 0) -> Iterator[np.ndarray]:
    """Cuts a signal anew.

    Args:
      blocks: float32 [s] each, of any length.
      size: samples in the blocks wanted.
      first: samples in the first of them; 0 means `size` as well.

    Yields:
      float32 [size] blocks, the last one perhaps shorter, none empty.
    """
    wanted, held = first or size, 0
    parts: list[np.ndarray] = []
    for block in blocks:
        while held + len(block) >= wanted:
            cut = wanted - held
            yield np.concatenate([*parts, block[:cut]])
            block, wanted, held, parts = block[cut:], size, 0, []
        if len(block):
            parts.append(block)
            held += len(block)
    if held:
        yield np.concatenate(parts)


class SpectrogramStream:
    """The spectrogram of a whole recording, made while its samples arrive.

    The frames are those of `log_mel` on the whole recording, without the floor
    under its maximum, which is known only at the end.
    """

    def __init__(self, frontend: FrontendConfig, programs: ProgramStore | None = None) -> None:
        """Starts a recording.

        Args:
          frontend: spectrogram settings.
          programs: where the compiled program is kept for the next start; None keeps none.
        """
        self._frontend = frontend
        self._programs = programs
        self._margin = frontend.n_fft // 2
        self._window = (FRAMES_PER_BLOCK - 1) * frontend.hop_length + frontend.n_fft
        self._pending = np.zeros(0, np.float32)
        self._at_start = True

    def push(self, samples: np.ndarray) -> list[np.ndarray]:
        """Hears float32 [s]; gives the dB blocks [f, t] that are now complete."""
        self._pending = np.concatenate([self._pending, samples])
        if self._at_start and len(self._pending) > self._margin:
            mirrored = self._pending[self._margin : 0 : -1]
            self._pending = np.concatenate([mirrored, self._pending])
            self._at_start = False
        done = []
        while not self._at_start and len(self._pending) >= self._window:
            done.append(self._frames(self._pending[: self._window]))
            self._pending = self._pending[FRAMES_PER_BLOCK * self._frontend.hop_length :]
        return done

    def finish(self) -> list[np.ndarray]:
        """Gives the frames that wait for the end; recordings under half an FFT have none."""
        if self._at_start:
            return []
        mirrored = self._pending[-2 : -self._margin - 2 : -1]
        rest = np.concatenate([self._pending, mirrored])
        done = []
        while len(rest) >= self._frontend.n_fft:
            frames = 1 + (len(rest) - self._frontend.n_fft) // self._frontend.hop_length
            padded = np.pad(rest, (0, max(0, self._window - len(rest))))[: self._window]
            done.append(self._frames(padded)[:, :frames])
            rest = rest[FRAMES_PER_BLOCK * self._frontend.hop_length :]
        return done

    def _frames(self, window: np.ndarray) -> np.ndarray:
        if self._programs is None:
            return np.asarray(_framed_power_db(window[None], config=self._frontend))[0]
        power_db = self._programs.run(_framed_power_db, (), window[None], config=self._frontend)
        return np.asarray(power_db)[0]


_framed_power_db = functools.partial(jax.jit, static_argnames="config")(framed_power_db)
