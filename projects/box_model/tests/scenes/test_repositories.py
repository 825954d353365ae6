"""Repositories come from a server on loopback, in the archives that GitHub makes."""

import urllib.request

import pytest

from projects.box_model.scenes.repositories import Repository, fetch_repository
from projects.box_model.tests.scenes.made_up import write_tar
from sat_jax.errors import SatError
from sat_jax.weights import download
from tests.support.file_server import Answer, Remote, serve

FARM = Repository("farm", "me/Farm-Sounds", "a1" * 20, "CREDITS.md")
PATHS = ["sounds/cow.ogg", "sounds/gone.ogg", "rooster.ogg"]


@pytest.fixture(autouse=True)
def _direct_and_without_pauses(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.setattr(download, "BACKOFF_S", 0.0)


@pytest.fixture(name="remote")
def _remote(tmp_path):
    with serve(Remote(body=archive_of(tmp_path, b"moo"), framing="chunked")) as remote:
        yield remote


def archive_of(folder, moo):
    outer = f"Farm-Sounds-{FARM.commit}"
    files = {
        "pax_global_header": b"",
        f"{outer}/sounds/cow.ogg": moo,
        f"{outer}/rooster.ogg": b"crow",
        f"{outer}/sounds/laser.ogg": b"unwanted",
        f"{outer}/../sounds/cow.ogg": b"evil",
        f"/{outer}/rooster.ogg": b"evil",
    }
    return write_tar(folder / "remote.tar.gz", files, "gz").read_bytes()


def fetch(remote, folder, repository=FARM, paths=PATHS):
    folder.mkdir(exist_ok=True)
    fetch_repository(repository, paths, folder, server=remote.url.rpartition("/")[0])
    source = folder / repository.name
    return {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*.ogg")}


def test_only_wanted_files_are_unpacked_and_only_once(remote, tmp_path):
    folder = tmp_path / "packages"
    for _ in range(2):
        found = fetch(remote, folder)
        assert found == {"sounds/cow.ogg": b"moo", "rooster.ogg": b"crow"}
    assert [path for path, _ in remote.requests] == [f"/me/Farm-Sounds/tar.gz/{FARM.commit}"]
    assert not list(tmp_path.rglob(f"{FARM.name}*.gz")), "the archive is removed"
    # Fewer files need no download; another file or commit does.
    fetch(remote, folder, paths=PATHS[:1])
    assert len(remote.requests) == 1
    assert "sounds/laser.ogg" in fetch(remote, folder, paths=[*PATHS, "sounds/laser.ogg"])
    remote.body = archive_of(tmp_path, b"newer")
    assert fetch(remote, folder, FARM._replace(commit="b2" * 20))["sounds/cow.ogg"] == b"newer"
    assert len(remote.requests) == 3


def test_files_put_there_by_hand_are_kept(remote, tmp_path):
    folder = tmp_path / "packages" / "farm"
    folder.mkdir(parents=True)
    (folder / "rooster.ogg").write_bytes(b"mine")
    (folder / f".asked-{FARM.commit}").touch()
    assert fetch(remote, tmp_path / "packages", paths=["rooster.ogg"]) == {"rooster.ogg": b"mine"}
    assert remote.requests == []


def test_a_download_is_tried_again(remote, tmp_path):
    remote.framing = "length"
    remote.answers = [Answer(status=503), Answer(cut=40)]
    assert fetch(remote, tmp_path / "packages")["sounds/cow.ogg"] == b"moo"
    assert remote.ranges_asked()[-1] == "bytes=40-"


@pytest.mark.parametrize("damage", ["missing", "page", "cut"])
def test_a_failed_fetch_is_one_line_and_keeps_what_was_there(remote, tmp_path, damage):
    folder = tmp_path / "packages"
    before = fetch(remote, folder)
    good = remote.body
    if damage == "missing":
        remote.answers = [Answer(status=404)]
    remote.body = {"missing": good, "page": b"<html>", "cut": good[: len(good) // 2]}[damage]
    newer = FARM._replace(commit="b2" * 20)
    with pytest.raises(SatError) as caught:
        fetch(remote, folder, newer)
    assert "\n" not in str(caught.value) and newer.commit in str(caught.value)
    assert fetch(remote, folder) == before
    assert not list(folder.glob(".new-*"))
    remote.body = good  # The next run succeeds.
    assert fetch(remote, folder, newer) == before
