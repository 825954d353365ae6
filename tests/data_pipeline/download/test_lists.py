"""Downloads of AudioSet's lists and of pseudo strong labels, from a server on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.download.lists import audioset_files, fetch_list, psl_files
from sat_jax.errors import SatError
from tests.support.media_server import Server, serve_media
from tests.support.programs import run_command

CSV = {
    "class_labels_indices.csv": b'index,mid,display_name\n0,/m/09x0r,"Speech"\n',
    "balanced_train_segments.csv": b"# Segments csv created\n",
    "eval_segments.csv": b"# Segments csv created\n",
    "unbalanced_train_segments.csv": b"# Segments csv created\n",
}
PSL = {"balanced_4s.parquet": b"PAR1one", "full 4s.parquet": b"PAR1two"}


@pytest.fixture(name="server")
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve_media(monkeypatch) as server:
        server.files = {f"csv/{name}": body for name, body in CSV.items()}
        server.files |= {f"api/{quoted(name)}/content": body for name, body in PSL.items()}
        server.files["record"] = record(server, *PSL, "weights.pt")
        yield server


def quoted(name: str) -> str:
    return name.replace(" ", "%20")


def record(server: Server, *names: str) -> bytes:
    """Returns a record as Zenodo describes it."""
    links = {name: f"{server.url}/api/{quoted(name)}/content" for name in names}
    files = [{"key": name, "links": {"self": link}} for name, link in links.items()]
    return json.dumps({"id": 1, "files": files}).encode()


def run(server: Server, folder: Path) -> int:
    urls = [f"--lists_url={server.url}/csv", f"--psl_url={server.url}/record"]
    return run_command("download", "--lists", *urls, f"--folder={folder}")


def test_all_lists_are_fetched_once(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server, tmp_path) == 0
    printed = capsys.readouterr()
    assert [line.rpartition(":")[0] for line in printed.out.splitlines()] == [
        f"{tmp_path}/{name}" for name in (*CSV, *PSL)
    ]
    assert printed.err == ""
    for name, body in (CSV | PSL).items():
        assert (tmp_path / name).read_bytes() == body
    assert not (tmp_path / "weights.pt").exists()

    server.requests.clear()
    assert run(server, tmp_path) == 0
    assert server.paths() == ["record"]


def test_a_missing_list_does_not_stop_the_others(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del server.files["csv/eval_segments.csv"]
    server.files["csv/balanced_train_segments.csv"] = b"<html>Please log in</html>"
    server.files["record"] = record(server, "weights.pt")
    assert run(server, tmp_path) == 1
    assert {path.name for path in tmp_path.glob("*.csv")} == {
        "class_labels_indices.csv",
        "unbalanced_train_segments.csv",
    }
    lines = capsys.readouterr().err.splitlines()
    for line, named in zip(
        lines, ("/record", "balanced_train_segments.csv", "eval_segments.csv"), strict=True
    ):
        assert named in line


def test_official_addresses() -> None:
    base = "https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/"
    assert [file.url for file in audioset_files()] == [base + name for name in CSV]


def test_labels_by_the_address_of_a_file(server: Server, tmp_path: Path) -> None:
    server.files["x/a.parquet?download=1"] = b"PAR1data"
    (file,) = psl_files([f"{server.url}/x/a.parquet?download=1"])
    assert fetch_list(file, tmp_path)
    assert (tmp_path / "a.parquet").read_bytes() == b"PAR1data"
    assert not fetch_list(file, tmp_path)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"files": [{"key": "a.parquet"}]}'])
def test_what_is_not_a_record_is_refused(server: Server, body: bytes) -> None:
    server.files["record"] = body
    with pytest.raises(SatError, match="/record"):
        psl_files([f"{server.url}/record"])


def test_a_record_that_cannot_be_downloaded(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del server.files["record"]
    assert run(server, tmp_path) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"{server.url}/record: HTTP 404" in line and "--psl_url=" in line
    assert "record.json" not in line
    flags = [f"--lists_url={server.url}/csv", "--psl_url=", f"--folder={tmp_path}"]
    assert run_command("download", "--lists", *flags) == 0


def test_a_record_cannot_name_files_outside_the_folder(server: Server) -> None:
    server.files["record"] = record(server, "../../evil.parquet")
    assert [file.name for file in psl_files([f"{server.url}/record"])] == ["evil.parquet"]
