r"""What a model's memory is worth for sounds that go on, and for sounds that begin.

python -m projects.box_model.measure_memory \
    --measured runs/pkg_audio/seed0/measured --output memory.json \
    --tfds pkg_audio:test --data_dir data/tfds --strong data/tfds/pkg_audio/1.2.0/strong_test.tsv

Reads the scores that evaluate.py left in MEASURED/*/scores, of streams and of chunks that were
heard alone. What is measured stands in recipes/memory.py.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from data_pipeline.sources.registry import define_source_flags, open_source, source_flags
from data_pipeline.sources.source import SAMPLE_RATE
from data_pipeline.sources.strong_labels import match_clips, read_strong_labels
from projects.box_model.memory import continuing_and_new
from projects.box_model.stage_log import read_json, write_json
from sat_jax.errors import SatError
from sat_jax.evaluation.clip_scores import prediction_times
from sat_jax.evaluation.score_store import ClipScores, ScoreStore
from sat_jax.labels import Event
from sat_jax.metrics.strong import TimedClip
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags

FLAGS = flags.FlagValues()

_MEASURED = flags.DEFINE_string(
    "measured", "", "Folder of evaluate.py's --workdirs. Needed.", flag_values=FLAGS
)
_STRONG = flags.DEFINE_string(
    "strong", "", "TSV table of what is heard when. Needed.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string("output", "", "JSON file for the result. Needed.", flag_values=FLAGS)

define_source_flags(FLAGS)


def main(arguments: Sequence[str]) -> bool:
    """Measures all scores that are there."""
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
            raise SatError(f"{path.parent} has no scores of these clips: run evaluate.py anew")
        setting = {"model": path.parts[-4], "mode": mode["name"], "delay": mode["delay"]}
        results.append(setting | continuing_and_new(timed))
    write_json(Path(_OUTPUT.value), results)
    return False


def _events(ids: Sequence[str], labels: Sequence[str]) -> dict[int, tuple[Event, ...]]:
    """What is heard when in the clips of which that is known, by place."""
    events = read_strong_labels(_STRONG.value, labels).events
    names = match_clips(ids, events)
    return {place: events[name] for place, name in enumerate(names) if name is not None}


def _timed(
    scored: Mapping[int, ClipScores], events: Mapping[int, Sequence[Event]], delay: float
) -> list[TimedClip]:
    """The chunks, scores and events of the clips whose events are known."""
    timed = []
    for clip, (_, num_samples, probs) in scored.items():
        if clip in events:
            start, end = prediction_times(
                len(probs),
                num_samples,
                hop=round(delay * SAMPLE_RATE),
                sample_rate=SAMPLE_RATE,
            )
            timed.append(TimedClip(start=start, end=end, scores=probs, events=events[clip]))
    return timed


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "the clips are named by --tfds and the like")
    require_flags(_MEASURED, _STRONG, _OUTPUT)
    if source_flags(FLAGS) is None:
        raise flags.Error("give one of --clips, --hdf5_tsv and --tfds")


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)

if __name__ == "__main__":
    PROGRAM.run("projects.box_model.measure_memory", sys.argv[1:])
