r"""Measures what a model's cache is worth: in which scenes, and for which of their sounds.

python -m projects.box_model.measure_memory \
    --measured runs/pkg_audio/seed0/measured --output memory.json \
    --tfds pkg_audio:test --data_dir data/tfds --strong data/tfds/pkg_audio/2.1.0/strong_test.tsv

Reads the scores that evaluate.py left in MEASURED/*/scores, in stream mode and for single chunks.
Related scenes and random ones are measured apart. A class present in a chunk is "continuing" if it
was also present in the chunk before, else "new". Average precision is measured with one kind as
positives, and all chunks without the class as negatives.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_pipeline.sources.registry import (
    define_source_flags,
    open_source,
    source_choices,
    source_flags,
)
from data_pipeline.sources.source import SAMPLE_RATE
from data_pipeline.sources.strong_labels import match_clips, read_strong_labels
from projects.box_model.measured import SCENES
from projects.box_model.scenes.scenes import is_related
from projects.box_model.stage_log import read_json, write_json
from sat_jax.errors import SatError
from sat_jax.evaluation.clip_scores import prediction_times
from sat_jax.evaluation.score_store import ClipScores, ScoreStore
from sat_jax.labels import Event
from sat_jax.metrics.ranking import compute_metrics
from sat_jax.metrics.strong import TimedClip, class_columns, overlaps
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags

FLAGS = flags.FlagValues()

_MEASURED = flags.DEFINE_string(
    "measured", "", "Folder of evaluate.py's --workdirs. Required.", flag_values=FLAGS
)
_STRONG = flags.DEFINE_string(
    "strong", "", "TSV of onsets and offsets. Required.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string("output", "", "JSON output file. Required.", flag_values=FLAGS)
define_source_flags(FLAGS)

MIN_POSITIVES = 10
"""A class with fewer chunks of a kind is not measured."""


def main(arguments: Sequence[str]) -> bool:
    """Measures all scores in the folder."""
    del arguments
    from data_pipeline.sources.source import clip_versions
    from sat_jax.labels import audioset_labels
    from sat_jax.metrics.ranking import check_sklearn

    check_sklearn()
    labels = [label.name for label in audioset_labels()]
    source = open_source(labels, **source_flags(FLAGS) or {})
    events, versions = _events(source.clips.ids, labels), clip_versions(source)
    results = []
    for path in sorted(Path(_MEASURED.value).glob("*/scores/*/about.json")):
        about = read_json(path)
        mode = about["mode"]
        if mode["name"] not in ("stream", "chunks"):
            continue
        with ScoreStore(path.parent, about, len(labels), versions) as store:
            timed = _timed(store.scores, events, mode["delay"])
        if not timed:
            raise SatError(f"{path.parent} has no scores of these clips: run evaluate.py again")
        setting = {"model": path.parts[-4], "mode": mode["name"], "delay": mode["delay"]}
        for kind in SCENES:
            some = [
                clip for clip in timed if is_related(source.clips.ids[clip]) == (kind == SCENES[0])
            ]
            targets = source.clips.targets(np.array(some, np.int64), len(labels)) > 0
            of_kind = [timed[clip] for clip in some]
            results.append(
                setting
                | {"scenes": kind, "whole": whole_scenes(of_kind, targets)}
                | continuing_and_new(of_kind)
            )
    write_json(Path(_OUTPUT.value), results)
    return False


def whole_scenes(clips: Sequence[TimedClip], targets: np.ndarray) -> dict[str, Any]:
    """Computes the mAP of the mean over each scene's chunks.

    Args:
      clips: chunks and scores of each scene.
      targets: the labels of the scenes, [n, y].

    Returns:
      JSON-ready: `mAP` and the number of `classes` with positives; mAP is None if there are none.
    """
    if not targets.any():
        return {"classes": 0, "mAP": None}
    metrics = compute_metrics(targets, np.stack([clip.scores.mean(0) for clip in clips]))
    classes = targets.shape[1] - metrics.classes_without_positives
    return {"classes": classes, "mAP": metrics.mean_average_precision}


def continuing_and_new(clips: Sequence[TimedClip]) -> dict[str, Any]:
    """Computes segment mAP for continuing and for new classes.

    Args:
      clips: chunks, scores and events of each clip.

    Returns:
      JSON-ready: "continuing" and "new", each with `mAP` and the number of `classes` that have
      `MIN_POSITIVES`; mAP is None if there are none.
    """
    from sklearn.metrics import average_precision_score

    present, before = _present(clips)
    precisions: dict[str, list[float]] = {"continuing": [], "new": []}
    for index, column in class_columns(clips, np.flatnonzero(present.any(0))):
        now, earlier = present[:, index], before[:, index]
        for kind, positive in (("continuing", now & earlier), ("new", now & ~earlier)):
            if positive.sum() >= MIN_POSITIVES:
                chosen = positive | ~now
                value = average_precision_score(positive[chosen], column[chosen])
                precisions[kind].append(float(value))
    return {
        kind: {"classes": len(values), "mAP": statistics.mean(values) if values else None}
        for kind, values in precisions.items()
    }


def _present(clips: Sequence[TimedClip]) -> tuple[np.ndarray, np.ndarray]:
    """Returns bool [n, y] twice: classes present in each chunk, and in the chunk before it."""
    parts = []
    for clip in clips:
        present = np.zeros(clip.scores.shape, bool)
        for event in clip.events:
            present[:, event.class_index] |= overlaps(event, clip.start, clip.end)
        parts.append((present, np.concatenate([np.zeros_like(present[:1]), present[:-1]])))
    return np.concatenate([now for now, _ in parts]), np.concatenate([last for _, last in parts])


def _events(ids: Sequence[str], labels: Sequence[str]) -> dict[int, tuple[Event, ...]]:
    """Returns the events of the clips in the table, by the clip's index."""
    events = read_strong_labels(_STRONG.value, labels).events
    names = match_clips(ids, events)
    return {index: events[name] for index, name in enumerate(names) if name is not None}


def _timed(
    scored: Mapping[int, ClipScores], events: Mapping[int, Sequence[Event]], delay: float
) -> dict[int, TimedClip]:
    """Returns chunks, scores and events of the clips in the table of events."""
    timed = {}
    for clip, (_, num_samples, probs) in scored.items():
        if clip in events:
            start, end = prediction_times(
                len(probs),
                num_samples,
                hop=round(delay * SAMPLE_RATE),
                sample_rate=SAMPLE_RATE,
            )
            timed[clip] = TimedClip(start=start, end=end, scores=probs, events=events[clip])
    return timed


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name the clips with --clips, --hdf5_tsv or --tfds")
    require_flags(_MEASURED, _STRONG, _OUTPUT)
    if source_flags(FLAGS) is None:
        raise flags.Error(f"give one of {source_choices()}")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.measure_memory", sys.argv[1:])
