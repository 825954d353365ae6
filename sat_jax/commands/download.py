"""Downloads AudioSet: first its lists, then the clips of one list.

sat-jax download --lists --folder audioset/
sat-jax download --segments audioset/eval_segments.csv --folder audioset/eval/

The same command resumes a stopped run: existing files are not fetched again. A clip becomes
<video id>_<start>_<end>.wav, 16 kHz mono. download_log.jsonl in the same folder says why clips
could not be fetched. The exit code is 1 if anything could not be fetched in this run.
"""

import http.cookiejar
import shutil
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipeline.download.lists import AUDIOSET_URL, PSL_URL
from data_pipeline.download.media import YOUTUBE
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags
from sat_jax.runtime.files import explain_write_errors

FLAGS = flags.FlagValues()

_LISTS = flags.DEFINE_bool(
    "lists",
    False,
    "Download the class list, the three segment lists and the published pseudo strong labels.",
    flag_values=FLAGS,
)
_SEGMENTS = flags.DEFINE_string(
    "segments", "", "Segment list whose clips to download.", flag_values=FLAGS
)
_FOLDER = flags.DEFINE_string("folder", "", "Output folder. Required.", flag_values=FLAGS)
_WORKERS = flags.DEFINE_integer(
    "workers", 4, "Clips downloaded at a time.", lower_bound=1, upper_bound=256, flag_values=FLAGS
)
_LIMIT = flags.DEFINE_integer(
    "limit", None, "Download only the first N clips of the list.", lower_bound=1, flag_values=FLAGS
)
_RETRY_FAILED = flags.DEFINE_bool(
    "retry_failed",
    False,
    "Try videos again that were gone or private in an earlier run.",
    flag_values=FLAGS,
)
_GIVE_UP_AFTER = flags.DEFINE_integer(
    "give_up_after",
    50,
    "Stop after N failures in a row; videos that are gone do not count.",
    lower_bound=1,
    flag_values=FLAGS,
)
_COOKIES = flags.DEFINE_string(
    "cookies",
    "",
    "Netscape cookie file, for sites that require a login.",
    flag_values=FLAGS,
)
_RANGES = flags.DEFINE_bool(
    "ranges",
    True,
    "Fetch only the seconds of a segment, with ffmpeg; otherwise the whole sound track.",
    flag_values=FLAGS,
)
_VIDEO_URL = flags.DEFINE_string(
    "video_url",
    YOUTUBE,
    "Address of a video's page or file, with {ytid} in place of its id.",
    flag_values=FLAGS,
)
_LISTS_URL = flags.DEFINE_string(
    "lists_url", AUDIOSET_URL, "Folder of AudioSet's CSV files.", flag_values=FLAGS
)
_PSL_URL = flags.DEFINE_list(
    "psl_url",
    [PSL_URL],
    "Zenodo records or .parquet files of pseudo strong labels; empty for none.",
    flag_values=FLAGS,
)


def main(arguments: Sequence[str]) -> bool:
    """Downloads lists or clips; returns whether something could not be fetched."""
    del arguments
    return _fetch_lists() if _LISTS.value else _fetch_clips()


def _fetch_lists() -> bool:
    from data_pipeline.download.lists import audioset_files, fetch_list, psl_files

    folder = Path(_FOLDER.value)
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files, failed = audioset_files(_LISTS_URL.value), False
    try:
        files += psl_files(_PSL_URL.value)
    except SatError as error:
        PROGRAM.report(error)
        failed = True
    for file in files:
        try:
            state = "fetched" if fetch_list(file, folder) else "exists"
            print(f"{folder / file.name}: {state}", flush=True)
        except SatError as error:
            PROGRAM.report(error)
            failed = True
    return failed


def _fetch_clips() -> bool:
    # Imported late, so that wrong flags and --help are answered at once.
    from data_pipeline.download.fetch_clips import Options, fetch_clips
    from data_pipeline.download.log import LOG_NAME
    from data_pipeline.download.media import Site, check_yt_dlp
    from data_pipeline.sources.segments import read_segments

    folder = Path(_FOLDER.value)
    segments = read_segments(_SEGMENTS.value).rows[: _LIMIT.value]
    if _VIDEO_URL.value == YOUTUBE and shutil.which("ffmpeg") is None:
        raise SatError(
            "ffmpeg is not installed; YouTube's sound cannot be decoded without it: install it"
        )
    site = Site(_VIDEO_URL.value, _RANGES.value, _read_cookies())
    check_yt_dlp()
    options = Options(
        folder=folder,
        site=site,
        workers=_WORKERS.value,
        retry_failed=_RETRY_FAILED.value,
        give_up_after=_GIVE_UP_AFTER.value,
    )
    counts = fetch_clips(segments, options, PROGRAM.report)
    print(
        f"{folder}: {counts['fetched']} clips fetched, {counts['present']} existed, "
        f"{counts['unavailable']} unavailable, {counts['failed']} failed, {counts['skipped']} "
        f"skipped (found unavailable before); reasons in {folder / LOG_NAME}",
        flush=True,
    )
    return bool(counts["unavailable"] or counts["failed"])


def _read_cookies() -> str:
    if not _COOKIES.value:
        return ""
    path = Path(_COOKIES.value)
    try:
        http.cookiejar.MozillaCookieJar(path).load()
        return path.read_text(encoding="utf-8")
    except (http.cookiejar.LoadError, UnicodeDecodeError):
        raise SatError(f"{path} is not a Netscape cookie file: export one from a browser") from None
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror}") from error


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name the list with --segments")
    if _LISTS.value == bool(_SEGMENTS.value):
        raise flags.Error("give either --segments=FILE or --lists")
    require_flags(_FOLDER)
    if "{ytid}" not in _VIDEO_URL.value:
        raise flags.Error(f"--video_url={_VIDEO_URL.value} has no {{ytid}} for the video's id")


PROGRAM = Program(
    main=main,
    check=_check,
    on_interrupt="stopped: all files are complete; run the same command to resume",
    flag_values=FLAGS,
    doc=__doc__,
)
