"""Fetches the clips of a segment list into a folder: in parallel, resumable, with a log."""

import contextlib
import dataclasses
import math
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

from data_pipeline.download.clip import write_clip
from data_pipeline.download.log import Entry, Log
from data_pipeline.download.media import FetchError, Hooks, Site, fetch_media
from data_pipeline.sources.segments import Segment, clip_id
from sat_jax.errors import SatError
from sat_jax.runtime.files import explain_write_errors, locked_folder

_QUEUED_CLIPS = 10_000
"""A pool keeps all that is queued in memory, and lists have two million clips."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How clips are fetched.

    Attributes:
      folder: for ``<clip id>.wav`` and the log.
      site: where the videos are.
      workers: clips to fetch at a time.
      retry_failed: fetch clips again that were unavailable in an earlier run.
      give_up_after: failures in a row after which the run ends, because the cause must be the
        site, the network or this machine. Unavailable clips don't count.
    """

    folder: Path
    site: Site
    workers: int = 4
    retry_failed: bool = False
    give_up_after: int = 50


def fetch_clips(
    segments: Sequence[Segment], options: Options, report: Callable[[str], None]
) -> Counter[str]:
    """Fetches the clips that are not in the folder yet.

    A file only gets its name when it is complete, so a run can be stopped and resumed anywhere.

    Args:
      segments: the list; a segment listed twice is fetched once.
      options: where from, where to, and how.
      report: called with one line per problem, as it happens.

    Returns:
      Numbers of clips: "present" and "skipped" (found unavailable) from earlier runs; "fetched",
      "unavailable" and "failed" in this run.

    Raises:
      SatError: the folder can't be used, or too many clips failed in a row.
    """
    by_id = {segment.id: segment for segment in segments}
    for clip, segment in by_id.items():
        if Path(clip).name != clip or not 0 <= segment.start < segment.end < math.inf:
            raise SatError(f"{clip!r} is not a video id with start and end: correct the list")
    with (
        locked_folder(options.folder),
        explain_write_errors(options.folder),
        _scratch(options.folder) as scratch,
    ):
        log = Log(options.folder)
        names = {clip_id(name) for name in os.listdir(options.folder) if name.endswith(".wav")}
        absent = [segment for clip, segment in by_id.items() if clip not in names]
        wanted = [s for s in absent if options.retry_failed or not log.is_unavailable(s.id)]
        counts = Counter(present=len(by_id) - len(absent), skipped=len(absent) - len(wanted))
        _fetch_all(wanted, counts, options, log, scratch, report)
    return counts


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Makes a folder for unfinished files, and removes it, also that of a killed process."""
    scratch = folder / ".download"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(exist_ok=True)
    try:
        yield scratch
    finally:
        for _ in range(100):  # A thread that was not awaited may just have made a file.
            shutil.rmtree(scratch, ignore_errors=True)
            if not scratch.exists():
                break
            time.sleep(0.01)


def _fetch_all(
    segments: Sequence[Segment],
    counts: Counter[str],
    options: Options,
    log: Log,
    scratch: Path,
    report: Callable[[str], None],
) -> None:
    stop = threading.Event()
    warnings: set[str] = set()
    failures_in_a_row = 0

    def print_line(line: str) -> None:
        with tqdm.external_write_mode():
            report(line)

    def warn(line: str) -> None:
        if line not in warnings:
            warnings.add(line)
            print_line(f"yt-dlp: {line}")

    def fetch(segment: Segment) -> Entry:
        return _fetch_one(segment, options, scratch, Hooks(stop.is_set, warn))

    with (
        contextlib.closing(_in_threads(fetch, segments, options.workers, stop)) as entries,
        tqdm(total=len(segments), unit="clip", disable=None) as bar,  # None: on terminals only
    ):
        for entry in entries:
            log.add(entry)
            counts[entry.outcome] += 1
            bar.set_postfix(
                unavailable=counts["unavailable"], failed=counts["failed"], refresh=False
            )
            bar.update()
            if entry.outcome != "fetched":
                print_line(f"{entry.clip}: {entry.reason}")
            failures_in_a_row = failures_in_a_row + 1 if entry.outcome == "failed" else 0
            if failures_in_a_row == options.give_up_after:
                raise SatError(
                    f"{failures_in_a_row} clips in a row failed, the last one with: "
                    f"{entry.reason}: solve that and run this again to resume; log: {log.path}"
                )


def _in_threads(
    fetch: Callable[[Segment], Entry],
    segments: Sequence[Segment],
    workers: int,
    stop: threading.Event,
) -> Generator[Entry]:
    """Yields the entries as they come; sets `stop` when it is closed."""
    # Not concurrent.futures: at exit, it would wait for a thread that waits for a silent server.
    with ThreadPool(workers) as pool:
        try:
            for first in range(0, len(segments), _QUEUED_CLIPS):
                yield from pool.imap_unordered(fetch, segments[first : first + _QUEUED_CLIPS])
        finally:
            stop.set()


def _fetch_one(segment: Segment, options: Options, scratch: Path, hooks: Hooks) -> Entry:
    clip, reason = segment.id, ""
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as name:
        media_folder = Path(name, "media")
        media_folder.mkdir()
        try:
            media = fetch_media(options.site, segment, media_folder, hooks)
            output = options.folder / f"{clip}.wav"
            seconds = write_clip(media, segment, Path(name, "clip.wav"), output)
        except FetchError as error:
            return Entry(clip, "unavailable" if error.permanent else "failed", str(error))
    if seconds < segment.end - segment.start - 1e-3:
        reason = f"ends after {seconds:.3f} of {segment.end - segment.start:g} s"
    return Entry(clip, "fetched", reason)
