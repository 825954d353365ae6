"""Tells what a streaming step of models costs, beside the published figures.

python -m sat_jax.profile [MODEL…] [flags]
python -m sat_jax.profile
python -m sat_jax.profile SAT_T_1s --chunk 0.16 --batch 16
python -m sat_jax.profile run/model --format json --output profile.json

MODEL is a model's name, which gets random weights, a checkpoint folder, or a .pt or .safetensors
file. Without one, it is all models of the published table and the extra-small ones.
"""

from collections.abc import Sequence

from absl import flags

from sat_jax.runtime.command_line import Program

FLAGS = flags.FlagValues()

_CHUNK = flags.DEFINE_float(
    "chunk",
    None,
    "Seconds a step hears, at least 0.16; the model's own length by default.",
    lower_bound=0.16,
    upper_bound=3600.0,
    flag_values=FLAGS,
)
_BATCH = flags.DEFINE_integer("batch", 1, "Streams side by side.", 1, 1 << 20, flag_values=FLAGS)
_LATENCY = flags.DEFINE_bool("latency", True, "Measure steps.", flag_values=FLAGS)
_SECONDS = flags.DEFINE_float(
    "seconds",
    2.0,
    "For how long each model's steps are measured.",
    lower_bound=0.0,
    upper_bound=3600.0,
    flag_values=FLAGS,
)
_LAYOUT = flags.DEFINE_enum(
    "format", "markdown", ["markdown", "json"], "Layout.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "File for it instead of standard output.", flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Runs the command; returns whether anything failed."""
    # Imported late: a wrong flag or --help should be answered at once.
    from tqdm import tqdm

    from sat_jax.profile.measure import find_subject, profile_step
    from sat_jax.profile.published import EXTRA_SMALL, PUBLISHED
    from sat_jax.profile.report import as_json, as_markdown, describe_machine
    from sat_jax.runtime.files import open_output

    chunks: list[tuple[str, float | None]] = [(name, _CHUNK.value) for name in arguments]
    if not arguments:
        rows = [*((row.model, row.delay) for row in PUBLISHED), *EXTRA_SMALL]
        chunks = [(name, _CHUNK.value or delay) for name, delay in rows]
        chunks = list(dict.fromkeys(chunks))
    subjects = {name: find_subject(name) for name, _ in chunks}
    machine = describe_machine()
    with open_output(_OUTPUT.value) as stream:
        profiles = [
            profile_step(
                subjects[name],
                chunk_seconds=length,
                batch_size=_BATCH.value,
                seconds=_SECONDS.value if _LATENCY.value else 0.0,
            )
            for name, length in tqdm(chunks, unit="model", leave=False, disable=None)
        ]
        text = as_json if _LAYOUT.value == "json" else as_markdown
        print(text(profiles, machine), file=stream)
    return False


def _check(arguments: Sequence[str]) -> None:
    if _OUTPUT.value:
        from sat_jax.runtime.files import refuse_overwriting

        refuse_overwriting(_OUTPUT.value, *arguments)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
