"""Counts what goes unnoticed when damaged, joined, tagged and mislabelled audio files are read.

python -m benchmarks.damaged_audio --seeds 5

The samples of each file are known. A whole file must be read in full, without an error. A cut file
must end in an error. ffmpeg writes further formats where it is installed; it also judges
how long damaged files are. See docs/tagging.md.
"""

import argparse
import collections
import itertools
import random
import shutil
import struct
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from benchmarks.measuring import markdown_table
from sat_jax.audio import read_blocks
from sat_jax.errors import SatError

RATE = 8_000
SECONDS = 4
TOLERANCE = 0.16
"""Seconds: codecs pad their ends, and lose a packet or two around damage."""

NO_LENGTH = {"IRCAM", "PAF", "PVF", "XI", "MAT5", "OGG", "adts", "mpegts", "ac3", "mp2", "mp3"}
"""Formats without a length: a cut between packets or samples cannot be seen."""

FFMPEG_FORMATS = {
    "adts": "-c:a aac -f adts",
    "mpegts": "-c:a aac -f mpegts",
    "m4a": "-c:a aac -f ipod",
    "mp4": "-c:a aac -movflags +faststart -f mp4",
    "matroska": "-c:a aac -f matroska",
    "webm": "-c:a libopus -f webm",
    "wma": "-c:a wmav2 -f asf",
    "ac3": "-ar 32000 -c:a ac3 -f ac3",
    "mp2": "-ar 16000 -c:a mp2 -f mp2",
    "mp3": "-c:a libmp3lame -write_xing 0 -id3v2_version 0 -f mp3",
    "mp3 by lame": "-c:a libmp3lame -f mp3",
    "tta": "-c:a tta -f tta",
    "wavpack": "-c:a wavpack -f wv",
    "flac in ogg": "-c:a flac -f ogg",
    "speex": "-c:a libspeex -f ogg",
    "nut": "-c:a pcm_s16le -f nut",
    "avi": "-c:a pcm_s16le -f avi",
    "flv": "-c:a aac -f flv",
}


class Sound(NamedTuple):
    """A whole file: its format, its bytes, and how long it is (seconds, as decoded)."""

    format_name: str
    content: bytes
    seconds: float


class Case(NamedTuple):
    """What was done to a file, and what must come of it.

    Attributes:
      kind: the name of the damage.
      content: the file.
      seconds: the least sound that a read without an error returns.
      may_fail: whether an error is right.
    """

    kind: str
    content: bytes
    seconds: float
    may_fail: bool


def main(argv: Sequence[str] | None = None) -> None:
    """Runs all cases and prints a table."""
    options = parse_flags(argv)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    program = shutil.which("ffmpeg")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = options.formats
        sounds = libsndfile_sounds(folder, wanted or soundfile.available_formats())
        if program:
            others = ffmpeg_sounds(folder, program, wanted or FFMPEG_FORMATS)
            sounds = itertools.chain(sounds, others)
        for sound in sounds:
            for seed in range(options.seeds):
                for case in cases(sound, random.Random(seed)):
                    outcome = run(case, folder / "case", program)
                    counts[sound.format_name][outcome] += 1
                    if options.verbose and outcome != "right":
                        print(f"{sound.format_name}, {case.kind}, seed {seed}: {outcome}")
    columns = ("right", "silent loss", "false alarm", "too much", "traceback")
    total = sum(counts.values(), collections.Counter())
    rows = [
        [name, str(sum(count.values())), *(str(count[column]) for column in columns)]
        for name, count in [*sorted(counts.items()), ("all", total)]
    ]
    print(markdown_table(["format", "files", *columns], rows))


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Counts unnoticed damage of audio files.")
    parser.add_argument("--seeds", type=int, default=3, help="random damage of each kind")
    parser.add_argument("--formats", nargs="*", help="names of formats; all by default")
    parser.add_argument("--verbose", action="store_true", help="names each wrong case")
    return parser.parse_args(argv)


def noise() -> np.ndarray:
    """Returns quiet noise, float32 [s]."""
    return np.random.default_rng(0).normal(0, 0.05, RATE * SECONDS).astype(np.float32)


def libsndfile_sounds(folder: Path, wanted: Iterable[str]) -> Iterator[Sound]:
    """Yields a file of each wanted format and each of its codecs that libsndfile writes."""
    path = folder / "whole"
    for format_name in soundfile.available_formats().keys() & set(wanted) - {"RAW", "SD2"}:
        for subtype in soundfile.available_subtypes(format_name):
            try:
                soundfile.write(path, noise(), RATE, format=format_name, subtype=subtype)
            except soundfile.LibsndfileError:
                continue
            with soundfile.SoundFile(path) as file:
                yield Sound(format_name, path.read_bytes(), file.frames / file.samplerate)


