"""Microphones of this machine, by PortAudio."""

import struct
import threading
from typing import Any, NamedTuple

import numpy as np

from sat_jax.audio.mono import SoundInfo
from sat_jax.errors import SatError, one_line
from sat_jax.live.sources.inbox import Inbox
from sat_jax.live.sources.reconnecting import (
    Connection,
    Int16Frames,
    LostError,
    ReconnectingSource,
    Timing,
)
from sat_jax.live.sources.source import Gap
from sat_jax.runtime.quiet import C_SILENCE

_BLOCK_SECONDS = 0.1
_WAITING_BLOCKS = 50
_MOST_CHANNELS = 2  # Sound servers offer 32 of them, all but two of which are silent.

_LOST = struct.Struct("=d")
"""Seconds that were lost before a block; precedes its samples."""

_lock = threading.Lock()
"""PortAudio takes one call at a time that opens or closes something."""
_open_streams = set[int]()
"""As long as one is open, PortAudio can't look for new devices."""


class Microphone(NamedTuple):
    """A device that records.

    Attributes:
      name: for ``mic:NAME``.
      number: PortAudio's, until the next call.
      rate: its own sample rate, Hz.
      channels: the most that it has.
      is_default: whether it is used if none is named.
    """

    name: str
    number: int
    rate: int
    channels: int
    is_default: bool


def list_microphones() -> list[Microphone]:
    """Returns the microphones of this machine, as they are now.

    Raises:
      SatError: PortAudio or sounddevice is not installed.
    """
    library = _load_library()
    with _lock:
        _look_again(library)
        return _list(library)


def find_microphone(name: str) -> Microphone:
    """Returns a microphone by its name or a part of it; the default one for "".

    Raises:
      SatError: there is none, or several have this in their names; or see `list_microphones`.
    """
    return _choose(list_microphones(), name)


class MicrophoneSource(ReconnectingSource):
    """A microphone. It is looked for again when it was lost."""

    def __init__(self, name: str, *, channel: int | None = None, timing: Timing | None = None):
        """Checks that microphones can be used at all.

        Args:
          name: see `find_microphone`.
          channel: see `sat_jax.live.sources.open_source`.
          timing: how patient it is.

        Raises:
          SatError: PortAudio or sounddevice is not installed.
        """
        super().__init__(channel=channel, timing=timing or Timing())
        self._name = name
        self._library = _load_library()

    def _connect(self) -> Connection:
        with _lock:
            try:
                _look_again(self._library)
                found = _choose(_list(self._library), self._name)
                with C_SILENCE:
                    return _Recording(self._library, found, self._channel)
            except SatError as error:
                raise LostError(str(error)) from error
            except (self._library.PortAudioError, ValueError) as error:
                raise LostError(f"cannot record: {_reason(error)}") from error


class _Recording:
    """An open microphone."""

    def __init__(self, library: Any, microphone: Microphone, channel: int | None) -> None:
        self.is_waiting = False
        self.problem = ""
        self._inbox = Inbox(_WAITING_BLOCKS)
        channels = _usable_channels(library, microphone, channel)
        self.info = SoundInfo(
            name=f"mic:{microphone.name}", rate=microphone.rate, channels=channels
        )
        self._frames = Int16Frames(channels, "=i2")
        self._lost_before = 0.0  # Seconds; only for PortAudio's thread.
        self._next_time = 0.0
        self._behind_gap: np.ndarray | None = None
        self._stream = library.RawInputStream(
            device=microphone.number,
            samplerate=microphone.rate,
            channels=channels,
            dtype="int16",
            blocksize=round(_BLOCK_SECONDS * microphone.rate),
            latency=2 * _BLOCK_SECONDS,
            callback=self._take,
            finished_callback=lambda: self._inbox.end("the microphone was switched off"),
        )
        self._stream.start()
        _open_streams.add(id(self))

    def read(self, seconds: float) -> np.ndarray | Gap | None:
        if self._behind_gap is not None:
            frames, self._behind_gap = self._behind_gap, None
            return frames
        data = self._inbox.get(seconds)
        if data is None:
            self.problem = self.problem or self._inbox.problem
            return None
        frames = self._frames.push(data[_LOST.size :])
        (lost,) = _LOST.unpack(data[: _LOST.size]) if data else (0.0,)
        if lost:
            self._behind_gap = frames
            return Gap(lost)
        return frames

    def close(self) -> None:
        self._inbox.close()
        with _lock:
            _open_streams.discard(id(self))
            self._stream.close(ignore_errors=True)

    def _take(self, data: Any, frames: int, times: Any, flags: Any) -> None:
        """Copies a block. PortAudio's thread waits for this."""
        seconds = frames / self.info.rate
        if flags.input_overflow and self._next_time:
            self._lost_before += max(0.0, times.inputBufferAdcTime - self._next_time)
        self._next_time = times.inputBufferAdcTime + seconds
        if self._inbox.offer(_LOST.pack(self._lost_before) + bytes(data)):
            self._lost_before = 0.0
        else:
            self._lost_before += seconds


def _usable_channels(library: Any, microphone: Microphone, channel: int | None) -> int:
    """Returns how many channels to ask for: some devices have all of them or none."""
    wanted = min(_MOST_CHANNELS, microphone.channels) if channel is None else channel + 1
    for channels in (wanted, microphone.channels):
        try:
            library.check_input_settings(
                device=microphone.number,
                channels=channels,
                dtype="int16",
                samplerate=microphone.rate,
            )
        except (library.PortAudioError, ValueError):
            continue
        return channels
    return wanted  # Opening it tells what is wrong.


def _load_library() -> Any:
    try:
        with C_SILENCE:
            import sounddevice
    except ImportError as error:
        raise SatError(
            "microphones need the package sounddevice: pip install 'sat-jax[live]'"
        ) from error
    except OSError as error:
        raise SatError(
            "microphones need the library PortAudio: install libportaudio2 (Debian, Ubuntu), "
            "portaudio (Fedora, Arch, Homebrew)"
        ) from error
    return sounddevice


def _look_again(library: Any) -> None:
    """Makes PortAudio look for devices, which it only does when it starts."""
    if not _open_streams:
        with C_SILENCE:  # ALSA complains about what is not there.
            library._terminate()
            library._initialize()


def _list(library: Any) -> list[Microphone]:
    default = library.default.device[0]
    if default < 0:  # As it chooses by itself.
        try:
            default = library.query_devices(kind="input")["index"]
        except (library.PortAudioError, ValueError):
            default = -1
    return [
        Microphone(
            name=one_line(device["name"]),
            number=number,
            rate=round(device["default_samplerate"]),
            channels=device["max_input_channels"],
            is_default=number == default,
        )
        for number, device in enumerate(library.query_devices())
        if device["max_input_channels"] > 0
    ]


def _choose(microphones: list[Microphone], name: str) -> Microphone:
    if not microphones:
        raise SatError("no microphone: plug one in, or start PulseAudio or PipeWire")
    key = name.casefold()
    if not key:
        defaults = [each for each in microphones if each.is_default]
        return (defaults or microphones)[0]
    named = [each for each in microphones if each.name.casefold() == key]
    near = [each for each in microphones if key in each.name.casefold()]
    if named or len(near) == 1:
        return (named or near)[0]
    what = "several microphones are named" if near else "no microphone is named"
    listed = ", ".join(each.name for each in near or microphones)
    raise SatError(f"{what} {name!r}: use one of: {listed}")


def _reason(error: Exception) -> str:
    """Returns PortAudio's reason without its numbers."""
    return one_line(str(error.args[0] if error.args else error)).rstrip(".")
