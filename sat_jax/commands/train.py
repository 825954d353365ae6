r"""Trains a model on sounds, or goes on with a run that was stopped.

python train.py --config configs/sat.py:SAT_T_2s --workdir runs/sat_t_2s --clips clips.csv \
    --psl psl_4s.parquet --valid_clips held_out.csv --init audiotransformer_tiny

The trained model is WORKDIR/model, for infer.py -m WORKDIR/model. A run that was stopped goes on
by the same command.
"""

import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from data_pipeline.sources.flags import define_source_flags, source_flags
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import FAILED, Program, refuse_arguments, require_flags
from sat_jax.runtime.devices import use_cores_as_devices
from sat_jax.runtime.large_pages import restart_in_large_pages

if TYPE_CHECKING:
    from sat_jax.weights.checkpoint import Checkpoint

try:
    from ml_collections import config_flags
except ModuleNotFoundError:
    print("train.py: needs ml_collections and optax: pip install 'sat-jax[train]'", file=sys.stderr)
    sys.exit(FAILED)

FLAGS = flags.FlagValues()

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "A file in configs/, and behind a colon what it is asked for. Needed.",
    lock_config=True,
    flag_values=FLAGS,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run: state, log and trained model. Needed.", flag_values=FLAGS
)
define_source_flags(FLAGS)
define_source_flags(FLAGS, "valid_")
_PSL = flags.DEFINE_list(
    "psl", [], "Pseudo strong labels: files or folders of data_pipeline.psl.", flag_values=FLAGS
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File with the names of own classes, one a line or as AudioSet's list; by default those of "
    "--clips with configs/finetune.py, else AudioSet's.",
    flag_values=FLAGS,
)
_INIT = flags.DEFINE_string(
    "init",
    None,
    "A model's name, checkpoint folder, or weights file to start from.",
    flag_values=FLAGS,
)
_WORKERS = flags.DEFINE_integer(
    "workers", 4, "Clips that are read at a time.", lower_bound=1, flag_values=FLAGS
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Train with other processes, which the environment names.",
    flag_values=FLAGS,
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "The same, with HOST:PORT of the first.", flag_values=FLAGS
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes there are.", flag_values=FLAGS
)
_ACCEPT_CHANGES = flags.DEFINE_bool(
    "accept_changes",
    False,
    "Go on in a workdir though clips or settings are others than those it was begun with.",
    flag_values=FLAGS,
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0.", flag_values=FLAGS
)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", 100, "A process not heard of for so long ends the job.", flag_values=FLAGS
)


def main(arguments: Sequence[str]) -> bool:
    """Runs what the flags say."""
    restart_in_large_pages()
    del arguments
    config, workdir = _CONFIG.value, str(_WORKDIR.value)
    # Imported late: a wrong flag or --help should be answered at once.
    from sat_jax.runtime.program_store import cache_compiled_programs
    from sat_jax.training.loop import train
    from sat_jax.training.stages import to_model, to_train_config
    from sat_jax.weights.checkpoint import fingerprint

    _find_devices(config.data.batch_size)
    init = _open_init()
    labels = _class_names(config)
    model = to_model(
        config, init.config if init else None, num_classes=len(labels) if labels else None
    )
    if config.frozen_input_norm:
        _check_statistics(init, model)
    names = _output_names(model, labels, init if "width" not in config.model else None)
    data = _open_data(config, model, names)
    begin = fingerprint(init.config, init.variables) if init else ""
    run = to_train_config(config, model, epoch_size=data.epoch_size, data=data.record, init=begin)
    _tell(*data.notes)
    cache_compiled_programs()
    result = train(
        run,
        data.batches,  # type: ignore[arg-type]
        workdir,
        make_variables=lambda key: _first_variables(init, model, key, config, labels),
        labels=names,
        source=f"{config.name} trained by sat-jax",
        validation=data.validation,  # type: ignore[arg-type]
        accept_changes=_ACCEPT_CHANGES.value,
    )
    if result.model is None:
        _tell(f"stopped at step {result.step} of {run.num_steps}; the same command goes on")
    else:
        _tell(f"trained for {result.step} steps; the model is {result.model}")
    return False


def _find_devices(batch_size: int) -> None:
    """Settles what JAX is to see, which it asks for once."""
    if _DISTRIBUTED.value or _COORDINATOR.value:
        from sat_jax.training.distributed import join_processes

        join_processes(
            _COORDINATOR.value,
            _NUM_PROCESSES.value,
            _PROCESS_ID.value,
            heartbeat_seconds=_HEARTBEAT.value,
        )
    else:
        use_cores_as_devices(batch_size)


def _open_init() -> "Checkpoint | None":
    from sat_jax.tagger import find_checkpoint

    return None if _INIT.value is None else find_checkpoint(_INIT.value)


