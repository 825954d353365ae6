"""Teachers, which score the windows of clips, by name."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from sat_jax.labels import audioset_labels, class_fingerprint


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
        """Scores windows of samples float32 [s].

        Yields:
          Each window with probabilities float32 [y], in any order.
        """


def load_teacher(name: str, *, batch_size: int = 32) -> tuple[Teacher, dict[str, Any]]:
    """Loads a teacher.

    Args:
      name: a model's name or path, or "yamnet".
      batch_size: windows per call of a model; YAMNet scores one at a time.

    Returns:
      The teacher, and JSON-ready data that identifies its weights and classes.

    Raises:
      SatError: the teacher can't be loaded, or is for another sample rate.
    """
    if name == "yamnet":
        from data_pipeline.psl.yamnet import YamnetScorer, load_network

        network = load_network()
        classes = class_fingerprint([label.name for label in audioset_labels()])
        origin = {"teacher": name, "weights": network.fingerprint, "classes": classes}
        return YamnetScorer(network), origin
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
