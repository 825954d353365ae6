"""Recordings that arrive in blocks of any length: re-cutting, spectrogram, clip mode.

All of it runs on the host, apart from the compiled functions that it calls.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from sat_jax.config import FrontendConfig, ModelConfig
from sat_jax.models.cache import Cache, init_cache
from sat_jax.models.frontend import framed_power_db
from sat_jax.runtime.program_store import ProgramStore, run_program
from sat_jax.streaming.pieces import plan_clip

FRAMES_PER_BLOCK = 500
"""Frames that one call of the spectrogram program computes: 5 s at the published settings."""

PieceScorer = Callable[[np.ndarray, np.ndarray, np.ndarray, Cache], tuple[jax.Array, Cache]]
"""`sat_jax.streaming.model.StreamingModel.clip_piece` without its weights."""


def rebuffer(blocks: Iterable[np.ndarray], size: int, *, first: int = 0) -> Iterator[np.ndarray]:
    """Cuts a signal into blocks of one size.

    Args:
      blocks: arrays of any length, joined along their first axis.
      size: length of the blocks to yield.
      first: length of the first of them; 0 means `size`.

    Yields:
      Blocks of length `size`; the last one may be shorter, none is empty.
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
    """Computes the spectrogram of a whole recording while its samples arrive.

    The frames are those of `log_mel` on the whole recording, without the floor under its maximum,
    which is known only at the end.
    """

    def __init__(self, frontend: FrontendConfig, programs: ProgramStore) -> None:
        """Starts a recording; loads or compiles its program, so that no live sound waits for it.

        Args:
          frontend: spectrogram settings.
          programs: keeps the compiled program.
        """
        self._frontend = frontend
        self._margin = frontend.n_fft // 2
        self._window = (FRAMES_PER_BLOCK - 1) * frontend.hop_length + frontend.n_fft
        window = np.zeros((1, self._window), np.float32)
        self._program = programs.program(_framed_power_db, (), window, config=frontend)
        self._pending = np.zeros(0, np.float32)
        self._at_start = True

    def push(self, samples: np.ndarray) -> list[np.ndarray]:
        """Takes float32 [s] and returns the dB blocks [f, t] that are now complete."""
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
        """Returns the last frames; recordings shorter than half an FFT have none."""
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
        return np.asarray(run_program(self._program, window[None]))[0]


_framed_power_db = functools.partial(jax.jit, static_argnames="config")(framed_power_db)


def score_in_pieces(
    config: ModelConfig, parts: Sequence[np.ndarray], score_piece: PieceScorer
) -> np.ndarray:
    """Scores a clip piece by piece, so that the spectrogram of hours is not held twice.

    Args:
      config: the model.
      parts: from `SpectrogramStream`, dB [f, t] each, at least one.
      score_piece: runs the model on one piece.

    Returns:
      The model's outputs float32 [k, 1, y].
    """
    plan = plan_clip(config, sum(part.shape[1] for part in parts))
    peak = np.array([max(part.max() for part in parts)])
    cache = init_cache(config, 1, "kv")
    scores: list[np.ndarray] = []
    for piece in rebuffer((part.T for part in parts), plan.length):
        is_whole = len(scores) < plan.num_whole
        if not is_whole and not plan.rest:
            break
        length = plan.length if is_whole else plan.padded
        padded = np.pad(piece.T, ((0, 0), (0, length - len(piece))))[None]
        output, cache = score_piece(padded, np.array([len(piece)], np.int32), peak, cache)
        scores.append(np.asarray(output))
    return np.stack(scores)
