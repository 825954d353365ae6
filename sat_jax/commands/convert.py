"""Converts weights between PyTorch or safetensors files and checkpoint folders.

sat-jax convert SAT_T_stream2s_mAP_43_34.pt SAT_T_2s --model SAT_T_2s
sat-jax convert mine.pt mine --set pooling=dm --labels my_classes.csv
sat-jax convert mine mine.safetensors

IN is a file of weights and OUT a new checkpoint folder; or IN is a checkpoint folder and OUT a new
.pt or .safetensors file. OUT must not exist.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program
from sat_jax.runtime.files import check_readable_file

if TYPE_CHECKING:
    from sat_jax.config import AnyConfig, ModelConfig
    from sat_jax.weights.checkpoint import Checkpoint

FLAGS = flags.FlagValues()

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "Name of the model, for settings that the weights do not show: pooling, lengths.",
    flag_values=FLAGS,
)
_SETTINGS = flags.DEFINE_multi_string(
    "set", [], "KEY=VALUE: one such setting, a field of the config", flag_values=FLAGS
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File of class names: one a line, or a CSV like AudioSet's.",
    flag_values=FLAGS,
)

_PART = flags.DEFINE_string(
    "part",
    None,
    "Which set of weights to read from a file that holds several, such as model_ema.",
    flag_values=FLAGS,
)


def main(arguments: Sequence[str]) -> bool:
    """Runs the command; returns whether anything failed."""
    # Imported late: a wrong flag or --help should be answered at once.
    from sat_jax.labels import read_labels

    source, target = arguments
    if not Path(source).is_dir():
        _refuse_name(source)
        check_readable_file(source)  # Before the imports, which take seconds.
    labels = read_labels(_LABELS.value) if _LABELS.value else None

    from sat_jax.convert.checkpoints import convert_with_notes, export_file
    from sat_jax.weights.checkpoint import load_checkpoint, save_checkpoint

    notes: Sequence[str]
    if Path(source).is_dir():
        checkpoint = load_checkpoint(source)
        export_file(checkpoint, target)
        notes = _left_behind(source, target, checkpoint)
    else:
        checkpoint, notes = convert_with_notes(
            source,
            model=_MODEL.value,
            settings=_parse(_SETTINGS.value),
            labels=labels,
            part=_PART.value,
        )
        save_checkpoint(target, checkpoint)
    print(f"{target}: {_describe(checkpoint)}")
    for note in notes:
        print(f"note: {note}")
    return False


def _check(arguments: Sequence[str]) -> None:
    if len(arguments) != 2 or not all(arguments):
        raise flags.Error(f"give IN and OUT, instead of: {' '.join(arguments) or 'nothing'}")
    _parse(_SETTINGS.value)
    given = [f"--{each.name}" for each in (_MODEL, _SETTINGS, _LABELS, _PART) if each.value]
    if given and Path(arguments[0]).is_dir():
        raise flags.Error(f"{', '.join(given)}: only for files, and {arguments[0]} is a folder")


def _refuse_name(source: str) -> None:
    """Refuses a model's name with the place of its weights: IN is a file or a folder."""
    from sat_jax.models.registry import MODELS
    from sat_jax.weights.catalog import PUBLISHED_FILES, bundled_folder, published_url

    if source not in MODELS or os.path.exists(source):
        return
    if (folder := bundled_folder(source)) is not None:
        advice = f"give its folder, {folder}"
    elif source in PUBLISHED_FILES:
        advice = f"download {published_url(source)} and give the file"
    else:
        advice = "no weights of it are published, so train it and give the run's model folder"
    raise SatError(f"{source} is a model's name, not a file or folder: {advice}")


def _left_behind(source: str, target: str, checkpoint: "Checkpoint") -> list[str]:
    """Notes on what a folder holds and a file of weights does not."""
    from sat_jax.labels import default_label_names
    from sat_jax.weights.thresholds_file import thresholds_path

    notes = []
    if checkpoint.labels != default_label_names(len(checkpoint.labels)):
        notes.append(f"{target} holds weights only: pass --labels when converting back")
    if (thresholds := thresholds_path(source)).is_file():
        notes.append(f"{target} holds weights only: copy {thresholds} to the new folder later")
    return notes


def _parse(settings: Sequence[str]) -> dict[str, str]:
    parsed = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise flags.Error(f"--set={text} does not have the form KEY=VALUE")
        parsed[key.strip()] = value.strip()
    return parsed


def _describe(checkpoint: "Checkpoint") -> str:
    import jax

    count = sum(x.size for x in jax.tree.leaves(checkpoint.variables["params"]))
    return f"{_describe_config(checkpoint.config)}, {count / 1e6:.3f} M parameters"


def _describe_config(config: "AnyConfig") -> str:
    from sat_jax.config import MaeConfig

    if isinstance(config, MaeConfig):
        decoder = f"decoder width {config.decoder_width}, depth {config.decoder_depth}"
        return f"masked autoencoder, encoder {_describe_size(config.encoder)}, {decoder}"
    kind = "SAT (streaming model)" if config.is_streaming else "ViT (clip model)"
    cache = f", cache of {config.cache_length}" if config.is_streaming else ""
    return f"{kind}, {_describe_size(config)}, chunks of {config.target_length} frames{cache}"


def _describe_size(config: "ModelConfig") -> str:
    return (
        f"width {config.width}, depth {config.depth}, {config.pooling} pooling, "
        f"{config.num_classes} classes"
    )


PROGRAM = Program(main=main, arguments="IN OUT", check=_check, flag_values=FLAGS, doc=__doc__)
