"""Sounds and files for tests of the scenes."""

import functools
import io
import struct
import tarfile
import zlib

import numpy as np

from projects.box_model.scenes.sounds import SPLITS, Sound

RATE = 16_000


def tone(seconds, hertz):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


@functools.cache
def band_noise(seconds, hertz):
    """Returns noise of 400 Hz around a frequency."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(round(seconds * RATE)))
    frequency = np.arange(len(spectrum)) / seconds
    return np.fft.irfft(np.where(abs(frequency - hertz) < 200, spectrum, 0)).astype(np.float32)


TONES = {"Moo": 500.0, "Piano": 2000.0, "Speech": 6000.0, "Rain": 4000.0}
"""The frequency of each class. Rain goes on; the farm has it and Moo, the street it and Speech."""
SOUNDS = [
    Sound(f"{label}/{i}", (label,), f"{label}/{i}", "train") for label in TONES for i in range(3)
]


def read_tone(sound):
    make, seconds = (band_noise, 3.0) if sound.label == "Rain" else (tone, 0.7)
    return make(seconds, TONES[sound.label])


def write_rcc(files, *, version=3, flags=0):
    """Returns a resource file with one folder, as Qt's documentation describes it."""
    names, data, nodes = b"", b"", []

    def add_name(text):
        nonlocal names
        at = len(names)
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return at

    folder = add_name("sounds")
    nodes.append(struct.pack(">IHII", 0, 2, 1, 1))
    nodes.append(struct.pack(">IHII", folder, 2, len(files), 2))
    for name, content in files.items():
        at = len(data)
        if flags & 1:
            content = struct.pack(">I", len(content)) + zlib.compress(content)
        data += struct.pack(">I", len(content)) + content
        nodes.append(struct.pack(">IHHHI", add_name(name), flags, 0, 1, at))
    if version >= 2:
        nodes = [node + bytes(8) for node in nodes]
    tree = b"".join(nodes)
    header = 24 if version >= 3 else 20
    offsets = (version, header, header + len(tree), header + len(tree) + len(data))
    head = b"qres" + struct.pack(">4I", *offsets) + (bytes(4) if version >= 3 else b"")
    return head + tree + data + names


def write_tar(path, files, compression=""):
    """Writes files with the given names and contents to an archive, and returns its path."""
    with tarfile.open(path, f"w:{compression}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def build_dataset(data_dir, counts, *, workers=2):
    """Builds the dataset pkg_audio of tones, and returns its builder."""
    from data_pipeline.sources.tfds.building import prepare
    from projects.box_model.scenes.builder import PkgAudio

    sounds = dict.fromkeys(SPLITS, SOUNDS)
    builder = PkgAudio(
        sounds=sounds, read=read_tone, counts=counts, workers=workers, data_dir=data_dir
    )
    prepare(builder)
    return builder
