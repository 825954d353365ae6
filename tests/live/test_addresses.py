"""What may be shown of a source's URL."""

import pytest

from sat_jax.errors import SatError
from sat_jax.live.sources import open_source, shown_address
from sat_jax.live.sources.addresses import hide_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://camera:554/live", "rtsp://camera:554/live"),
        ("rtsp://admin:hunter2@camera/live?channel=1", "rtsp://camera/live"),
        ("http://camera/flv?user=admin&password=hunter2", "http://camera/flv"),
        ("rtsp://admin:hunter2/x@camera/live", "rtsp://camera/live"),
        ("rtsp://admin:hunter2?x@camera/live", "rtsp://camera/live"),
        ("admin:hunter2@camera", "camera"),
        ("mic:USB\nAudio", "mic:USB Audio"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert shown_address(url) == shown


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://admin:hun%40ter2@camera/live?key=hunter3: Connection refused",
        "[rtsp @ 0x55] tried hun@ter2 and hun%40ter2 with hunter3",
        "tls://someone:hun@camera: failed",
    ],
)
def test_passwords_in_messages_are_hidden(text: str) -> None:
    hidden = hide_secrets(text, "rtsp://admin:hun%40ter2@camera/live?key=hunter3")
    assert "hun" not in hidden and ("camera" in hidden or "***" in hidden)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "street.wav",
        "-i",
        "-f lavfi",
        "",
        "concat:a|b",
        "subfile,,start,0,end,0,,:http://host/x",
        "RTSP//camera",
        "rtsp://",
        "rtsp:///live",
        "rtsp://camera:99999/live",
        "rtsp://user:hunter2@camera:port/",
        "rtsp://user:hunter2@camera/a b",
        "rtsp://user:hunter2@camera/a\r\nX-Header: 1",
        "tcp://host",
        "tcp://host:1/path",
        "tcp://user:hunter2@host:1",
        "tcp://host:1?rate=0",
        "tcp://host:1?rate=fast",
        "tcp://host:1?rate=16000&chanels=1",
    ],
)
def test_wrong_urls_are_one_line(url: str) -> None:
    with pytest.raises(SatError) as error:
        open_source(url)
    assert "\n" not in str(error.value) and "hunter2" not in str(error.value)
