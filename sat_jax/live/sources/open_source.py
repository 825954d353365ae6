"""Opens a source by its URL."""

from sat_jax.errors import SatError
from sat_jax.live.sources.addresses import shown_address
from sat_jax.live.sources.ffmpeg_source import SCHEMES, FfmpegSource
from sat_jax.live.sources.microphone import MicrophoneSource
from sat_jax.live.sources.source import Source
from sat_jax.live.sources.standard_input import StandardInput
from sat_jax.live.sources.tcp_source import TcpSource

STDIN = "-"


def open_source(url: str, *, channel: int | None = None) -> Source:
    """Opens a source. Nothing is connected before its sound is asked for.

    Args:
      url: one of

        - ``rtsp://``, ``rtsps://``, ``http://`` or ``https://``: a camera or stream, by ffmpeg;
        - ``mic:`` or ``mic:NAME``: the default microphone, or one by name or part of it;
        - ``tcp://HOST:PORT?rate=16000&channels=1``: raw 16-bit samples, little-endian; with
          ``&listen=1``, whoever connects to this port sends them;
        - ``-``: standard input, a file of any format or raw samples as for ``sat-jax tag``.
      channel: the channel to keep, counted from 0; None for the mean of all channels.

    Raises:
      SatError: the URL is wrong, or ffmpeg, PortAudio or sounddevice is not installed.
    """
    if url == STDIN:
        return StandardInput(channel=channel)
    if url.startswith("mic:"):
        return MicrophoneSource(url.removeprefix("mic:"), channel=channel)
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme in SCHEMES:
        return FfmpegSource(url, channel=channel)
    if scheme == "tcp":
        return TcpSource(url, channel=channel)
    known = ", ".join(f"{name}://" for name in (*SCHEMES, "tcp"))
    raise SatError(
        f"{shown_address(url)!r} is no source of live sound: use {known}, mic:, mic:NAME or -; "
        "for files, use sat-jax tag"
    )
