"""The sound track of one video, fetched with yt-dlp; the only file that knows it."""

import io
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.sources.segments import Segment
from sat_jax.errors import SatError

YOUTUBE = "https://www.youtube.com/watch?v={ytid}"

_TIMEOUT_S = 20
_MARGIN_S = 1
_WHOLE = "whole_duration"
_AU_MAGIC = b".snd"
# MP4 tells times exactly; WebM rounds them to 1 ms, and so would a range of it be off.
_FORMAT = "bestaudio[ext=m4a]/bestaudio/best"
# ffmpeg decodes what it cuts, so that the cut is exact to the sample, and keeps the site's rate. AU
# is what no site serves, so a file that is AU shows that ffmpeg, and no other downloader, made it.
_CUT_ARGUMENTS = [
    "-xerror",
    "-map",
    "0:a:0",
    "-map_metadata",
    "-1",
    "-c:a",
    "pcm_f32be",
    "-f",
    "au",
]
# A decoder may lose its first packet after a jump: silence in its place, which is within the
# margin, keeps what follows where it belongs, to 1e-5 s, which is less than a sample.
_CUT_ARGUMENTS += ["-af", "aresample=async=1:min_comp=0.00001:first_pts=0"]

# What a site says of one video alone, and will say again.
_LASTING = re.compile(
    r"private video|video is private|video (is )?(un|not |no longer )available"
    r"|(isn.t|not) available anymore|available in your (country|location)|from your location"
    r"|blocked it|has been removed|removed by|account .*(terminated|closed)"
    r"|confirm your age|members[- ]only|join this channel|HTTP Error (404|410)",
    re.IGNORECASE,
)
# What may stand in the same message, when it is the site that has had enough of this machine.
_PASSING = re.compile(r"try again later|rate.limit|not a bot|HTTP Error 429", re.IGNORECASE)

_PREAMBLE = re.compile(r"^((WARNING|ERROR): )?(\[[\w:]+\] ([\w-]{11}: )?)?")
_POSTAMBLE = re.compile(r"[;.] *(?:please report this issue|Use --cookies)| \(caused by ")
# Tries that go on, and that a mirror of media files is no site that yt-dlp knows.
_IDLE_WARNING = re.compile(r"Retrying|Giving up|Falling back on generic")


class Site(NamedTuple):
    """Where videos are.

    Attributes:
      url: the address of a video's page or file, with ``{ytid}`` where its id goes.
      ranges: whether to fetch no more than the seconds wanted, where ffmpeg is installed.
      cookies: the text of a Netscape cookie file, or "".
    """

    url: str = YOUTUBE
    ranges: bool = True
    cookies: str = ""


class Media(NamedTuple):
    """A sound file with a segment in it.

    Attributes:
      path: the file, of any format.
      start: the second of the video with which it begins.
      video_seconds: how long the site says that the video is, if it does.
    """

    path: Path
    start: int
    video_seconds: float | None


class CannotFetch(Exception):
    """A segment can't be had; the message is one line."""

    def __init__(self, reason: str, *, lasting: bool) -> None:
        """Tells why, and whether it is of no use to ask again."""
        super().__init__(reason)
        self.lasting = lasting


class Hooks(NamedTuple):
    """What a download under way tells and asks.

    Attributes:
      stopped: asked again and again whether to end early.
      warn: told what yt-dlp warns of.
    """

    stopped: Callable[[], bool]
    warn: Callable[[str], None]


def check_yt_dlp() -> None:
    """Imports yt-dlp, which takes a second.

    Raises:
      SatError: it is not installed.
    """
    try:
        import yt_dlp  # noqa: F401
    except ImportError as error:
        raise SatError("yt-dlp is not installed: pip install 'sat-jax[download]'") from error


