"""Fetches AudioSet: first its lists, then the sound of the segments in one of them.

python -m data_pipeline.download --lists --folder audioset/
python -m data_pipeline.download --segments audioset/eval_segments.csv --folder audioset/eval/

Files that are there are not fetched again, so the same command goes on where it was stopped. Clips
become <video id>_<start>_<end>.wav, 16 kHz mono; what could not be had stands with its reason in
download_log.jsonl beside them. The exit code is 1 if anything could not be had in this run.
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

FLAGS = flags.FlagValues()

_LISTS = flags.DEFINE_bool(
    "lists",
    False,
    "Fetch the class list, the three lists of segments, and the published pseudo strong labels.",
    flag_values=FLAGS,
)
_SEGMENTS = flags.DEFINE_string(
    "segments", "", "List of segments whose sound to fetch.", flag_values=FLAGS
)
_FOLDER = flags.DEFINE_string(
    "folder", "", "Folder for what is fetched. Needed.", flag_values=FLAGS
)
_WORKERS = flags.DEFINE_integer(
    "workers", 4, "Clips to fetch at a time.", lower_bound=1, upper_bound=256, flag_values=FLAGS
)
_LIMIT = flags.DEFINE_integer(
    "limit", None, "Only the first so many of the list.", lower_bound=1, flag_values=FLAGS
)
_RETRY_FAILED = flags.DEFINE_bool(
    "retry_failed",
    False,
    "Ask again for videos that an earlier run found to be gone or private.",
    flag_values=FLAGS,
)
_GIVE_UP_AFTER = flags.DEFINE_integer(
    "give_up_after",
    50,
    "Stop after so many failures in a row that are not the videos' own.",
    lower_bound=1,
    flag_values=FLAGS,
)
_COOKIES = flags.DEFINE_string(
    "cookies",
    "",
    "Netscape cookie file, where the site gives its videos to known users only.",
    flag_values=FLAGS,
)
_RANGES = flags.DEFINE_bool(
    "ranges",
    True,
    "Fetch only a segment's seconds, by ffmpeg; else the whole sound track.",
    flag_values=FLAGS,
)
_VIDEO_URL = flags.DEFINE_string(
    "video_url",
    YOUTUBE,
    "Address of a video's page or file, with {ytid} where its id goes.",
    flag_values=FLAGS,
)
_LISTS_URL = flags.DEFINE_string(
    "lists_url", AUDIOSET_URL, "Folder of AudioSet's CSV files.", flag_values=FLAGS
)
_PSL_URL = flags.DEFINE_list(
    "psl_url",
    [PSL_URL],
    "Zenodo records, or .parquet files, of the pseudo strong labels; empty for none.",
    flag_values=FLAGS,
)


def main(arguments: Sequence[str]) -> bool:
    """Fetches what the flags ask for; returns whether something could not be had."""
    del arguments
    return not (_fetch_lists() if _LISTS.value else _fetch_clips())


def _fetch_lists() -> bool:
    from data_pipeline.download.lists import audioset_files, fetch_list, psl_files

    folder = Path(_FOLDER.value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SatError(
            f"cannot make {folder}: {error.strerror}: choose another --folder"
        ) from error
    files, succeeded = audioset_files(_LISTS_URL.value), True
    try:
        files += psl_files(_PSL_URL.value)
    except SatError as error:
        PROGRAM.report(error)
        succeeded = False
    for file in files:
        try:
            state = "fetched" if fetch_list(file, folder) else "was there"
            print(f"{folder / file.name}: {state}", flush=True)
        except SatError as error:
            PROGRAM.report(error)
            succeeded = False
    return succeeded


def _fetch_clips() -> bool:
    # Imported late: a wrong flag or --help should be answered at once.
    from data_pipeline.download.log import LOG_NAME
    from data_pipeline.download.media import Site, check_yt_dlp
    from data_pipeline.download.run import Options, fetch_clips
    from data_pipeline.sources.segments import read_segments

    folder = Path(_FOLDER.value)
    segments = read_segments(_SEGMENTS.value).rows[: _LIMIT.value]
    if _VIDEO_URL.value == YOUTUBE and shutil.which("ffmpeg") is None:
        raise SatError(
            "ffmpeg is not installed, and YouTube's sound can't be read without it: install it"
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
    tally = fetch_clips(segments, options, PROGRAM.report)
    print(
        f"{folder}: {tally.fetched} clips fetched, {tally.there} were there, "
        f"{tally.unavailable} unavailable, {tally.failed} failed, {tally.remembered} known to be "
        f"unavailable; reasons in {folder / LOG_NAME}",
        flush=True,
    )
    return not (tally.unavailable or tally.failed)


def _read_cookies() -> str:
    if not _COOKIES.value:
        return ""
    path = Path(_COOKIES.value)
    try:
        http.cookiejar.MozillaCookieJar(path).load()
        return path.read_text(encoding="utf-8")
    except (http.cookiejar.LoadError, UnicodeDecodeError):
        raise SatError(f"{path} is no Netscape cookie file: export one from a browser") from None
    except OSError as error:
        raise SatError(f"cannot read {path}: {error.strerror}") from error


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "name the list with --segments")
    if _LISTS.value == bool(_SEGMENTS.value):
        raise flags.Error("give --segments=FILE or --lists, one of them")
    require_flags(_FOLDER)
    if "{ytid}" not in _VIDEO_URL.value:
        raise flags.Error("--video_url needs {ytid} where the video's id goes")


PROGRAM = Program(
    main=main,
    check=_check,
    on_interrupt="stopped: what is there is whole, and the same command goes on",
    flag_values=FLAGS,
    doc=__doc__,
)
