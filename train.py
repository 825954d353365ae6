r"""Trains a tagger on labelled recordings, or goes on with a run that was stopped.

python train.py --config configs/sat.py:SAT_T_2s --workdir runs/sat_t_2s \
    --clips clips.csv --folder clips --init audiotransformer_tiny

The trained model is WORKDIR/model, for infer.py -m WORKDIR/model. A run that was stopped goes on
by the same command.
"""

import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging

from sat_jax.errors import SatError

FAILED, WRONG_FLAGS = 1, 2

try:
    from ml_collections import config_flags
except ModuleNotFoundError:
    print("train.py: needs ml_collections and optax: pip install 'sat-jax[train]'", file=sys.stderr)
    sys.exit(FAILED)

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file in configs/, and behind a colon what it is asked for.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: state, log and trained model.")
_CLIPS = flags.DEFINE_string("clips", None, "Table (CSV) with the columns file and labels.")
_FOLDER = flags.DEFINE_string(
    "folder", None, "What the table's file names are relative to; its own folder by default."
)
_INIT = flags.DEFINE_string(
    "init", None, "A model's name, checkpoint folder, or weights file to start from."
)


def main(argv: Sequence[str]) -> None:
    """Runs what the flags say."""
    if len(argv) > 1:
        _report(f"unexpected argument {argv[1]!r}; see train.py --help")
        sys.exit(WRONG_FLAGS)
    # JAX tells at this level which accelerators it did not find, orbax all it does.
    logging.set_verbosity(logging.WARNING)
    try:
        # Checked by _parse_flags not to be None.
        _train(_CONFIG.value, table=str(_CLIPS.value), workdir=str(_WORKDIR.value))
    except SatError as error:
        _report(error)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(130)


def _train(config: Any, *, table: str, workdir: str) -> None:
    # Imported late: a wrong flag or --help should be answered at once.
    from configs.common import to_train_config
    from data_pipeline.clips import read_clips
    from data_pipeline.folder import WindowConfig, fingerprint, folder_batches
    from sat_jax.cache_dir import keep_compiled_programs
    from sat_jax.labels import default_label_names
    from sat_jax.training.loop import train

    labels = default_label_names(config.model.num_classes)
    listed = read_clips(table, labels, folder=_FOLDER.value)
    clips = [clip for clip in listed if clip.path.is_file()]
    print(f"{len(clips)} clips, {len(listed) - len(clips)} of the table's missing", flush=True)
    run = to_train_config(
        config,
        num_clips=len(clips),
        data={"num_clips": len(clips), "fingerprint": fingerprint(clips)},
    )
    windows = WindowConfig(
        **config.data.to_dict(),
        num_classes=config.model.num_classes,
        seed=config.seed,
        sample_rate=config.model.frontend.sample_rate,
    )
    keep_compiled_programs()
    result = train(
        run,
        folder_batches(clips, windows),
        workdir,
        make_variables=lambda key: _first_variables(run.model, key),
        labels=labels,
        source=f"{config.name} trained by sat-jax",
    )
    if result.model is None:
        print(f"stopped at step {result.step} of {run.num_steps}; the same command goes on")
    else:
        print(f"trained for {result.step} steps; the model is {result.model}")


def _first_variables(model: Any, key: Any) -> Any:
    """Weights to start from: those of --init as far as they fit, else random ones."""
    import jax

    from sat_jax.tagger import find_checkpoint
    from sat_jax.warm_start import fresh_variables, start_from

    if _INIT.value is None:
        return jax.jit(fresh_variables, static_argnums=0)(model, key)
    variables, notes = start_from(find_checkpoint(_INIT.value), model, key)
    print("\n".join(notes), flush=True)
    return variables


def _report(error: object) -> None:
    print(f"train.py: {error}", file=sys.stderr, flush=True)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        # A file that could not be loaded is told of when it is first looked at.
        assert _CONFIG.value is None or _CONFIG.value.model
        # Not marked as required, which would be asked of every program in the process.
        for flag in (_CONFIG, _WORKDIR, _CLIPS):
            if flag.value is None:
                raise flags.Error(f"--{flag.name} is missing")
        return rest
    except (AttributeError, KeyError) as error:
        problem = f"the config has no such field: {' '.join(str(error.args[0]).split())}"
    except (flags.Error, SatError, TypeError, ValueError, OSError) as error:
        problem = " ".join(str(error).split())
    _report(f"{problem}; see train.py --help")
    sys.exit(WRONG_FLAGS)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