def fetch_media(site: Site, segment: Segment, folder: Path, hooks: Hooks) -> Media:
    """Fetches the sound around a segment, or all of the video's where the site gives no part.

    Args:
      site: where from.
      segment: what is wanted.
      folder: an empty folder for the file.
      hooks: see there.

    Raises:
      CannotFetch: the site does not give it.
    """
    import yt_dlp

    options = _options(site, segment, folder, hooks)
    try:
        with yt_dlp.YoutubeDL(options) as downloader:
            info = downloader.extract_info(site.url.replace("{ytid}", segment.ytid))
    except Exception as error:  # Extractors raise anything when a site changes.
        raise _cannot_fetch(error) from error
    for path in folder.iterdir():
        start = _range_start(segment) if _is_cut(path) else 0
        return Media(path, start, info.get(_WHOLE, info.get("duration")))
    raise CannotFetch("the page holds no sound", lasting=False)


def is_lasting(reason: str) -> bool:
    """Whether a site's words mean that a video is gone for good, or closed to whoever asks."""
    return bool(_LASTING.search(reason)) and not _PASSING.search(reason)


def _options(site: Site, segment: Segment, folder: Path, hooks: Hooks) -> dict[str, Any]:
    options: dict[str, Any] = {
        "format": _FORMAT,
        # A per cent sign starts a field, and the folder's name may hold one.
        "outtmpl": str(folder).replace("%", "%%") + "/media.%(ext)s",
        "playlist_items": "1",
        "noplaylist": True,
        "socket_timeout": _TIMEOUT_S,
        "retries": 3,
        "fragment_retries": 3,
        # A mended container would need ffmpeg and sound the same.
        "fixup": "never",
        "quiet": True,
        "noprogress": True,
        "color": "never",
        "logger": _Logger(hooks.warn),
        "progress_hooks": [lambda _: _end_if(hooks.stopped)],
    }
    # Without ffmpeg yt-dlp would refuse.
    if site.ranges and shutil.which("ffmpeg"):
        options |= {
            "download_ranges": lambda info, _: [_wanted_range(info, segment)],
            "force_keyframes_at_cuts": True,
            "external_downloader_args": {
                "ffmpeg_i": ["-rw_timeout", str(_TIMEOUT_S * 1_000_000)],
                "ffmpeg_o": _CUT_ARGUMENTS,
            },
        }
    if site.cookies:
        options["cookiefile"] = io.StringIO(site.cookies)  # Changed ones are not written back.
    return options


def _range_start(segment: Segment) -> int:
    # From a whole second on, resampling gives the samples that it gives of the whole video.
    return max(0, math.floor(segment.start) - _MARGIN_S)


def _wanted_range(info: dict[str, Any], segment: Segment) -> dict[str, float]:
    # Sites round it down, and yt-dlp would end the range there.
    info[_WHOLE] = info.pop("duration", None)
    return {"start_time": _range_start(segment), "end_time": segment.end + _MARGIN_S}


def _is_cut(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_AU_MAGIC)) == _AU_MAGIC


def _end_if(stopped: Callable[[], bool]) -> None:
    from yt_dlp.utils import DownloadCancelled

    if stopped():
        raise DownloadCancelled("stopped")


def _cannot_fetch(error: Exception) -> CannotFetch:
    reason = _reason(error)
    return CannotFetch(reason, lasting=is_lasting(reason))


def _reason(error: BaseException) -> str:
    cause = (getattr(error, "exc_info", None) or (None, None))[1] or error
    return _in_short(str(getattr(cause, "orig_msg", None) or cause)) or type(cause).__name__


def _in_short(message: str) -> str:
    """One line, without the names of site and video, and advice for yt-dlp's own command line."""
    line = _PREAMBLE.sub("", " ".join(message.split()))
    return _POSTAMBLE.split(line)[0][:300]


class _Logger:
    """What yt-dlp writes to; errors come as exceptions too."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn

    def debug(self, message: str) -> None:
        """Passes it over."""

    def info(self, message: str) -> None:
        """Passes it over."""

    def warning(self, message: str, **_: object) -> None:
        """Hands it on if the user can do something about it, or should know."""
        if not _IDLE_WARNING.search(message):
            self._warn(_in_short(message))

    def error(self, message: str) -> None:
        """Passes it over."""