def _class_names(config: Any) -> Sequence[str]:
    """The user's own classes; none where the model keeps those it has."""
    from data_pipeline.sources.clips import class_names, parse_columns
    from sat_jax.labels import read_labels

    if _LABELS.value is not None:
        return read_labels(_LABELS.value)
    # A config that trains the model of --init for other classes takes them from the clips.
    if "width" not in config.model and FLAGS["clips"].value:
        columns = parse_columns(FLAGS["columns"].value)
        return class_names(FLAGS["clips"].value, columns=columns)
    return ()


def _output_names(model: Any, labels: Sequence[str], origin: "Checkpoint | None") -> Sequence[str]:
    """The user's own classes, else those of the model that this one is taken from."""
    from sat_jax.config import MaeConfig
    from sat_jax.labels import default_label_names

    if isinstance(model, MaeConfig):
        if _LABELS.value is not None:
            raise SatError(f"--labels={_LABELS.value}: an autoencoder has no classes, leave it out")
        return ()
    if origin and len(origin.labels) == model.num_classes:
        labels = labels or origin.labels
    return labels or default_label_names(model.num_classes)


def _open_data(config: Any, model: Any, names: Sequence[str]) -> Any:
    import jax

    from data_pipeline.training_data import open_training_data

    return open_training_data(
        _windows(config, model),
        names,
        source_flags(FLAGS) or {},
        valid_fields=source_flags(FLAGS, "valid_"),
        psl_paths=_PSL.value,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=_WORKERS.value,
    )


def _windows(config: Any, model: Any) -> Any:
    from data_pipeline.batches.windows import WindowConfig
    from sat_jax.config import MaeConfig
    from sat_jax.training.stages import num_chunks, window_seconds

    is_mae = isinstance(model, MaeConfig)
    if is_mae and config.data.psl_share:
        raise SatError(
            f"data.psl_share={config.data.psl_share:g} is for taggers, and an autoencoder learns "
            "without labels: leave it out"
        )
    fields = config.data.to_dict()
    fields["window_seconds"] = fields["window_seconds"] or window_seconds(model)
    windows = WindowConfig(
        **fields,
        num_classes=0 if is_mae else model.num_classes,
        seed=config.seed,
        sample_rate=(model.encoder if is_mae else model).frontend.sample_rate,
    )
    if not (config.loss_per_chunk and windows.psl_share):
        return windows
    return dataclasses.replace(windows, chunks=num_chunks(model, windows.window_seconds))


def _first_variables(
    init: "Checkpoint | None", model: Any, key: Any, config: Any, labels: Sequence[str]
) -> Any:
    """Weights to start from: those of --init as far as they fit, else random ones."""
    import jax

    from sat_jax.weights.warm_start import FreshStart, fresh_variables, start_from

    start = FreshStart(head_bias=config.head_bias, glorot=config.glorot_init)
    if init is None:
        return jax.jit(fresh_variables, static_argnums=(0, 2))(model, key, start)
    variables, notes = start_from(init, model, key, start, labels=labels)
    _tell(*notes)
    return variables


def _check_statistics(init: "Checkpoint | None", model: Any) -> None:
    """Refuses to keep statistics of the input that nothing was ever heard for."""
    from sat_jax.weights.warm_start import brings_statistics

    if getattr(model, "input_norm", None) == "batch" and not (
        init and brings_statistics(init.config, model)
    ):
        lacks = f"--init={_INIT.value} has none for it" if init else "there is no --init"
        raise SatError(
            "frozen_input_norm=True keeps the input statistics that a model comes with, and "
            f"{lacks}: give a model that has, or --config.frozen_input_norm=False"
        )


def _tell(*lines: str) -> None:
    import jax

    if lines and jax.process_index() == 0:
        print("\n".join(lines), flush=True)


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, "clips are named by --clips or its like")
    if _CONFIG.value is not None:
        _ = _CONFIG.value.optimizer  # A file that can't be loaded is told of when it is looked at.
    require_flags(_CONFIG, _WORKDIR)
    if source_flags(FLAGS) is None:
        raise flags.Error("give one of --clips, --hdf5_tsv and --tfds")
    source_flags(FLAGS, "valid_")
    counted = _NUM_PROCESSES.value is not None or _PROCESS_ID.value is not None
    if counted and not (_COORDINATOR.value or _DISTRIBUTED.value):
        raise flags.Error("--num_processes and --process_id need --coordinator or --distributed")


def _explain(error: Exception) -> str:
    """What ml_collections has found, without what only its makers know."""
    if isinstance(error, OSError):  # Its last line is what the system says.
        reason = re.sub(r"^\[Errno \d+\] ", "", str(error).splitlines()[-1].strip())
        return f"--config can't be read: {reason}"
    if isinstance(error, AttributeError):
        field = str(error).strip("\"'")
        return f"the config has no field {field}: see the files in configs/"
    return str(error)


PROGRAM = Program(
    main=main,
    check=_check,
    explain=_explain,
    on_interrupt="stopped; the same command goes on",
    # What config files raise, and what ml_collections does for fields that they do not have.
    flag_errors=(AttributeError, KeyError, OSError, TypeError, ValueError),
    flag_values=FLAGS,
    doc=__doc__,
)
