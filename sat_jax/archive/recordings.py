"""The recordings of a file: itself, or the audio files in a tar file."""

import tarfile
import tempfile
from collections.abc import Iterator
from typing import Any

from sat_jax.archive.storage import local_copy, open_file, save_stream
from sat_jax.audio.suffixes import is_audio_name
from sat_jax.errors import SatError

_DAMAGE = (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined]


class _Member(tarfile.TarInfo):
    """A member of a tar file. A damaged one is an error; Python would end or skip there."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Member":
        """Reads the next header."""
        try:
            return super().fromtarfile(tar)
        except _DAMAGE as error:
            raise tarfile.ReadError(str(error)) from error


def recordings_of(file: str) -> Iterator[tuple[str, str]]:
    """Yields the name and a local copy of each recording, which lasts until the next.

    Args:
      file: an audio file; or a tar file (WebDataset), perhaps of several that were joined, whose
        recordings are named FILE/MEMBER. Its members that are no audio by their names are passed
        over.

    Raises:
      SatError: the file can't be read, or the tar file is damaged or was cut.
    """
    if not file.endswith(".tar"):
        with local_copy(file) as local:
            yield file, local
        return
    options: dict[str, Any] = {"tarinfo": _Member, "ignore_zeros": True}  # Zeros end a joined one.
    try:
        with open_file(file) as stream, tarfile.open(fileobj=stream, mode="r|", **options) as tar:
            end = -1
            for member in tar:
                end = tar.offset
                if is_audio_name(member.name) and (content := tar.extractfile(member)):
                    with tempfile.TemporaryDirectory() as folder:
                        yield f"{file}/{member.name}", save_stream(content, folder, member.name)
            if tar.offset == end:  # Zeros end a whole one.
                raise tarfile.ReadError("unexpected end")
    except tarfile.TarError as error:
        raise SatError(f"{file}: damaged ({error}): make the tar file again") from error
