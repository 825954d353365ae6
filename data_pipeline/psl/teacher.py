"""Teachers, which score the windows of clips, by name."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from sat_jax.labels import audioset_labels, class_fingerprint

_LEAST_PROB = 1e-7
"""Log odds are those of probabilities between this and one minus this."""


class Window(NamedTuple):
    """A window of a clip.

    Attributes:
      clip: index of the clip in its source.
      first: first sample.
      last: one past its last sample.
    """

    clip: int
    first: int
    last: int


class Teacher(Protocol):
    """Scores windows."""

    def score(
        self, windows: Iterable[tuple[Window, np.ndarray]]
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Scores windows, each given with the samples of its whole clip, float32 [s].

        Yields:
          Each window with probabilities float32 [y], in any order.
        """


class Scorer(Protocol):
    """Scores sounds."""

    def score(
        self, windows: Iterable[tuple[Window, np.ndarray]]
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Scores the samples float32 [s] of windows, like `Teacher.score`."""


class SoundTeacher:
    """Scores each window by its sound, optionally together with its whole clip's; a `Teacher`."""

    def __init__(self, scorer: Scorer, *, clip_context: bool = False) -> None:
        """Makes a teacher.

        Args:
          scorer: scores sounds.
          clip_context: average each window's log odds with those of its whole clip.
        """
        self._scorer, self._clip_context = scorer, clip_context

    def score(
        self, windows: Iterable[tuple[Window, np.ndarray]]
    ) -> Iterator[tuple[Window, np.ndarray]]:
        """Scores windows as `Teacher.score` does."""
        if not self._clip_context:
            yield from self._scorer.score(
                (window, clip[window.first : window.last]) for window, clip in windows
            )
            return
        whole: dict[Window, Window] = {}  # Each window's clip as a window.

        def sounds() -> Iterator[tuple[Window, np.ndarray]]:
            clips = set[Window]()
            for window, clip in windows:
                whole[window] = Window(window.clip, 0, len(clip))
                if whole[window] not in clips:
                    clips.add(whole[window])
                    yield whole[window], clip
                if window != whole[window]:
                    yield window, clip[window.first : window.last]

        scores = dict(self._scorer.score(sounds()))
        for window, clip in whole.items():
            yield window, mean_in_log_odds(scores[window], scores[clip])


def mean_in_log_odds(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Averages the log odds of two arrays of probabilities; returns probabilities float32."""
    probs = np.clip(np.stack([first, second]).astype(np.float64), _LEAST_PROB, 1.0 - _LEAST_PROB)
    log_odds = np.log(probs / (1.0 - probs)).mean(axis=0)
    return (1.0 / (1.0 + np.exp(-log_odds))).astype(np.float32)


def load_teacher(
    name: str, *, batch_size: int = 32, clip_context: bool = False
) -> tuple[Teacher, dict[str, Any]]:
    """Loads a teacher.

    Args:
      name: a model's name or path, "mn04" or "yamnet".
      batch_size: windows per call of a model; mn04 and YAMNet score one at a time.
      clip_context: see `SoundTeacher`.

    Returns:
      The teacher, and JSON-ready data that identifies its weights, classes and context.

    Raises:
      SatError: the teacher can't be loaded, or is for another sample rate.
    """
    load = {"mn04": _load_mn04, "yamnet": _load_yamnet}.get(name)
    scorer, origin = load() if load else _load_model(name, batch_size)
    return SoundTeacher(scorer, clip_context=clip_context), origin | {"clip_context": clip_context}


def _load_mn04() -> tuple[Scorer, dict[str, Any]]:
    from data_pipeline.psl.mn04 import WEIGHTS, Mn04Scorer, load_network
    from sat_jax.runtime.program_store import cache_compiled_programs

    cache_compiled_programs()
    return Mn04Scorer(load_network()), _audioset_origin("mn04", WEIGHTS.sha256[:16])


def _load_yamnet() -> tuple[Scorer, dict[str, Any]]:
    from data_pipeline.psl.yamnet import YamnetScorer, load_network

    network = load_network()
    return YamnetScorer(network), _audioset_origin("yamnet", network.fingerprint)


def _audioset_origin(name: str, weights: str) -> dict[str, Any]:
    classes = class_fingerprint([label.name for label in audioset_labels()])
    return {"teacher": name, "weights": weights, "classes": classes}


def _load_model(name: str, batch_size: int) -> tuple[Scorer, dict[str, Any]]:
    import jax

    from data_pipeline.sources.source import check_rate
    from sat_jax.runtime.program_store import cache_compiled_programs
    from sat_jax.runtime.sharding import make_mesh
    from sat_jax.streaming.window_scorer import WindowScorer
    from sat_jax.tagger import Tagger
    from sat_jax.weights.checkpoint import fingerprint

    cache_compiled_programs()
    tagger = Tagger.load(name)
    check_rate(tagger.config.frontend.sample_rate)
    scorer = WindowScorer(
        tagger.streams,
        tagger.variables,
        batch_size=batch_size,
        mesh=make_mesh(jax.local_devices()),
    )
    weights = fingerprint(tagger.config, tagger.variables)
    classes = class_fingerprint(tagger.labels)
    return scorer, {"teacher": tagger.source, "weights": weights, "classes": classes}
