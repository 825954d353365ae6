"""The sounds that a file holds one behind another, each with what its header promises."""

import os
from typing import BinaryIO

import soundfile

from sat_jax.audio.containers import find_start
from sat_jax.audio.flac import FlacView, measure, read_length
from sat_jax.audio.joined import JoinedView, find_next
from sat_jax.audio.layout import Layout, find_samples
from sat_jax.audio.libsndfile import UnreadableError, known_frames, open_bytes, open_view
from sat_jax.audio.metadata_tags import is_padding, skip_tags
from sat_jax.audio.mp3 import Mp3View, Xing, read_xing
from sat_jax.audio.ogg import find_stream
from sat_jax.audio.view import View, read_at

_READ_AHEAD = 1 << 16
_PLAIN = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
_MP3_TOLERANCE = 0.1  # seconds: encoders disagree by a frame or two on the length


class Part:
    """A sound of a format whose header has no length: it ends where the file ends.

    Attributes:
      sound: the open sound.
    """

    def __init__(self, sound: soundfile.SoundFile, end: int = 0) -> None:
        """Keeps what it is given.

        Args:
          sound: the open sound.
          end: where the file's last sound ends.
        """
        self.sound = sound
        self._end = end

    def frames(self) -> int | None:
        """Returns the exact number of frames if that is known before they are decoded."""
        return known_frames(self.sound)

    def loss(self, decoded: int, damage: str) -> str:
        """Says what is missing, after the sound was read; "" if it is whole.

        Args:
          decoded: number of frames.
          damage: libsndfile's reason to stop; "" at the end.
        """
        if damage:
            return f"truncated or damaged after {self._seconds(decoded)} ({damage})"
        return ""

    def next_begin(self) -> int:
        """Returns where another sound may begin, after this one was read."""
        return self._end

    def _lack(self, decoded: int, promised: int) -> str:
        return f"truncated: {self._seconds(decoded)} of {self._seconds(promised)} are there"

    def _seconds(self, frames: float) -> str:
        return f"{frames / self.sound.samplerate:.2f} s"


class _SizedPart(Part):
    """A sound whose header has the size of its samples, or leaves it open."""

    def __init__(self, file: BinaryIO, begin: int, end: int, layout: Layout) -> None:
        sound = open_view(layout.view) if layout.view else open_bytes(file, begin)
        super().__init__(sound, end)
        self._file = file
        self._layout = layout

    def frames(self) -> int | None:
        is_all = not self._layout.missing and is_padding(self._file, self.next_begin(), self._end)
        return self.sound.frames if is_all else None

    def loss(self, decoded: int, damage: str) -> str:
        return self._layout.missing or super().loss(decoded, damage)

    def next_begin(self) -> int:
        view = self._layout.view
        return view.end if isinstance(view, JoinedView) else self._layout.next_begin


def _open_sized(file: BinaryIO, begin: int, end: int, layout: Layout, *, seeks: bool) -> Part:
    part = _SizedPart(file, begin, end, layout)
    # A decoder of blocks goes on behind the last one; a seek needs to know the end.
    if isinstance(layout.view, JoinedView) and (seeks or part.sound.subtype not in _PLAIN):
        stop = find_next(file.name, begin, end, os.fstat(file.fileno()).st_mtime_ns)
        measured = find_samples(file, begin, stop)
        if stop < end and measured:
            part.sound.close()
            return _SizedPart(file, begin, end, measured)
    return part


class _FlacPart(Part):
    """A FLAC stream, read as long as there are frames."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        self._file = file
        self._begin = begin
        self._view = FlacView(file, begin, end)
        super().__init__(open_view(self._view), end)
        self._promised = read_length(file, begin)
        self._stop = end

    def frames(self) -> int | None:
        return None

    def loss(self, decoded: int, damage: str) -> str:
        if damage:
            self._stop = self._find_next(self._view.place)
            self._view.skip()
        if self._view.end < self._end:
            self._stop = self._view.end
        if self._promised is None:
            return "" if self._view.end < self._end else super().loss(decoded, damage)
        if decoded >= self._promised:
            return ""  # What follows is no FLAC frame.
        return super().loss(decoded, damage) or self._lack(decoded, self._promised)

    def next_begin(self) -> int:
        return self._stop

    def _find_next(self, place: int) -> int:
        """Returns where another sound begins near a place: the decoder reads ahead."""
        begin = max(self._begin + 1, place - _READ_AHEAD)
        start = find_start(read_at(self._file, begin, 2 * _READ_AHEAD))
        return place if start is None else begin + start


class _SeekableFlacPart(Part):
    """A FLAC stream that is not read to its end: libsndfile can only seek up to a known length."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        changed = os.fstat(file.fileno()).st_mtime_ns
        stop, self._frames = measure(file.name, begin, end, changed)
        is_file = begin == 0 and stop == end
        super().__init__(
            open_bytes(file, 0) if is_file else open_view(View(file, begin, stop)), end
        )

    def frames(self) -> int | None:
        return self._frames


