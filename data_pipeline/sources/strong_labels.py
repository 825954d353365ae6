"""Tables (TSV) of strong labels: sound events with onset and offset.

AudioSet's layout, and DESED's, with tabs between the columns:

segment_id	start_time_seconds	end_time_seconds	label
b0RFKhbpFJA_30000	0.000	2.627	/m/03m9d0z

filename	onset	offset	event_label
Y-98gMSxIUAI_20.000_30.000.wav	1.250	3.000	Dog
"""

import collections
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from data_pipeline.sources.segments import clip_id
from data_pipeline.sources.tables import ClassFinder, parse_seconds, read_rows
from sat_jax.errors import SatError
from sat_jax.labels import Event

# The columns of each layout: clip, onset, offset, label.
LAYOUTS = (
    ("segment_id", "start_time_seconds", "end_time_seconds", "label"),
    ("filename", "onset", "offset", "event_label"),
)
_AUDIOSET_ID = re.compile(r"(.+)_(\d+\.\d{3})_\d+\.\d{3}")


class StrongLabels(NamedTuple):
    """The content of a table of strong labels.

    Attributes:
      events: each clip's events in the table's order, by the clip's name; may be empty.
      unknown: labels that the model lacks, and the number of their events, which are left out.
    """

    events: Mapping[str, tuple[Event, ...]]
    unknown: Mapping[str, int]


def read_strong_labels(table: str | os.PathLike[str], label_names: Sequence[str]) -> StrongLabels:
    """Reads a table of events.

    Args:
      table: a UTF-8 file with tabs between columns. Its first line names the columns of one of
        `LAYOUTS`; other columns are ignored. A label is a class name, AudioSet mid, or index from
        0. A row with a clip's name alone is a clip without events.
      label_names: the model's class names in output order.

    Raises:
      SatError: the table can't be read or lists no clip, a row has a missing field or an invalid
        time, or the model lacks all labels of the table.
    """
    classes = ClassFinder(label_names)
    events: dict[str, list[Event]] = {}
    unknown: collections.Counter[str] = collections.Counter()
    for where, (clip, onset, offset, label) in _read_fields(table):
        of_clip = events.setdefault(clip, [])
        if not (onset or offset or label):
            continue
        times = _times(onset, offset, where)
        if not label:
            raise SatError(f"{where}: the event has no label: add it, or remove its times")
        index = classes.get(label, where)
        if index is None:
            unknown[label] += 1
        else:
            of_clip.append(Event(index, *times))
    if not events:
        raise SatError(f"{table}: lists no clips: add a row per event below the header")
    if unknown and not any(events.values()):
        raise SatError(
            f"{table}: the model has none of its classes, such as {next(iter(unknown))!r}: "
            "give labels of the model's classes"
        )
    return StrongLabels({clip: tuple(of_clip) for clip, of_clip in events.items()}, unknown)


def match_clips(ids: Sequence[str], names: Iterable[str]) -> list[str | None]:
    """Finds the name of each clip of a source in a table of strong labels.

    Args:
      ids: the source's clips, such as ``street/1.wav`` or ``<ytid>_30.000_40.000``.
      names: the table's clips. A name matches the same id; else an id that is the same without
        folders and extension; else an id of the same video and start in milliseconds
        (``<ytid>_30000``). A part of a file ("1.wav@0-10") matches the same id only.

    Returns:
      The name for each id, or None if the table lacks the clip.

    Raises:
      SatError: a clip matches several names, a name matches several clips, or nothing matches.
    """
    exact = list(names)
    by_stem: dict[str, list[str]] = collections.defaultdict(list)
    for name in exact:
        by_stem[_stem(name)].append(name)
    known = set(exact)
    found = [clip if clip in known else _find_by_stem(clip, by_stem) for clip in ids]
    first: dict[str, str] = {}
    for clip, match in zip(ids, found, strict=True):
        if match is not None and first.setdefault(match, clip) != clip:
            raise SatError(
                f"strong labels of {match!r} match two clips, {first[match]!r} and {clip!r}: "
                "use full names in the table"
            )
    if not first:
        raise SatError(
            f"none of {len(ids)} clips (such as {next(iter(ids), '')!r}) is among the "
            f"{len(exact)} with strong labels (such as {next(iter(exact), '')!r}): give the table "
            "of these clips"
        )
    return found


def _find_by_stem(clip: str, by_stem: Mapping[str, Sequence[str]]) -> str | None:
    stem = _stem(clip)
    match = _AUDIOSET_ID.fullmatch(clip_id(stem))
    keys = [stem] if match is None else [stem, f"{match[1]}_{round(1000 * float(match[2]))}"]
    names = next((by_stem[key] for key in keys if key in by_stem), ())
    if len(names) > 1:
        raise SatError(
            f"clip {clip!r} matches {names[0]!r} and {names[1]!r} of the strong labels: use full "
            "names in the table"
        )
    return names[0] if names else None


def _stem(name: str) -> str:
    stem, extension = os.path.splitext(os.path.basename(name))
    # The dot of a number, such as in the times of a part, does not begin an extension.
    is_extension = extension[1:2].isalpha() and extension[1:].isalnum()
    return stem if is_extension else stem + extension


def _read_fields(table: str | os.PathLike[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yields file and line of each row, and its clip, onset, offset and label."""
    rows = read_rows(table, *LAYOUTS, delimiter="\t", quotes=False, allow_extra=True)
    for line, fields in rows:
        where = f"{os.fspath(table)}, line {line}"
        clip, *others = ((field or "").strip() for field in fields)
        if not clip:
            raise SatError(f"{where}: the clip's name is missing: add it")
        yield where, (clip, *others)


def _times(onset: str, offset: str, where: str) -> tuple[float, float]:
    start, end = parse_seconds(onset, "onset", where), parse_seconds(offset, "offset", where)
    if end <= start:
        raise SatError(f"{where}: the event's offset {end:g} s is not after its onset {start:g} s")
    return start, end
