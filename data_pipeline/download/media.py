"""Fetches the sound of a video with yt-dlp; the only file that uses it."""

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
_FULL_DURATION = "full_duration"
_AU_MAGIC = b".snd"
# MP4 has exact times. WebM rounds them to 1 ms, so a range of it would be off.
_FORMAT = "bestaudio[ext=m4a]/bestaudio/best"
# ffmpeg decodes the range, so that the cut is exact to the sample, and keeps the site's rate. No
# site serves AU, so an AU file shows that ffmpeg made the cut and no other downloader was used.
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
# A decoder may lose its first packet after a seek. Silence in its place, inside the margin, keeps
# the rest in time, to 1e-5 s, which is less than a sample.
_CUT_ARGUMENTS += ["-af", "aresample=async=1:min_comp=0.00001:first_pts=0"]

# Reasons that concern one video and will not change.
_PERMANENT = re.compile(
    r"private video|video is private|video (is )?(un|not |no longer )available"
    r"|(isn.t|not) available anymore|available in your (country|location)|from your location"
    r"|blocked it|has been removed|removed by|account .*(terminated|closed)"
    r"|confirm your age|members[- ]only|join this channel|HTTP Error (404|410)",
    re.IGNORECASE,
)
# The same message may have these words if the site limits this machine.
_TEMPORARY = re.compile(r"try again later|rate.limit|not a bot|HTTP Error 429", re.IGNORECASE)

_PREAMBLE = re.compile(r"^((WARNING|ERROR): )?(\[[\w:]+\] ([\w-]{11}: )?)?")
_POSTAMBLE = re.compile(r"[;.] *(?:please report this issue|Use --cookies)| \(caused by ")
# yt-dlp retries by itself, and does not know mirrors of media files as sites.
_NO_NEWS = re.compile(r"Retrying|Giving up|Falling back on generic")


class Site(NamedTuple):
    """A site with videos.

    Attributes:
      url: address of a video's page or file, with ``{ytid}`` in place of its id.
      ranges: whether to fetch only the wanted seconds; needs ffmpeg, else all is fetched.
      cookies: text of a Netscape cookie file, or "".
    """

    url: str = YOUTUBE
    ranges: bool = True
    cookies: str = ""


class Media(NamedTuple):
    """A sound file that contains a segment.

    Attributes:
      path: the file, in any format.
      start: where it starts in the video, whole seconds.
      video_seconds: the video's length according to the site; None if unknown.
    """

    path: Path
    start: int
    video_seconds: float | None


class FetchError(Exception):
    """A segment can't be fetched; the message is one line."""

    def __init__(self, reason: str, *, permanent: bool) -> None:
        """Keeps the reason, and whether it is permanent, so that trying again is useless."""
        super().__init__(reason)
        self.permanent = permanent


class Hooks(NamedTuple):
    """Callbacks of a download.

    Attributes:
      is_stopped: polled; the download ends when it returns True.
      warn: called with yt-dlp's warnings.
    """

    is_stopped: Callable[[], bool]
    warn: Callable[[str], None]


def check_yt_dlp() -> None:
    """Checks that yt-dlp is installed.

    Raises:
      SatError: it is not installed.
    """
    try:
        import yt_dlp  # noqa: F401
    except ImportError as error:
        raise SatError("yt-dlp is not installed: pip install 'sat-jax[download]'") from error


def fetch_media(site: Site, segment: Segment, folder: Path, hooks: Hooks) -> Media:
    """Fetches the sound around a segment, or of the whole video if the site serves no ranges.

    Args:
      site: the site.
      segment: the segment.
      folder: an empty folder for the file.
      hooks: callbacks.

    Raises:
      FetchError: the sound can't be fetched.
    """
    import yt_dlp

    options = _options(site, segment, folder, hooks)
    try:
        with yt_dlp.YoutubeDL(options) as downloader:
            info = downloader.extract_info(site.url.replace("{ytid}", segment.ytid))
    except Exception as error:  # Extractors raise anything when a site changes.
        raise _fetch_error(error) from error
    for path in folder.iterdir():
        start = _range_start(segment) if _is_cut(path) else 0
        return Media(path, start, info.get(_FULL_DURATION, info.get("duration")))
    raise FetchError("the page has no sound", permanent=False)


def is_permanent(reason: str) -> bool:
    """Whether a site's message means that a video is gone, or closed to everyone."""
    return bool(_PERMANENT.search(reason)) and not _TEMPORARY.search(reason)


def _options(site: Site, segment: Segment, folder: Path, hooks: Hooks) -> dict[str, Any]:
    options: dict[str, Any] = {
        "format": _FORMAT,
        # A per cent sign starts a field of the template.
        "outtmpl": str(folder).replace("%", "%%") + "/media.%(ext)s",
        "playlist_items": "1",
        "noplaylist": True,
        "socket_timeout": _TIMEOUT_S,
        "retries": 3,
        "fragment_retries": 3,
        # Repairing the container needs ffmpeg and does not change the sound.
        "fixup": "never",
        "quiet": True,
        "noprogress": True,
        "color": "never",
        "logger": _Logger(hooks.warn),
        "progress_hooks": [lambda _: _cancel_if(hooks.is_stopped)],
    }
    # Without ffmpeg, yt-dlp refuses ranges.
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
        options["cookiefile"] = io.StringIO(site.cookies)  # Changes are not written back.
    return options


def _range_start(segment: Segment) -> int:
    # Resampling from a whole second gives the same samples as resampling the whole video.
    return max(0, math.floor(segment.start) - _MARGIN_S)


def _wanted_range(info: dict[str, Any], segment: Segment) -> dict[str, float]:
    # Sites round the duration down, and yt-dlp would end the range there.
    info[_FULL_DURATION] = info.pop("duration", None)
    return {"start_time": _range_start(segment), "end_time": segment.end + _MARGIN_S}


def _is_cut(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_AU_MAGIC)) == _AU_MAGIC


def _cancel_if(is_stopped: Callable[[], bool]) -> None:
    from yt_dlp.utils import DownloadCancelled

    if is_stopped():
        raise DownloadCancelled("stopped")


def _fetch_error(error: Exception) -> FetchError:
    reason = _reason(error)
    return FetchError(reason, permanent=is_permanent(reason))


def _reason(error: BaseException) -> str:
    cause = (getattr(error, "exc_info", None) or (None, None))[1] or error
    return _shorten(str(getattr(cause, "orig_msg", None) or cause)) or type(cause).__name__


def _shorten(message: str) -> str:
    """Makes one line, without site, video id, and advice on yt-dlp's own command line."""
    line = _PREAMBLE.sub("", " ".join(message.split()))
    return _POSTAMBLE.split(line)[0][:300]


class _Logger:
    """Logger for yt-dlp: passes on warnings only, because errors are raised too."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn

    def debug(self, message: str) -> None:
        """Ignores the message."""

    def info(self, message: str) -> None:
        """Ignores the message."""

    def warning(self, message: str, **_: object) -> None:
        """Passes the warning on, if it matters to the user."""
        if not _NO_NEWS.search(message):
            self._warn(_shorten(message))

    def error(self, message: str) -> None:
        """Ignores the message."""
