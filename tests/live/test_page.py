"""The server's page in a real browser: microphone, files, streams of others, login, proxies."""

import http.server
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sat_jax.find_model import find_checkpoint
from sat_jax.live.source_watch import SourceSettings
from sat_jax.tagger import Tagger
from sat_jax.weights.thresholds_file import load_thresholds
from tests.support.page_server import LiveServer, Proxy, send_stream

# A browser of 300 MB is not for every developer.
WAY_OUT = "a real browser: pip install playwright, and apt-get install chromium"
sync_api = pytest.importorskip("playwright.sync_api", reason=WAY_OUT)
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=WAY_OUT),
    pytest.mark.xdist_group("live page"),
]

EXAMPLES = Path(__file__).parents[2] / "examples"
TOKEN = "a token of some length"
MODEL = "SAT_XS_2s"


@pytest.fixture(scope="module")
def server():
    checkpoint = find_checkpoint(MODEL)
    made = LiveServer(Tagger(checkpoint), load_thresholds(MODEL, checkpoint), TOKEN)
    yield made
    made.stop()


@pytest.fixture
def proxy(server):
    made = Proxy(server)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, whose microphone plays fire at 48 kHz."""
    sound = tmp_path_factory.mktemp("sound") / "microphone.wav"
    samples, rate = soundfile.read(EXAMPLES / "fire.flac", dtype="float32")
    soundfile.write(sound, np.tile(np.repeat(samples, 3), 15), 3 * rate, subtype="PCM_16")
    flags = (
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}%noloop",
    )
    with sync_api.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=list(flags))
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """An empty page; whatever it says on its console is an error."""
    page, problems = browser.new_page(), list[str]()
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.expected = ()
    yield page
    page.close()
    assert not [each for each in problems if not each.startswith(page.expected or ("\0",))]


def heard(page, label):
    return page.locator("#bars .shown .name", has_text=label)


def newest(server):
    """Returns the stream that began last."""
    return list(server.hub.sessions.values())[-1]


def test_the_microphone_is_tagged(server, page):
    page.goto(server.url)
    page.get_by_text("Ready.").wait_for()
    assert page.locator("#insecure").is_hidden()
    page.click("#listen")
    heard(page, "Fire").wait_for()
    page.locator("#timeline .name", has_text="Fire").wait_for()
    assert page.locator("#light").inner_text() == "connected"
    assert float(page.locator("#lag").inner_text().removesuffix(" s lag")) < 5.0
    assert int(page.locator(".level").get_attribute("aria-valuenow")) > -50
    session = newest(server)
    assert session.rate in (44_100, 48_000)  # The device's own.
    page.click("#listen")
    page.get_by_text("Stopped.").wait_for()
    assert session.ended.is_set()
    assert page.locator("#log .now").count() == 0


def test_a_page_that_is_left_ends_its_stream(server, page):
    page.goto(server.url)
    page.click("#listen")
    page.locator("#light[data-state=on]").wait_for()
    session = newest(server)
    page.goto("about:blank")
    server.call(session.ended.wait())


def test_a_mark_changes_this_page_only(server, page):
    page.goto(server.url)
    page.set_input_files("#file", EXAMPLES / "fire.flac")
    told = page.locator("#timeline .row", has=page.get_by_text("Fire", exact=True))
    told.locator(".span").wait_for()
    mark = page.get_by_label("Threshold of Fire", exact=True)
    before = server.hub.sounds()
    mark.press("Home")
    assert '[rules.default.class."Fire"]\non = 0.01\n' in page.locator("#snippet").input_value()
    assert told.locator(".span.tried").count() == 1
    mark.press("End")
    assert "on = 0.99" in page.locator("#snippet").input_value()
    assert told.locator(".span.tried").count() == 0 and told.locator(".span").count() == 1
    page.get_by_text("Back to the rules").click()
    assert page.locator("#tries").is_hidden() and server.hub.sounds() == before


def test_a_file_gives_events(server, page):
    page.goto(server.url)
    page.get_by_text("Ready.").wait_for()
    data = list((EXAMPLES / "dog.flac").read_bytes())
    page.evaluate(
        """(data) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(data)], "dog.flac"));
          dispatchEvent(new DragEvent("drop", { dataTransfer: files }));
        }""",
        data,
    )
    page.locator("#timeline .name", has_text="Bark").wait_for()
    heard(page, "Dog").wait_for()
    page.get_by_text("dog.flac: 1.8 s").wait_for()


def test_a_file_without_sound_is_refused_in_words(server, page):
    page.expected = ("Failed to load resource: the server responded with a status of 422",)
    page.goto(server.url)
    page.set_input_files("#file", EXAMPLES / "README.md")
    page.locator("#status.problem", has_text="README.md").wait_for()


def test_a_stream_of_another_client_is_watched(server, page):
    sound, rate = soundfile.read(EXAMPLES / "fire.flac", dtype="float32")
    page.goto(server.url)
    with send_stream(server, "hearth", sound, rate):
        page.locator("#source option", has_text="hearth (websocket)").wait_for(state="attached")
        page.select_option("#source", label="hearth (websocket)")
        page.click("#listen")
        page.get_by_text("Watching hearth.").wait_for()
        heard(page, "Fire").wait_for()
        page.locator("#timeline .name", has_text="Fire").wait_for()
        assert page.locator("#seen").is_hidden()
    page.click("#listen")
    page.get_by_text("Stopped.").wait_for()


def test_a_source_is_paused(server, page):
    server.set_sources({"yard": SourceSettings(url="tcp://127.0.0.1:1")})
    page.goto(server.url)
    box = page.get_by_label("yard")
    box.wait_for()
    assert box.is_checked()
    box.uncheck()
    page.locator("#sources", has_text="paused").wait_for()
    assert not server.sources.describe()[0]["enabled"]
    box.check()
    page.locator("#sources", has_text="refused").wait_for()  # Nobody listens on that port.
    assert server.sources.describe()[0]["enabled"]
    server.set_sources({})
    page.reload()
    page.get_by_text("Ready.").wait_for()
    assert page.locator("#sources").is_hidden()


def test_a_lost_connection_is_taken_up_under_a_path(server, proxy, page):
    page.expected = ("WebSocket connection to", "Failed to load resource: net::ERR_")
    page.goto(proxy.url)
    page.get_by_text("Ready.").wait_for()
    page.click("#listen")
    heard(page, "Fire").wait_for()
    session = newest(server)
    proxy.cut()
    page.locator("#light[data-state=wait]").wait_for()
    page.locator("#status.problem", has_text="Sound is kept").wait_for()
    chunks = session.chunks
    proxy.cut(False)
    page.get_by_text("Nothing was lost.").wait_for()
    page.locator("#light[data-state=on]").wait_for()
    assert newest(server) is session
    page.wait_for_timeout(3000)
    page.click("#listen")
    page.get_by_text("Stopped.").wait_for()
    assert session.chunks > chunks and session.ended.is_set()


def test_the_token_lets_in(server, page):
    page.expected = ("Failed to load resource: the server responded with a status of 401",)
    page.goto(server.locked_url)
    page.fill("#token", "another token of this length")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("This is not the token.").wait_for()
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.get_by_text("Ready.").wait_for()
    assert "sat_jax" not in page.evaluate("document.cookie")
    page.click("#listen")
    heard(page, "Fire").wait_for()
    page.click("#listen")
    page.get_by_text("Stopped.").wait_for()


def test_pages_of_other_sites_are_refused(server, page):
    page.expected = ("WebSocket connection to", "Access to fetch", "Failed to load resource")
    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    page.goto(f"http://localhost:{other.server_port}/")
    opens = """(url) => new Promise((done) => {
      const socket = new WebSocket(url);
      socket.onopen = () => done("open");
      socket.onerror = () => done("refused");
    })"""
    assert page.evaluate(opens, server.url.replace("http", "ws") + "v1/stream") == "refused"
    reads = "(url) => fetch(url).then(() => 'read', () => 'refused')"
    assert page.evaluate(reads, server.url + "v1/model") == "refused"
    sends = "(url) => fetch(url, {method: 'POST', mode: 'no-cors', body: 'x'}).then(() => 'sent')"
    before = dict(server.hub.sessions)
    page.evaluate(sends, server.url + "v1/tag")
    assert server.hub.sessions == before
    other.shutdown()
    other.server_close()


def test_a_page_that_is_not_secure_says_so(server, page):
    page.goto(server.url.replace("127.0.0.1", "localhost"))
    page.get_by_text("Ready.").wait_for()
    page.add_init_script("Object.defineProperty(window, 'isSecureContext', { value: false })")
    page.reload()
    page.get_by_text("only to pages from HTTPS or localhost").wait_for()
    assert page.locator("#source optgroup[label=Microphone]").count() == 0
    assert page.locator("#file").is_enabled()
