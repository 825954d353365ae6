"""PCM from pipes, against the same samples in a file."""

import io
import os
import threading

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from sat_jax.audio import read_live_blocks
from sat_jax.errors import SatError
from tests.support.sounds import RATES, SETTINGS, read


class Cut(io.RawIOBase):
    """A pipe whose reads end where they end."""

    def __init__(self, data, lengths):
        self.pieces = iter(np.split(np.frombuffer(data, np.uint8), np.cumsum(lengths)))

    def read(self, size=-1):
        return next((piece.tobytes() for piece in self.pieces if piece.size), b"")


@SETTINGS
@given(
    lengths=st.lists(st.integers(0, 3_000), max_size=30),
    channels=st.integers(1, 4),
    rate=st.sampled_from(RATES),
    channel=st.none() | st.just(0),
)
def test_pipe_equals_file_however_it_is_cut(folder, lengths, channels, rate, channel):
    samples = np.random.default_rng(1).integers(-30_000, 30_000, (5_000, channels), np.int16)
    soundfile.write(folder / "pipe.wav", samples, rate, subtype="PCM_16")
    stream = Cut(samples.astype("<i2").tobytes() + b"\0", lengths)
    shape = {"rate": rate, "channels": channels, "channel": channel}
    blocks = list(read_live_blocks(stream, name="standard input", **shape))
    assert all(block.dtype == np.float32 and block.size for block in blocks)
    want = read(folder / "pipe.wav", channel=channel)
    np.testing.assert_array_equal(np.concatenate(blocks), want)


def test_pipe_hands_on_what_is_there():
    reader, writer = os.pipe()
    with open(reader, "rb") as stream, open(writer, "wb", buffering=0) as sink:
        blocks = read_live_blocks(stream, name="standard input", rate=16_000, channels=2)
        alarm = threading.Timer(10, sink.close)  # else a reader that waits would wait for ever
        alarm.start()
        for value in (1, 2, 3):
            sink.write(np.full((100, 2), value, "<i2").tobytes())
            np.testing.assert_array_equal(next(blocks), np.full(100, value / 32_768))
        alarm.cancel()
        sink.close()
        assert list(blocks) == []


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"rate": 0, "channels": 1}, "rate 0 Hz"),
        ({"rate": 10**6, "channels": 1}, "rate 1000000 Hz"),
        ({"rate": 16_000, "channels": 0}, "0 channels"),
        ({"rate": 16_000, "channels": 2, "channel": 2}, "channel 2"),
        ({"rate": 16_000, "channels": 2}, ""),
    ],
)
def test_bad_pipe(options, value):
    with pytest.raises(SatError, match=f"^standard input: .*{value}"):
        list(read_live_blocks(io.BytesIO(b"\0"), name="standard input", **options))
