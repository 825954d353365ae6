"""Audio files for tests, and what reading them should give."""

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import settings

from sat_jax.audio import read_blocks
from sat_jax.errors import SatError

RATES = (7_350, 8_000, 11_025, 12_345, 16_000, 22_050, 44_100, 48_000, 96_000)
FORMATS = (
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "PCM_U8"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAVEX", "PCM_32"),
    ("wav", "RF64", "PCM_16"),
    ("aiff", "AIFF", "PCM_16"),
    ("au", "AU", "FLOAT"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
)
SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)


def read(path, **options):
    return np.concatenate(list(read_blocks(path, **options)))


def noise(frames, channels=1, seed=0):
    """Quiet noise, so that no lossy format has to clip it."""
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((frames, channels)) * 0.05).astype(np.float32)


def write(path, samples, rate=16_000, file_format="WAV", subtype="FLOAT"):
    if not soundfile.check_format(file_format, subtype):
        pytest.skip(f"libsndfile cannot write {file_format} {subtype}")
    soundfile.write(path, samples, rate, format=file_format, subtype=subtype)
    return path


def expected(samples, rate):
    mono = (samples.sum(axis=1, dtype=np.float64) / samples.shape[1]).astype(np.float32)
    return soxr.resample(mono, rate, 16_000, quality="HQ") if rate != 16_000 else mono


def error_of(path, **options):
    """Returns the message of the error that reading a file ends in."""
    with pytest.raises(SatError) as caught:
        list(read_blocks(path, **options))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message
