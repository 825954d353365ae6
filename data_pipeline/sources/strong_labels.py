"""Strong labels: which sounds begin and end when, from a table.

AudioSet's layout, and that of DESED, with tabs between the columns:

segment_id	start_time_seconds	end_time_seconds	label
b0RFKhbpFJA_30000	0.000	2.627	/m/03m9d0z

filename	onset	offset	event_label
Y-98gMSxIUAI_20.000_30.000.wav	1.250	3.000	Dog
"""

import collections
import csv
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from data_pipeline.sources.class_finder import ClassFinder
from data_pipeline.sources.segments import clip_id
from sat_jax.errors import SatError
from sat_jax.labels import Event

# The columns of each layout: clip, onset, offset, label.
LAYOUTS = (
    ("segment_id", "start_time_seconds", "end_time_seconds", "label"),
    ("filename", "onset", "offset", "event_label"),
)
_AUDIOSET_ID = re.compile(r"(.+)_(\d+\.\d{3})_\d+\.\d{3}")


class StrongLabels(NamedTuple):
    """What a table of strong labels says.

    Attributes:
      events: each clip's events in the table's order, by the clip's name; perhaps none.
      unknown: labels that the model lacks, and how many events each has; these are left out.
    """

    events: Mapping[str, tuple[Event, ...]]
    unknown: Mapping[str, int]


def read_strong_labels(table: str | os.PathLike[str], label_names: Sequence[str]) -> StrongLabels:
    """Reads a table of events.

    Args:
      table: a UTF-8 file with a tab between columns, whose first line names those of one of
        `LAYOUTS`; others are passed over. A label is a class name, an AudioSet mid, or an index
        counted from 0. A row with nothing but a clip's name says that nothing is heard in it.
      label_names: the model's class names in output order.

    Raises:
      SatError: the table can't be read or lists no clip, a row lacks a field or has times that are
        none, or the model knows no label of the table.
    """
    classes = ClassFinder(label_names)
    events: dict[str, list[Event]] = {}
    unknown: collections.Counter[str] = collections.Counter()
    for where, (clip, onset, offset, label) in _rows(table):
        of_clip = events.setdefault(clip, [])
        if not (onset or offset or label):
            continue
        times = _times(onset, offset, where)
        if not label:
            raise SatError(f"{where}: the event has no label: write one, or remove its times too")
        index = classes.get(label, where)
        if index is None:
            unknown[label] += 1
        else:
            of_clip.append(Event(index, *times))
    if not events:
        raise SatError(f"{table} lists no clips: give one row an event below the header")
    if unknown and not any(events.values()):
        raise SatError(
            f"the model has no class of {table}, such as {next(iter(unknown))!r}: "
            "give the labels of this model"
        )
    return StrongLabels({clip: tuple(of_clip) for clip, of_clip in events.items()}, unknown)


def match_clips(ids: Sequence[str], names: Iterable[str]) -> list[str | None]:
    """Finds the name that each clip of a source has in a table of strong labels.

    Args:
      ids: what the source calls its clips: ``street/1.wav`` or ``<ytid>_30.000_40.000``.
      names: what the table calls them. A name fits an id that is the same, else one that is the
        same without folders and extension, else one of the same video and start in milliseconds
        (``<ytid>_30000``). Parts of files ("1.wav@0-10") must be named as they are.

    Returns:
      For each id its name, or None where the table does not have the clip.

    Raises:
      SatError: a clip fits several names, a name fits several clips, or nothing fits.
    """
    exact = list(names)
    by_stem: dict[str, list[str]] = collections.defaultdict(list)
    for name in exact:
        by_stem[_stem(name)].append(name)
    known = set(exact)
    found = [clip if clip in known else _by_stem(clip, by_stem) for clip in ids]
    first: dict[str, str] = {}
    for clip, match in zip(ids, found, strict=True):
        if match is not None and first.setdefault(match, clip) != clip:
            raise SatError(
                f"the strong labels of {match!r} fit {first[match]!r} and {clip!r}: "
                "give their names in full"
            )
    if not first:
        examples = f"{next(iter(ids), '')!r} and {next(iter(exact), '')!r}"
        raise SatError(
            f"none of {len(ids)} clips is among the {len(exact)} with strong labels: are "
            f"{examples} names of one set of clips?"
        )
    return found


def _by_stem(clip: str, by_stem: Mapping[str, Sequence[str]]) -> str | None:
    stem = _stem(clip)
    match = _AUDIOSET_ID.fullmatch(clip_id(stem))
    keys = [stem] if match is None else [stem, f"{match[1]}_{round(1000 * float(match[2]))}"]
    names = next((by_stem[key] for key in keys if key in by_stem), ())
    if len(names) > 1:
        raise SatError(
            f"{clip!r} may be {names[0]!r} or {names[1]!r} of the strong labels: "
            "give its name in full"
        )
    return names[0] if names else None


def _stem(name: str) -> str:
    stem, extension = os.path.splitext(os.path.basename(name))
    # Not what is behind the dot of a number, or the times of a part.
    is_extension = extension[1:2].isalpha() and extension[1:].isalnum()
    return stem if is_extension else stem + extension


def _rows(table: str | os.PathLike[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """File and line, and the four fields of each row, stripped."""
    name = os.fspath(table)
    try:
        with open(name, encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, restval="")
            columns = _columns(lines.fieldnames or (), name)
            for fields in lines:
                where = f"{name}, line {lines.line_num}"
                row = [(fields[column] or "").strip() for column in columns]
                if not row[0]:
                    raise SatError(f"{where}: names no clip in the column {columns[0]!r}")
                yield where, row
    except OSError as error:
        raise SatError(f"cannot read {name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SatError(f"{name} is no text in UTF-8: save it as a TSV file in UTF-8") from error
    except csv.Error as error:
        raise SatError(f"{name}, line {lines.line_num + 1}: {error}") from error


def _columns(header: Sequence[str], table: str) -> Sequence[str]:
    # The layout that the header comes closest to, for the message.
    layout = max(LAYOUTS, key=lambda columns: len(set(columns) & set(header)))
    missing = [column for column in layout if column not in header]
    if missing:
        raise SatError(
            f"{table}, line 1: has no column {missing[0]!r}: the first line must name "
            f"{', '.join(layout)}, with tabs between them"
        )
    return layout


def _times(onset: str, offset: str, where: str) -> tuple[float, float]:
    start, end = _seconds(onset, where), _seconds(offset, where)
    if end <= start:
        raise SatError(f"{where}: the event ends at {end:g} s, not after its onset at {start:g} s")
    return start, end


def _seconds(text: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds < math.inf:
        raise SatError(f"{where}: {text!r} is no number of seconds from the clip's start")
    return seconds
