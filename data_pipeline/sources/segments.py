"""Reads AudioSet's segment tables, and finds the audio files of the segments.

# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=22160, num_segs=22160, num_unique_labels=527, num_positive_labels=52882
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
"""

import collections
import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels

_NUMBER = r"\d+(?:\.\d+)?"
_NAME = re.compile(rf"(.+)_({_NUMBER})_({_NUMBER})")
_YTID_LENGTH = 11


class Segment(NamedTuple):
    """A labelled part of a video.

    Attributes:
      ytid: the video's id.
      start: start in the video, seconds.
      end: end in the video, seconds.
      labels: class indices, ascending.
    """

    ytid: str
    start: float
    end: float
    labels: tuple[int, ...]

    @property
    def id(self) -> str:
        """The clip's id; see `clip_id`."""
        return _id(self.ytid, self.start, self.end)


class Segments(NamedTuple):
    """A table of segments.

    Attributes:
      rows: one per clip, in the table's order.
      duplicates: ids of rows left out because an earlier row has the same id.
    """

    rows: list[Segment]
    duplicates: list[str]


def clip_id(name: str) -> str:
    """Returns a clip's id, in which times always have three decimals, as Google writes them.

    Args:
      name: ``<ytid>_<start>_<end>`` or ``<ytid>``, with or without a file extension.

    Returns:
      ``<ytid>_<start>_<end>``; other names without their extension.
    """
    stem, extension = os.path.splitext(name)
    if not extension[1:2].isalpha():
        stem = name  # The dot belongs to a number.
    match = _NAME.fullmatch(stem)
    # A video's id may itself look like a name with times.
    if match is None or len(stem) == _YTID_LENGTH:
        return stem
    return _id(match[1], float(match[2]), float(match[3]))


def _id(ytid: str, start: float, end: float) -> str:
    return f"{ytid}_{start:.3f}_{end:.3f}"


def read_segments(path: str | os.PathLike[str]) -> Segments:
    """Reads a table of segments.

    Raises:
      SatError: the table can't be read or has no rows, or a row is not
        ``YTID, start, end, "mid,mid"`` with mids of AudioSet's 527 classes.
    """
    name = os.fspath(path)
    index_of = {label.mid: index for index, label in enumerate(audioset_labels())}
    rows: dict[str, Segment] = {}
    duplicates = []
    for where, fields in _lines(name):
        segment = _segment(fields, where, index_of)
        if segment.id in rows:
            duplicates.append(segment.id)
        else:
            rows[segment.id] = segment
    if not rows:
        raise SatError(f"{name} has no rows: name one of Google's segments CSV files")
    return Segments(list(rows.values()), duplicates)


def _lines(name: str) -> Iterator[tuple[str, list[str]]]:
    try:
        with open(name, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            for fields in reader:
                if fields and not fields[0].startswith("#"):
                    yield f"{name}, line {reader.line_num}", fields
    except OSError as error:
        raise SatError(f"cannot read {name}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SatError(f"{name} is not a segments CSV ({error}): download it again") from error


def _segment(fields: list[str], where: str, index_of: Mapping[str, int]) -> Segment:
    try:
        ytid, start, end, mids = fields
        times = float(start), float(end)
    except ValueError:
        raise SatError(
            f'{where}: {", ".join(fields)[:60]!r} is not YTID, start, end, "mid,mid"'
        ) from None
    unknown = [mid for mid in mids.split(",") if mid not in index_of]
    if unknown:
        raise SatError(f"{where}: {unknown[0]!r} is not a class of AudioSet: correct or remove it")
    return Segment(ytid, *times, tuple(sorted({index_of[mid] for mid in mids.split(",")})))


def find_audio(folder: str | os.PathLike[str], segments: Iterable[Segment]) -> list[str | None]:
    """Finds the file of each segment.

    Args:
      folder: searched with its subfolders for files named ``<ytid>_<start>_<end>.<ext>`` (30 or
        30.000), ``<ytid>.<ext>`` or ``Y<ytid>.<ext>``.
      segments: the segments to find.

    Returns:
      A path or None per segment. A name with times wins, then the first folder in alphabetical
      order. If several segments are of one video, only names with times count.

    Raises:
      SatError: the folder does not exist.
    """
    if not os.path.isdir(folder):
        raise SatError(f"{os.fspath(folder)} is not a folder: name the folder of the audio files")
    paths = _paths_by_id(os.fspath(folder))
    rows = list(segments)
    per_video = collections.Counter(row.ytid for row in rows)
    return [
        next((paths[name] for name in _names(row, per_video[row.ytid]) if name in paths), None)
        for row in rows
    ]


def _names(segment: Segment, segments_of_video: int) -> tuple[str, ...]:
    if segments_of_video > 1:
        return (segment.id,)
    return segment.id, segment.ytid, f"Y{segment.ytid}"


def _paths_by_id(folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()  # The file system's order is arbitrary.
        for name in sorted(names):
            found.setdefault(clip_id(name), os.path.join(parent, name))
    return found
