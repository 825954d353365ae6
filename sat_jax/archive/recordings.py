"""The recordings of a file: itself, or the audio files in a tar file."""

import tarfile
import tempfile
from collections.abc import Iterator

from sat_jax.archive.storage import local_copy, open_file, save_stream
from sat_jax.audio.suffixes import is_audio_name
from sat_jax.errors import SatError


def recordings_of(file: str) -> Iterator[tuple[str, str]]:
    """Yields the name and a local copy of each recording, which lasts until the next.

    Args:
      file: an audio file; or a tar file (WebDataset), whose recordings are named FILE/MEMBER. Its
        members that are no audio by their names are passed over.

    Raises:
      SatError: the file can't be read, or the tar file is damaged.
    """
    if not file.endswith(".tar"):
        with local_copy(file) as local:
            yield file, local
        return
    try:
        with open_file(file) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if is_audio_name(member.name) and (content := tar.extractfile(member)):
                    with tempfile.TemporaryDirectory() as folder:
                        yield f"{file}/{member.name}", save_stream(content, folder, member.name)
    except tarfile.TarError as error:
        raise SatError(f"{file}: damaged ({error}): make the tar file again") from error
