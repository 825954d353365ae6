"""All clips of a list into a folder: in parallel, resumable, with a log."""

import contextlib
import dataclasses
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from data_pipeline.download.clip import write_clip
from data_pipeline.download.log import Entry, Log
from data_pipeline.download.media import CannotFetch, Hooks, Site, fetch_media
from data_pipeline.download.workers import run_parallel
from data_pipeline.sources.segments import Segment, clip_id
from sat_jax.errors import SatError

_WORK_FOLDER = ".download"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How clips are fetched.

    Attributes:
      folder: where they go, as ``<clip id>.wav``, and the log.
      site: where they come from.
      workers: how many are fetched at a time.
      retry_failed: ask again for what was unavailable in an earlier run.
      give_up_after: failures in a row, each of which may pass, after which the site, the network
        or this machine is to blame, and not a clip.
    """

    folder: Path
    site: Site
    workers: int = 4
    retry_failed: bool = False
    give_up_after: int = 50


@dataclasses.dataclass
class Tally:
    """How many clips there are of each kind.

    Attributes:
      there: files of earlier runs.
      fetched: in this run.
      remembered: known to be unavailable, not asked for again.
      unavailable: found to be so in this run.
      failed: in this run, perhaps not in the next.
    """

    there: int = 0
    remembered: int = 0
    fetched: int = 0
    unavailable: int = 0
    failed: int = 0


def fetch_clips(
    segments: Sequence[Segment], options: Options, report: Callable[[str], None]
) -> Tally:
    """Fetches what of a list is not there yet.

    A clip that is there whole has its name, so that a run that stopped anywhere can go on.

    Args:
      segments: the list; one that stands there twice is fetched once.
      options: where from, where to, and how.
      report: told in one line what went wrong, as it happens.

    Raises:
      SatError: the folder can't be used, or too many failed in a row.
    """
    by_id = {segment.id: segment for segment in segments}
    for clip, segment in by_id.items():
        if Path(clip).name != clip or not 0 <= segment.start < segment.end < math.inf:
            raise SatError(f"{clip!r} is no video id with its times: mend the list of segments")
    with _own_folder(options.folder) as scratch:
        log = Log(options.folder)
        missing, tally = _missing(by_id, options, log)
        _fetch_missing(missing, tally, options, log, scratch, report)
    return tally


def _missing(by_id: dict[str, Segment], options: Options, log: Log) -> tuple[list[Segment], Tally]:
    present = {clip_id(name) for name in os.listdir(options.folder) if name.endswith(".wav")}
    absent = [segment for clip, segment in by_id.items() if clip not in present]
    wanted = [
        segment for segment in absent if options.retry_failed or not log.is_unavailable(segment.id)
    ]
    return wanted, Tally(there=len(by_id) - len(absent), remembered=len(absent) - len(wanted))


def _fetch_missing(
    missing: Sequence[Segment],
    tally: Tally,
    options: Options,
    log: Log,
    scratch: Path,
    report: Callable[[str], None],
) -> None:
    from tqdm import tqdm

    stop, in_a_row = threading.Event(), 0
    told: set[str] = set()

    def tell(line: str) -> None:
        with tqdm.external_write_mode():
            report(line)

    def warn(line: str) -> None:
        if line not in told:
            told.add(line)
            tell(f"yt-dlp: {line}")

    def fetch(segment: Segment) -> Entry:
        return _fetch_one(segment, options, scratch, Hooks(stop.is_set, warn))

    results = run_parallel(fetch, missing, workers=options.workers, stop=stop)
    # disable=None draws it on a terminal only.
    with (
        contextlib.closing(results),
        tqdm(total=len(missing), unit="clip", disable=None) as bar,
    ):
        for entry in results:
            log.add(entry)
            setattr(tally, entry.outcome, getattr(tally, entry.outcome) + 1)
            bar.set_postfix(unavailable=tally.unavailable, failed=tally.failed, refresh=False)
            bar.update()
            if entry.outcome != "fetched":
                tell(f"{entry.clip}: {entry.reason}")
            in_a_row = in_a_row + 1 if entry.outcome == "failed" else 0
            if in_a_row == options.give_up_after:
                raise SatError(
                    f"{in_a_row} clips in a row failed, the last one because: {entry.reason}: "
                    f"mend that and run this again to go on; the log is {log.path}"
                )


def _fetch_one(segment: Segment, options: Options, scratch: Path, hooks: Hooks) -> Entry:
    clip, reason = segment.id, ""
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as name:
        media_folder = Path(name, "media")
        media_folder.mkdir()
        try:
            media = fetch_media(options.site, segment, media_folder, hooks)
            part, whole = Path(name, "clip.wav"), options.folder / f"{clip}.wav"
            seconds = write_clip(media, segment, part, whole)
        except CannotFetch as error:
            return Entry(clip, "unavailable" if error.lasting else "failed", str(error))
    if seconds < segment.end - segment.start - 1e-3:
        reason = f"ends after {seconds:.3f} of {segment.end - segment.start:g} s"
    return Entry(clip, "fetched", reason)


@contextlib.contextmanager
def _own_folder(folder: Path) -> Iterator[Path]:
    """Makes the folder, keeps other processes out of it, and yields one in it for half files."""
    import filelock

    work = folder / _WORK_FOLDER
    try:
        work.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(work / "lock", timeout=0):
            scratch = work / "part"
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
            scratch.mkdir()
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    except filelock.Timeout:
        raise SatError(
            f"another process is downloading into {folder}: wait for it or stop it"
        ) from None
    except OSError as error:
        raise SatError(
            f"cannot write {error.filename or folder}: {error.strerror or error}: mend that or "
            f"choose another --folder"
        ) from error
