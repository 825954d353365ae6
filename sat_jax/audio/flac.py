"""FLAC streams: the length in their header, and where the next sound of a file begins."""

import functools
from typing import BinaryIO

import soundfile

from sat_jax.audio.joined import JoinedView
from sat_jax.audio.libsndfile import UnreadableError, open_view
from sat_jax.audio.view import View, read_at

_LENGTH_BEGIN, _LENGTH_END = 21, 26  # The lower 36 bits are the length.


def read_length(file: BinaryIO, begin: int) -> int | None:
    """Returns the number of samples by the header of a FLAC stream; None if it does not say."""
    header = read_at(file, begin, _LENGTH_END)
    return int.from_bytes(header[_LENGTH_BEGIN:]) & ((1 << 36) - 1) or None


@functools.lru_cache(maxsize=1 << 16)
def measure(name: str, begin: int, end: int, changed: int) -> tuple[int, int | None]:
    """Finds out where a FLAC stream ends, and its length, without decoding all of it.

    A seek needs to know the end: libFLAC might find a sample of another stream. The result is
    kept, since training reads a file again and again.

    Args:
      name: the file's path.
      begin: where the stream begins.
      end: where the file's last sound ends.
      changed: time of the file's last change.

    Returns:
      Where the next stream begins; `end` if there is none. The number of samples; None if the
      header has none or a wrong one, or if another stream follows.
    """
    del changed
    with open(name, "rb", buffering=0) as file:
        length = read_length(file, begin)
        scan = FlacView(file, begin, end)
        scan.skip()
        if length is None or scan.end < end:
            return scan.end, None
        view = View(file, begin, end)
        try:
            with open_view(view) as sound:
                sound.seek(length - 1)
                is_last = len(sound.read(1)) == 1 and view.place == end
        except (UnreadableError, soundfile.LibsndfileError):
            is_last = False
        return end, length if is_last else None


class FlacView(JoinedView):
    """A FLAC stream, which ends where another sound begins.

    Its header has no length, so that libsndfile reads all frames. Therefore it cannot seek.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        """Starts at the beginning; see `View`."""
        header = bytearray(read_at(file, begin, _LENGTH_END))
        if len(header) == _LENGTH_END:
            header[_LENGTH_BEGIN:] = bytes([header[_LENGTH_BEGIN] & 0xF0, 0, 0, 0, 0])
        super().__init__(file, begin + len(header), end, bytes(header))