def ffmpeg_sounds(folder: Path, program: str, wanted: Iterable[str]) -> Iterator[Sound]:
    """Yields a file of each wanted format that only ffmpeg writes."""
    soundfile.write(folder / "whole.wav", noise(), RATE)
    path = folder / "whole"
    for format_name in FFMPEG_FORMATS.keys() & set(wanted):
        options = FFMPEG_FORMATS[format_name].split()
        command = [program, "-v", "error", "-y", "-i", str(folder / "whole.wav"), *options]
        if subprocess.run([*command, str(path)], stdin=subprocess.DEVNULL).returncode == 0:
            yield Sound(format_name, path.read_bytes(), ffmpeg_seconds(path, program))


def ffmpeg_seconds(path: Path, program: str) -> float:
    """Returns how much sound ffmpeg decodes, seconds."""
    command = [program, "-v", "quiet", "-i", f"file:{path}", "-map", "0:a:0", "-f", "s16le"]
    command += ["-ac", "1", "-ar", str(RATE), "-"]
    output = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
    return len(output) / 2 / RATE


def cases(sound: Sound, generator: random.Random) -> Iterator[Case]:
    """Yields a file in every state: whole, tagged, joined, mislabelled, cut, damaged."""
    name, content, seconds = sound
    tag = b"TAG" + bytes(125)
    ape = b"x" * 8 + struct.pack("<8s4I8x", b"APETAGEX", 2000, 40, 1, 0)
    for kind, changed in {
        "whole": content,
        "ID3v1 behind": content + tag,
        "APE and ID3v1 behind": content + ape + tag,
        "zeros behind": content + bytes(4096),
    }.items():
        yield Case(kind, changed, seconds, may_fail=False)
    yield Case("joined", content * 2, seconds, may_fail=name in FFMPEG_FORMATS)
    for kind, changed in wrong_sizes(content) if name not in FFMPEG_FORMATS else ():
        yield Case(kind, changed, seconds, may_fail=False)
    size = len(content)
    place = generator.randrange(size // 4, size * 3 // 4)
    for kind, end in (("cut in half", size // 2), ("cut anywhere", place), ("cut by 2 kB", -2048)):
        yield Case(kind, content[:end], 0 if name in NO_LENGTH else seconds, may_fail=True)
    few = bytes([content[place] ^ 1 << generator.randrange(8)])
    for kind, changed in {
        "cut by a byte": content[:-1],
        "a bit flipped": content[:place] + few + content[place + 1 :],
        "zeroed": content[:place] + bytes(300) + content[place + 300 :],
        "bytes lost": content[:place] + content[place + 300 :],
        "bytes added": content[:place] + generator.randbytes(300) + content[place:],
        "random bytes behind": content + generator.randbytes(generator.randrange(20, 3000)),
    }.items():
        yield Case(kind, changed, seconds, may_fail=True)


def wrong_sizes(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields files of samples whose size in the header is unknown, old, or counts the header."""
    for form in ("<I", ">I", "<Q", ">Q"):
        for offset in range(4, 5000):
            size = len(content) - offset
            if size <= 1000:
                break
            position = content.find(struct.pack(form, size), 4, offset)
            if position >= 4 and position + struct.calcsize(form) == offset:
                limit = 256 ** struct.calcsize(form) - 1
                for kind, other in {
                    "size 0": 0,
                    "size -1": limit,
                    "old size": size // 3 & -4096,
                    "size counts the header": size + offset,
                }.items():
                    yield kind, content[:position] + struct.pack(form, other) + content[offset:]
                return


def run(case: Case, path: Path, program: str | None) -> str:
    """Reads a file, and returns what is to say about it."""
    path.write_bytes(case.content)
    samples, error = 0, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for block in read_blocks(path):
                samples += len(block)
    except SatError:
        error = True
    except Exception:
        return "traceback"
    seconds = samples / 16_000
    if error:
        return "right" if case.may_fail else "false alarm"
    wanted = case.seconds * (2 if case.kind == "joined" else 1)
    if case.kind == "joined" and case.may_fail and program:
        wanted = min(wanted, ffmpeg_seconds(path, program))
    if seconds < wanted - TOLERANCE:
        return "silent loss"
    return "right" if seconds < wanted + 1 or case.may_fail else "too much"


if __name__ == "__main__":
    main()
