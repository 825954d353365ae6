"""The page of --format web: its files, and what it shows in a real browser."""

import functools
import http.server
import os
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from sat_jax.commands import export
from sat_jax.export.web_page import PACKAGE, RUNTIME_FILES
from tests.support.programs import run_program

CONCERT = Path(__file__).parents[2] / "examples" / "concert.flac"


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Puts a program npm first on the PATH; returns a function that sets what it does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(*lines):
        program = folder / "npm"
        program.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
        program.chmod(0o755)

    return write


def test_the_folder_has_page_and_runtime(npm, tmp_path):
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name in (*RUNTIME_FILES, "ort.webgpu.mjs"):
            (tmp_path / name).write_text(name)
            archive.add(tmp_path / name, f"package/dist/{name}")
    npm(f'test "$*" = "pack {PACKAGE}" && cp {package} .')
    folder = tmp_path / "page"
    assert run_program(export.PROGRAM, "export", "--format=web", "--nocheck", str(folder)) == 0
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names >= {"index.html", "main.js", "model.onnx", "export.json", "run.py"}
    assert {name for name in names if name.startswith("ort/")} == {
        f"ort/{n}" for n in RUNTIME_FILES
    }
    text = "".join(path.read_text() for path in folder.glob("*.[hjc]*s*") if path.suffix != ".json")
    assert "http://" not in text and "https://" not in text  # Nothing comes from elsewhere.


@pytest.mark.parametrize(
    ("lines", "named"),
    [(["echo 'npm ERR! 404' >&2; exit 1"], "npm ERR! 404"), ([], "no reason given")],
)
def test_a_missing_package_is_named(npm, tmp_path, capsys, lines, named):
    npm(*lines)
    folder = tmp_path / "page"
    assert run_program(export.PROGRAM, "export", "--format=web", str(folder)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert PACKAGE in line and named in line and not folder.exists()


def test_without_npm(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_program(export.PROGRAM, "export", "--format=web", str(tmp_path / "page")) == 1
    assert "npm is missing" in capsys.readouterr().err


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def page(tmp_path):
    """A page of an export in Chromium, whose microphone plays the concert."""
    # A browser of 300 MB is not for every developer.
    way_out = "a real browser: pip install playwright, and apt-get install chromium npm"
    sync_api = pytest.importorskip("playwright.sync_api", reason=way_out)
    chromium = shutil.which("chromium")
    if not (chromium and shutil.which("npm")):
        pytest.skip(way_out)
    folder, sound = tmp_path / "page", tmp_path / "microphone.wav"
    assert run_program(export.PROGRAM, "export", "--format=web", "--nocheck", str(folder)) == 0
    samples, rate = soundfile.read(CONCERT, dtype="float32")
    soundfile.write(sound, np.repeat(samples, 3), 3 * rate, subtype="PCM_16")
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    flags = (
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}%noloop",
    )
    with sync_api.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=list(flags))
        page, problems = browser.new_page(), list[str]()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.get_by_text("Ready after").wait_for(timeout=60_000)
        yield page
        browser.close()
    server.shutdown()
    server.server_close()
    assert not problems


@pytest.mark.slow
def test_the_page_tags_a_file_and_the_microphone(page):
    page.set_input_files("#file", str(CONCERT.with_name("fire.flac")))
    page.locator("#timeline .name", has_text="Fire").wait_for(timeout=20_000)
    page.click("#listen")
    page.get_by_text("Listening.").wait_for()
    page.locator("#bars .shown .name", has_text="Cello").wait_for(timeout=30_000)
    page.click("#listen")
    page.get_by_text("Stopped.").wait_for()
    page.click("#listen")
    page.get_by_text("Listening.").wait_for()


@pytest.mark.slow
def test_one_sound_at_a_time(page):
    page.evaluate("for (let i = 0; i < 2; i++) document.getElementById('listen').click()")
    page.locator("#bars li").first.wait_for(timeout=30_000)
    page.click("#listen")
    page.get_by_text("Stopped.").wait_for()
    shown = page.inner_text("#time")
    page.wait_for_timeout(2_500)  # More than a chunk.
    assert page.inner_text("#time") == shown
    for name in ("concert.flac", "fire.flac"):
        page.set_input_files("#file", str(CONCERT.with_name(name)))
    page.get_by_text("fire.flac: 4.0 s").wait_for()
    page.wait_for_timeout(2_500)
    assert page.locator("#timeline .name").all_inner_texts() == ["Fire"]


@pytest.mark.slow
def test_the_page_resamples_as_soxr_does(page):
    code = """async ([samples, rate]) => {
        const { Resampler } = await import("./sound.js");
        const resampler = new Resampler(rate, 16000);
        return [samples.slice(0, 777), samples.slice(777)].flatMap(
            (each) => [...resampler.push(Float32Array.from(each))]
        );
    }"""
    for rate in (8_000, 44_100, 48_000):
        noise = np.random.default_rng(0).standard_normal(rate).astype(np.float32)
        ours = np.array(page.evaluate(code, [noise.tolist(), rate]))
        theirs = soxr.resample(noise, rate, 16_000)[: len(ours)]
        assert len(ours) > 15_500
        assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()
