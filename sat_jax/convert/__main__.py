"""Converts weights between PyTorch files and checkpoint folders.

python -m sat_jax.convert SAT_T_stream2s_mAP_43_34.pt SAT_T_2s
python -m sat_jax.convert SAT_T_2s SAT_T_2s.safetensors
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sat_jax.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sat_jax.config import AnyConfig, MaeConfig, ModelConfig
from sat_jax.convert.checkpoints import convert_with_notes, export_file
from sat_jax.errors import SatError
from sat_jax.labels_file import read_labels

_EXAMPLES = """\
examples:
  python -m sat_jax.convert SAT_T_stream2s_mAP_43_34.pt SAT_T_2s --model SAT_T_2s
  python -m sat_jax.convert mine.pt mine --set pooling=dm --labels my_classes.csv
  python -m sat_jax.convert mine mine.safetensors
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: what follows the program's name; None takes it from the process.

    Returns:
      The exit code: 0, or 1 after a message on standard error.

    Raises:
      SystemExit: wrong usage (code 2) or a question for help (0).
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    is_export = Path(options.source).is_dir()
    if is_export and (options.model or options.settings or options.labels):
        parser.error("--model, --set and --labels are for files; a checkpoint folder has them")
    try:
        if is_export:
            _export(options.source, options.target)
        else:
            _import(options)
    except SatError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sat_jax.convert",
        description="Converts a PyTorch or safetensors file to a checkpoint folder, or back.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="IN", help="a file of weights, or a checkpoint folder")
    parser.add_argument(
        "target", metavar="OUT", help="the folder to make, or a .pt or .safetensors file to write"
    )
    parser.add_argument(
        "--model", metavar="NAME", help="the model, for what weights don't show: pooling, lengths"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        type=_setting,
        action="append",
        default=[],
        help="a field of the model's config, for the same; may be repeated",
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="class names: AudioSet's CSV layout, or one name a line"
    )
    return parser


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    return key.strip(), value.strip()


def _import(options: argparse.Namespace) -> None:
    checkpoint, notes = convert_with_notes(
        options.source,
        model=options.model,
        settings=dict(options.settings),
        labels=read_labels(options.labels) if options.labels else None,
    )
    save_checkpoint(options.target, checkpoint)
    _report(options.target, checkpoint, notes)


def _export(source: str, target: str) -> None:
    checkpoint = load_checkpoint(source)
    export_file(checkpoint, target)
    _report(target, checkpoint, [])


def _report(target: str, checkpoint: Checkpoint, notes: Sequence[str]) -> None:
    import jax

    count = sum(x.size for x in jax.tree.leaves(checkpoint.variables["params"]))
    print(f"{target}: {_describe(checkpoint.config)}, {count / 1e6:.3f} M parameters")
    for note in notes:
        print(f"note: {note}")


def _describe(config: AnyConfig) -> str:
    if isinstance(config, MaeConfig):
        decoder = f"decoder width {config.decoder_width}, depth {config.decoder_depth}"
        return f"masked autoencoder, encoder {_describe_size(config.encoder)}, {decoder}"
    if config.is_streaming:
        lengths = f"pieces of {config.target_length} frames, a past of {config.cache_length}"
        return f"SAT (streaming model), {_describe_size(config)}, {lengths}"
    return f"ViT (clip model), {_describe_size(config)}, pieces of {config.target_length} frames"


def _describe_size(config: ModelConfig) -> str:
    return (
        f"width {config.width}, depth {config.depth}, {config.pooling} pooling, "
        f"{config.num_classes} classes"
    )


if __name__ == "__main__":
    sys.exit(main())
