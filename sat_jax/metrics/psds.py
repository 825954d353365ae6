"""PSDS1, the polyphonic sound detection score that wants exact times.

Bilen et al., "A Framework for the Robust Evaluation of Sound Event Detection", ICASSP 2020; the
scenario 1 of DCASE's task 4. The library finds it over all thresholds, not some.
"""

import dataclasses
import types
import warnings
from collections.abc import Sequence, Set

import numpy as np
from tqdm import tqdm

from sat_jax.errors import SatError
from sat_jax.labels import Event
from sat_jax.metrics.rows import Scores
from sat_jax.metrics.strong import TIME_TOLERANCE, TimedClip, clip_rows, column_blocks

_MAX_FALSE_ALARMS = 100.0  # An hour.
_CRITERIA = {
    "dtc_threshold": 0.7,  # Share of a detection that lies in events.
    "gtc_threshold": 0.7,  # Share of an event that lies in such detections.
    "alpha_ct": 0.0,  # Detections in events of other classes are false alarms like others.
    "unit_of_time": "hour",
    "max_efpr": _MAX_FALSE_ALARMS,
}
_INSTABILITY = 1.0  # alpha_st: the deviation over classes that is taken off their mean.
_BLOCK_VALUES = 2**22  # Scores measured at once: the library takes 100 to 200 bytes for each.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Psds:
    """Area under the curve of events found against false alarms, up to 100 an hour.

    Attributes:
      value: in [0, 1], over all classes that have events.
      per_class: [y] float64 in [0, 1], of single classes; NaN where a class has no event.
    """

    value: float
    per_class: np.ndarray


def check_psds() -> None:
    """Refuses early, before hours of audio are scored, what `psds1` could not do.

    Raises:
      SatError: sed_scores_eval, or what it needs, is missing.
    """
    _library()


def psds1(clips: Sequence[TimedClip], scores: Scores) -> Psds:
    """Measures how many events are found, with their times, at how many false alarms.

    A detection is a run of chunks whose score reaches a threshold. It is a false alarm if less than
    0.7 of it lies in events of its class; an event is found if 0.7 of it lies in detections that
    are no false alarms. Events of one class that overlap or touch are one.

    Takes 0.1 to 0.2 ms a clip and class: 20 minutes for 17 000 clips and 400 classes.

    Args:
      clips: which chunks there are, and what is heard in them; the last one's end is the clip's.
      scores: float [n, y], finite, chunk after chunk of clip after clip.

    Raises:
      SatError: there are not n chunks, a clip's chunks overlap or have gaps, an event is of none of
        y classes, there is no event, or sed_scores_eval is missing.
    """
    library = _library()
    make_frame = library.base_modules.scores.create_score_dataframe
    psd = library.intersection_based
    parts = list(clip_rows(clips, scores))
    classes = np.unique([event.class_index for clip in clips for event in clip.events])
    if not len(classes):
        raise SatError(f"none of the {len(clips)} clips has an event: there is nothing to measure")
    times = [_times(clip) for clip in clips]
    durations = {index: float(time[-1] - time[0]) for index, time in enumerate(times)}
    curves: dict[str, tuple[np.ndarray, ...]] = {}
    blocks = list(column_blocks(classes, len(scores), _BLOCK_VALUES))
    for block in tqdm(blocks, "PSDS1", unit="block", disable=None, leave=False):
        columns = scores[:, block]
        names = [str(index) for index in block]  # The library looks for characters in them.
        _, of_block = psd.psd_roc(
            scores={
                index: make_frame(columns[rows], times[index], names)
                for index, (_, rows) in enumerate(parts)
            },
            ground_truth={index: _truth(clip, set(block)) for index, clip in enumerate(clips)},
            audio_durations=durations,
            **_CRITERIA,
        )
        curves |= of_block
    per_class = np.full(scores.shape[1], np.nan)
    for name, (hits, false_alarms, _) in curves.items():
        per_class[int(name)] = psd.psds_from_psd_roc(hits, false_alarms, _MAX_FALSE_ALARMS)
    overall = psd.multi_class_psd_roc_from_single_class_psd_rocs(
        curves, alpha_st=_INSTABILITY, max_efpr=_MAX_FALSE_ALARMS
    )
    value = float(psd.psds_from_psd_roc(*overall, _MAX_FALSE_ALARMS))
    return Psds(value=value, per_class=per_class)


def _times(clip: TimedClip) -> np.ndarray:
    """The borders of a clip's chunks: float64 [k + 1]."""
    if np.any(np.abs(clip.start[1:] - clip.end[:-1]) > TIME_TOLERANCE):
        raise SatError("PSDS1 needs chunks that follow one another without gaps and overlap")
    return np.append(np.asarray(clip.start, np.float64), clip.end[-1])


def _truth(clip: TimedClip, classes: Set[int]) -> list[tuple[float, float, str]]:
    """Onset, offset and name of the events of some classes, those that touch as one."""
    merged: list[Event] = []
    for event in sorted(event for event in clip.events if event.class_index in classes):
        last = merged[-1] if merged else None
        if last and last.class_index == event.class_index and event.onset <= last.offset:
            merged[-1] = last._replace(offset=max(last.offset, event.offset))
        else:
            merged.append(event)
    return [(event.onset, event.offset, str(event.class_index)) for event in merged]


def _library() -> types.ModuleType:
    """Imports sed_scores_eval, which takes seconds."""
    with warnings.catch_warnings():
        # From sed_scores_eval 0.0.4, sed_eval 0.2.1 and dcase_util 0.2.20 about themselves.
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        warnings.filterwarnings("ignore", "invalid escape sequence")
        try:
            import sed_scores_eval
        except ImportError as error:
            raise SatError(
                f"PSDS1 needs sed_scores_eval ({error}): pip install 'sat-jax[strong]'"
            ) from error
    return sed_scores_eval
