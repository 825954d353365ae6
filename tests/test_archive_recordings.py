"""The recordings in tar files: none is missing without an error."""

import io
import tarfile

import pytest

from sat_jax.errors import SatError

pytest.importorskip("apache_beam")
from sat_jax.archive.recordings import recordings_of


def make_tar(*names: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 700
            tar.addfile(member, io.BytesIO(name.encode().ljust(700)))
    return content.getvalue()


def read(path) -> tuple[list[str], str]:
    """Returns the recordings' contents, and the error behind them."""
    contents = []
    try:
        for name, local in recordings_of(str(path)):
            with open(local) as file:
                contents.append(file.read().strip())
            assert name == f"{path}/{contents[-1]}"
    except SatError as error:
        return contents, str(error)
    return contents, ""


MEMBER = 512 + 1_024
WHOLE = make_tar("a.wav", "b.json", "c.wav", "d.wav")
FLIPPED = bytearray(WHOLE)
FLIPPED[2 * MEMBER + 3] ^= 1


@pytest.mark.parametrize(
    ("content", "names", "reason"),
    [
        (WHOLE, "acd", ""),
        (WHOLE[: 4 * MEMBER + 512], "acd", ""),  # One block of zeros.
        (WHOLE + make_tar("e.wav") + WHOLE, "acdeacd", ""),  # Joined.
        (make_tar(), "", ""),
        (WHOLE[: 4 * MEMBER], "acd", "unexpected end"),
        (WHOLE[: 3 * MEMBER], "ac", "unexpected end"),
        (WHOLE[: 3 * MEMBER + 100], "ac", "truncated header"),
        (WHOLE[: 2 * MEMBER + 900], "a", "unexpected end of data"),
        (bytes(FLIPPED), "a", "bad checksum"),
        (b"", "", "empty file"),
        (b"junk" * 300, "", "header"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_no_recording_is_missing_without_an_error(content, names, reason, tmp_path):
    path = tmp_path / "shard.tar"
    path.write_bytes(content)
    found, error = read(path)
    assert "".join(name[0] for name in found) == names
    assert reason in error
    assert bool(error) == bool(reason)
