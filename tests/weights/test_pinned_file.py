"""Files of known content: downloaded once, taken from the cache, refused if they are others."""

import hashlib

import pytest

from sat_jax.errors import SatError
from sat_jax.runtime.files import cache_dir
from sat_jax.weights.pinned_file import PinnedFile, fetch_pinned
from tests.support.file_server import Remote, serve

BODY = bytes(range(256)) * 40


@pytest.fixture
def remote():
    with serve(Remote(body=BODY)) as remote:
        yield remote


def pinned(remote, **changes):
    fields = {"num_bytes": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest()} | changes
    return PinnedFile(remote.url, **fields)


def test_a_file_is_downloaded_once(remote):
    for _ in range(2):
        path = fetch_pinned(pinned(remote))
        assert path == cache_dir() / "published" / "weights.pt"
        assert path.read_bytes() == BODY
    assert len(remote.requests) == 1


def test_a_file_put_there_by_hand_is_used(remote):
    path = pinned(remote).path
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert fetch_pinned(pinned(remote)) == path
    assert remote.requests == []


@pytest.mark.parametrize("body", [BODY[:-1], b"x" + BODY[1:], b""])
def test_another_file_is_refused_and_kept(remote, body):
    path = pinned(remote).path
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    with pytest.raises(SatError, match="delete it") as caught:
        fetch_pinned(pinned(remote))
    assert str(path) in str(caught.value) and remote.url in str(caught.value)
    assert path.read_bytes() == body and remote.requests == []


def test_a_longer_file_on_the_server_is_not_downloaded(remote):
    with pytest.raises(SatError, match=str(len(BODY) - 1)):
        fetch_pinned(pinned(remote, num_bytes=len(BODY) - 1))
    assert not pinned(remote).path.exists()


def test_another_file_on_the_server_is_refused(remote):
    with pytest.raises(SatError, match="SHA-256"):
        fetch_pinned(pinned(remote, sha256="0" * 64))
