"""Converts weights between PyTorch files and checkpoint folders.

python -m sat_jax.convert IN OUT [flags]
python -m sat_jax.convert SAT_T_stream2s_mAP_43_34.pt SAT_T_2s --model SAT_T_2s
python -m sat_jax.convert mine.pt mine --set pooling=dm --labels my_classes.csv
python -m sat_jax.convert mine mine.safetensors

IN is a file of weights and OUT the folder to make, or IN is a checkpoint folder and OUT a .pt or
.safetensors file to write. OUT must not exist.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from sat_jax.runtime.command_line import Program

if TYPE_CHECKING:
    from sat_jax.config import AnyConfig, ModelConfig
    from sat_jax.weights.checkpoint import Checkpoint


FLAGS = flags.FlagValues()

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "The model, for what weights don't show: pooling, lengths.",
    flag_values=FLAGS,
)
_SETTINGS = flags.DEFINE_multi_string(
    "set",
    [],
    "KEY=VALUE: a field of the model's config, for the same.",
    flag_values=FLAGS,
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "Class names: AudioSet's CSV layout, or one name a line.",
    flag_values=FLAGS,
)


def main(arguments: Sequence[str]) -> bool:
    """Runs the command; returns whether anything failed."""
    source, target = arguments
    if Path(source).is_dir():
        _export(source, target)
    else:
        _import(source, target, _MODEL.value, _parse(_SETTINGS.value), _LABELS.value)
    return False


def _check(arguments: Sequence[str]) -> None:
    if len(arguments) != 2:
        raise flags.Error(f"IN and OUT are needed, not {' '.join(arguments) or 'nothing'}")
    if not all(arguments):
        raise flags.Error("IN or OUT is empty: name a file and a folder")
    _parse(_SETTINGS.value)
    if Path(arguments[0]).is_dir() and (_MODEL.value or _SETTINGS.value or _LABELS.value):
        raise flags.Error("--model, --set and --labels are for files; a checkpoint folder has them")


def _parse(settings: Sequence[str]) -> dict[str, str]:
    parsed = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise flags.Error(f"--set={text} is not of the form KEY=VALUE")
        parsed[key.strip()] = value.strip()
    return parsed


def _import(
    source: str, target: str, model: str | None, settings: dict[str, str], labels: str | None
) -> None:
    # Imported late: a wrong flag or --help should be answered at once.
    from sat_jax.convert.checkpoints import convert_with_notes
    from sat_jax.labels import read_labels
    from sat_jax.weights.checkpoint import save_checkpoint

    checkpoint, notes = convert_with_notes(
        source, model=model, settings=settings, labels=read_labels(labels) if labels else None
    )
    save_checkpoint(target, checkpoint)
    _report(target, checkpoint, notes)


def _export(source: str, target: str) -> None:
    from sat_jax.convert.checkpoints import export_file
    from sat_jax.weights.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(source)
    export_file(checkpoint, target)
    _report(target, checkpoint, [])


def _report(target: str, checkpoint: "Checkpoint", notes: Sequence[str]) -> None:
    import jax

    count = sum(x.size for x in jax.tree.leaves(checkpoint.variables["params"]))
    print(f"{target}: {_describe(checkpoint.config)}, {count / 1e6:.3f} M parameters")
    for note in notes:
        print(f"note: {note}")


def _describe(config: "AnyConfig") -> str:
    from sat_jax.config import MaeConfig

    if isinstance(config, MaeConfig):
        decoder = f"decoder width {config.decoder_width}, depth {config.decoder_depth}"
        return f"masked autoencoder, encoder {_describe_size(config.encoder)}, {decoder}"
    if config.is_streaming:
        lengths = f"pieces of {config.target_length} frames, a past of {config.cache_length}"
        return f"SAT (streaming model), {_describe_size(config)}, {lengths}"
    return f"ViT (clip model), {_describe_size(config)}, pieces of {config.target_length} frames"


def _describe_size(config: "ModelConfig") -> str:
    return (
        f"width {config.width}, depth {config.depth}, {config.pooling} pooling, "
        f"{config.num_classes} classes"
    )


PROGRAM = Program(main=main, check=_check, flag_values=FLAGS, doc=__doc__)
