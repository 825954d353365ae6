"""PSDS1, the polyphonic sound detection score of DCASE task 4, scenario 1 (exact times).

Source: Bilen et al., "A Framework for the Robust Evaluation of Sound Event Detection", ICASSP 2020.
sed_scores_eval computes it exactly, over all thresholds.
"""

import types
import warnings
from collections.abc import Sequence, Set

import numpy as np
from tqdm import tqdm

from sat_jax.errors import SatError
from sat_jax.labels import Event
from sat_jax.metrics.strong import TIME_TOLERANCE, TimedClip, class_blocks

_MAX_FALSE_ALARMS = 100.0  # Per hour.
_CRITERIA = {
    "dtc_threshold": 0.7,  # Least share of a detection inside events of its class.
    "gtc_threshold": 0.7,  # Least share of an event inside such detections.
    "alpha_ct": 0.0,  # No extra penalty for detections inside events of other classes.
    "unit_of_time": "hour",
    "max_efpr": _MAX_FALSE_ALARMS,
}
_ALPHA_ST = 1.0  # Standard deviations over classes that are subtracted from their mean.
_BLOCK_VALUES = 2**22  # Scores per call: the library takes 100 to 200 bytes for each.


def check_psds() -> None:
    """Checks that `psds1` can run, before hours of audio are scored.

    Raises:
      SatError: sed_scores_eval or one of its dependencies is missing.
    """
    _library()


def psds1(clips: Sequence[TimedClip]) -> float:
    """Computes PSDS1: area under detected events against false alarms, up to 100 an hour.

    A detection is a run of chunks whose score reaches a threshold. It is a false alarm if less than
    0.7 of it lies in events of its class. An event is detected if 0.7 of it lies in detections that
    are not false alarms. Events of one class that overlap or touch count as one.

    Takes 0.1 to 0.2 ms per clip and class: 20 minutes for 17 000 clips and 400 classes.

    Args:
      clips: at least one; a clip ends with its last chunk.

    Returns:
      PSDS1 in [0, 1] over the classes that have events.

    Raises:
      SatError: a clip's chunks overlap or leave gaps, there is no event, or sed_scores_eval is
        missing.
    """
    library = _library()
    make_frame = library.base_modules.scores.create_score_dataframe
    psd = library.intersection_based
    classes = np.unique([event.class_index for clip in clips for event in clip.events])
    if not len(classes):
        raise SatError(f"none of the {len(clips)} clips has an event: give strong labels")
    borders = [_borders(clip) for clip in clips]
    durations = {index: float(times[-1] - times[0]) for index, times in enumerate(borders)}
    curves: dict[str, tuple[np.ndarray, ...]] = {}
    num_chunks = sum(len(clip.scores) for clip in clips)
    blocks = list(class_blocks(classes, num_chunks, _BLOCK_VALUES))
    for block in tqdm(blocks, "PSDS1", unit="block", disable=None, leave=False):
        names = [str(index) for index in block]  # The library takes strings only.
        _, of_block = psd.psd_roc(
            scores={
                index: make_frame(clip.scores[:, block], borders[index], names)
                for index, clip in enumerate(clips)
            },
            ground_truth={index: _truth(clip, set(block)) for index, clip in enumerate(clips)},
            audio_durations=durations,
            **_CRITERIA,
        )
        curves |= of_block
    overall = psd.multi_class_psd_roc_from_single_class_psd_rocs(
        curves, alpha_st=_ALPHA_ST, max_efpr=_MAX_FALSE_ALARMS
    )
    return float(psd.psds_from_psd_roc(*overall, _MAX_FALSE_ALARMS))


def _borders(clip: TimedClip) -> np.ndarray:
    """Returns the borders of a clip's chunks: float64 [k + 1]."""
    wrong = np.flatnonzero(np.abs(clip.start[1:] - clip.end[:-1]) > TIME_TOLERANCE)
    if len(wrong):
        index = wrong[0]
        raise SatError(
            f"a chunk ends at {clip.end[index]:g} s and the next one starts at "
            f"{clip.start[index + 1]:g} s: PSDS1 needs chunks without gaps or overlap"
        )
    return np.append(np.asarray(clip.start, np.float64), clip.end[-1])


def _truth(clip: TimedClip, classes: Set[int]) -> list[tuple[float, float, str]]:
    """Returns onset, offset and class name of events; those that touch are merged."""
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