class _OggPart(Part):
    """The streams of an Ogg file up to the first damaged page."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        self._stop, self._damage = find_stream(file, begin, end)
        try:
            sound = open_view(View(file, begin, self._stop))
        except UnreadableError:
            if self._damage:
                raise UnreadableError(self._damage) from None
            raise
        super().__init__(sound, end)

    def frames(self) -> int | None:
        return self.sound.frames if self._stop == self._end else None

    def loss(self, decoded: int, damage: str) -> str:
        return super().loss(decoded, self._damage or damage)

    def next_begin(self) -> int:
        return self._stop


class _CountedMp3Part(Part):
    """MP3 whose Xing header counts its frames."""

    def __init__(self, file: BinaryIO, begin: int, end: int, xing: Xing) -> None:
        super().__init__(open_bytes(file, begin), end)
        self._file = file
        self._xing = xing
        self._place = end

    def frames(self) -> int | None:
        return self.sound.frames if self._xing.end == self._end else None

    def loss(self, decoded: int, damage: str) -> str:
        self._place = self._file.tell()  # libsndfile reads frame by frame.
        missing = self.sound.frames - decoded
        is_cut = self._xing.end is not None and self._xing.end > self._end
        if missing > 0 and (is_cut or damage or missing > _MP3_TOLERANCE * self.sound.samplerate):
            return super().loss(decoded, damage) or self._lack(decoded, self.sound.frames)
        return ""

    def next_begin(self) -> int:
        stop = self._xing.end or 0
        # Padding of up to 4095 samples is not decoded.
        is_padding_only = 0 <= stop - self._place <= 4 * self._xing.mean_bytes
        return stop if is_padding_only else self._place


class _UncountedMp3Part(Part):
    """MP3 without a number of frames."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        self._file = file
        self._view = Mp3View(file, begin, end)
        super().__init__(open_view(self._view), end)
        self._view.forget()

    def frames(self) -> int | None:
        return None

    def loss(self, decoded: int, damage: str) -> str:
        view = self._view
        if damage and not is_padding(self._file, view.skipped_at, self._end):
            return super().loss(decoded, damage)
        if view.is_torn and not damage:
            return "truncated: it ends in the middle of an MP3 frame"
        if view.skipped and not view.skips_end and not damage:
            return f"damaged: {view.skipped} bytes between its MP3 frames are no sound"
        return ""

    def next_begin(self) -> int:
        return self._view.place


def open_part(file: BinaryIO, begin: int, end: int, *, seeks: bool = False) -> Part:
    """Opens the sound that begins at a byte, perhaps behind tags.

    Args:
      file: an unbuffered file.
      begin: where the sound begins.
      end: where the file's last sound ends.
      seeks: whether it is opened to seek and to know its length, not to read all of it.

    Raises:
      UnreadableError: libsndfile cannot read it.
    """
    begin = skip_tags(file, begin, end)
    start = read_at(file, begin, 4)
    if start == b"fLaC":
        return (_SeekableFlacPart if seeks else _FlacPart)(file, begin, end)
    if start == b"OggS":
        return _OggPart(file, begin, end)
    if layout := find_samples(file, begin, end):
        return _open_sized(file, begin, end, layout, seeks=seeks)
    if xing := read_xing(file, begin):
        return _CountedMp3Part(file, begin, end, xing)
    sound = open_view(View(file, begin, end))
    if sound.format != "MP3":
        return Part(sound, end)
    sound.close()
    return _UncountedMp3Part(file, begin, end)
