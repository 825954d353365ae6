"""Measures how fast many files are tagged: one by one, several at once, and as batches of streams.

python -m benchmarks.many_files --model SAT_XS_2s --files 96 --seconds 5

One by one is `Tagger.tag_file`; jobs are `Tagger.tag_files`, as in sat-jax tag --jobs; batches are
steps of as many streams side by side. See docs/performance.md.
"""

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import limit_threads, machine, markdown_table, ratio, warn_if_busy

if TYPE_CHECKING:
    import numpy as np

    Rivals = dict[str, Callable[[Sequence[Path]], list[np.ndarray]]]

PACKAGES = ("jax", "numpy", "soundfile")
FIRST = "one by one"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parse_flags(argv)
    threads = limit_threads(options.threads)
    setting = machine(PACKAGES, threads=threads)
    warn_if_busy(setting)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), options.files, options.seconds)
        rivals = make_rivals(options.model, threads, options.batch)
        result = measure(rivals, files, rounds=options.rounds)
    asked = {name: getattr(options, name) for name in ("model", "files", "seconds")}
    report = {"machine": setting} | asked | {"rivals": result}
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(as_markdown(report), json.dumps(report), sep="\n\n")


def parse_flags(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="Times tagging many files.")
    add = functools.partial(parser.add_argument, metavar="X")
    add("--model", default="SAT_XS_2s", help="a model's name; its weights are random")
    add("--files", type=int, default=96, help="number of files, a multiple of the batch")
    add("--seconds", type=float, default=5.0, help="length of each")
    add("--batch", type=int, default=8, help="streams side by side")
    add("--rounds", type=int, default=7, help="measured runs of each, in turns")
    add("--threads", type=int, default=None, help="CPUs to use; all by default")
    add("--json", default=None, help="file for all numbers")
    return parser.parse_args(argv)


def write_files(folder: Path, count: int, seconds: float) -> list[Path]:
    """Writes noise as 16-bit WAV files at 16 kHz."""
    import numpy as np
    import soundfile

    paths = [folder / f"{index}.wav" for index in range(count)]
    for seed, path in enumerate(paths):
        noise = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16_000))
        soundfile.write(path, noise, 16_000)
    return paths


def make_rivals(model: str, jobs: int, batch_size: int) -> "Rivals":
    """Returns functions that tag files and return the probabilities of each."""
    import numpy as np

    from sat_jax.audio import read_blocks
    from sat_jax.find_model import random_checkpoint
    from sat_jax.tagger import Tagger

    tagger = Tagger(random_checkpoint(model))
    fresh = tagger.init(batch_size)

    def in_batches(paths: Sequence[Path]) -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for first in range(0, len(paths), batch_size):
            names = paths[first : first + batch_size]
            sounds = np.stack([np.concatenate(list(read_blocks(path))) for path in names])
            state, parts = fresh, []
            for start in range(0, sounds.shape[1], tagger.framing.hop):
                probs, state = tagger.step(sounds[:, start : start + tagger.framing.hop], state)
                if state.ready.all():
                    parts.append(probs)
            found += list(np.stack([*parts, *tagger.finish(state)], axis=1))
        return found

    def at_once(paths: Sequence[Path]) -> list[np.ndarray]:
        return [stack(result.chunks) for result in tagger.tag_files(paths, jobs=jobs)]

    return {
        FIRST: lambda paths: [stack(tagger.tag_file(path)) for path in paths],
        f"{jobs} jobs": at_once,
        f"batches of {batch_size}": in_batches,
    }


def stack(chunks: Any) -> "np.ndarray":
    """Returns the probabilities [k, y] of chunks."""
    import numpy as np

    return np.stack([chunk.probs for chunk in chunks])


def measure(rivals: "Rivals", files: Sequence[Path], *, rounds: int) -> dict[str, Any]:
    """Times the rivals in turns, and compares their answers with the first rival's."""
    import numpy as np

    answers = {name: tag(files) for name, tag in rivals.items()}
    wall: dict[str, list[np.ndarray]] = {name: [] for name in rivals}
    cpu: dict[str, list[np.ndarray]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, tag in rivals.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            tag(files)
            wall[name].append(np.array([time.perf_counter() - start]))
            cpu[name].append(np.array([time.process_time() - start_cpu]))
    return {
        name: {
            "files_per_s": len(files) / float(np.median(wall[name])),
            "cpu_ms_per_file": 1e3 * float(np.median(cpu[name])) / len(files),
            "speedup": ratio(wall[FIRST], wall[name]),
            "cpu_share": ratio(cpu[name], cpu[FIRST]),
            "max_difference": max(
                float(np.abs(one - other).max())
                for one, other in zip(answers[name], answers[FIRST], strict=True)
            ),
        }
        for name in rivals
    }


def as_markdown(report: dict[str, Any]) -> str:
    """Formats the report: a line on the machine and a table."""
    setting = report["machine"]
    columns = ["files/s", "CPU ms a file", "speed (quartiles)", "CPU time", "largest difference"]
    rows = [
        [
            name,
            f"{found['files_per_s']:.0f}",
            f"{found['cpu_ms_per_file']:.1f}",
            "{median:.2f} ({quartile_1:.2f}-{quartile_3:.2f})".format(**found["speedup"]),
            f"{found['cpu_share']['median']:.2f}",
            f"{found['max_difference']:.1e}",
        ]
        for name, found in report["rivals"].items()
    ]
    return (
        f"{report['model']}, {report['files']} files of {report['seconds']:g} s; {setting['cpu']}, "
        f"{setting['threads']} of {setting['cores']} cores\n\n"
        + markdown_table(["", *columns], rows)
    )


if __name__ == "__main__":
    main()
