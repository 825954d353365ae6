"""Measures what a streaming step of a model costs, beside the published figures.

sat-jax profile
sat-jax profile SAT_T_1s --chunk 0.16 --batch 16
sat-jax profile run/model --format json --output profile.json

MODEL is the name of a model, which gets random weights, a checkpoint folder, or a .pt or
.safetensors file. Default: all models of the published table and the extra-small ones.
"""

from collections.abc import Sequence

from absl import flags

from sat_jax.runtime.command_line import Program

FLAGS = flags.FlagValues()

_CHUNK = flags.DEFINE_float(
    "chunk",
    None,
    "Seconds per chunk, which is the delay of a prediction. Default: the model's chunk length.",
    lower_bound=0.16,
    upper_bound=3600.0,
    flag_values=FLAGS,
)
_BATCH = flags.DEFINE_integer("batch", 1, "Number of streams.", 1, 1 << 20, flag_values=FLAGS)
_LATENCY = flags.DEFINE_bool("latency", True, "Time the steps.", flag_values=FLAGS)
_SECONDS = flags.DEFINE_float(
    "seconds",
    2.0,
    "How long the steps of each model are timed.",
    lower_bound=0.0,
    upper_bound=3600.0,
    flag_values=FLAGS,
)
_FORMAT = flags.DEFINE_enum(
    "format", "markdown", ["markdown", "json"], "Output format.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Output file. Default: standard output.", flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Profiles the models; returns False, since nothing can fail in part."""
    # Imported late, so that wrong flags and --help are answered at once.
    from tqdm import tqdm

    from sat_jax.profile.measure import find_model, profile_step
    from sat_jax.profile.published_table import PUBLISHED, UNPUBLISHED
    from sat_jax.profile.report import as_json, as_markdown, describe_machine
    from sat_jax.runtime.files import open_output

    chunks: list[tuple[str, float | None]] = [(name, _CHUNK.value) for name in arguments]
    if not arguments:
        rows = [*((row.model, row.delay) for row in PUBLISHED), *UNPUBLISHED]
        chunks = [(name, _CHUNK.value or delay) for name, delay in rows]
        chunks = list(dict.fromkeys(chunks))
    models = {name: find_model(name) for name, _ in chunks}
    machine = describe_machine()
    with open_output(_OUTPUT.value) as stream:
        profiles = [
            profile_step(
                name,
                *models[name],
                chunk_seconds=seconds,
                batch_size=_BATCH.value,
                seconds=_SECONDS.value if _LATENCY.value else 0.0,
            )
            for name, seconds in tqdm(chunks, unit="model", leave=False, disable=None)
        ]
        as_text = as_json if _FORMAT.value == "json" else as_markdown
        print(as_text(profiles, machine), file=stream)
    return False


def _check(arguments: Sequence[str]) -> None:
    if _OUTPUT.value:
        from sat_jax.runtime.files import refuse_overwriting

        refuse_overwriting(_OUTPUT.value, *arguments)


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__, arguments="[MODEL...]")
