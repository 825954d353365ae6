r"""Trains a model, or resumes a run that was stopped.

sat-jax train --config sat.py:SAT_T_2s --workdir runs/sat_t_2s --clips clips.csv \
    --psl psl_4s.parquet --valid_clips held_out.csv --init audiotransformer_tiny

The trained model is WORKDIR/model: sat-jax tag -m WORKDIR/model. The same command resumes a
stopped run.
"""

import contextlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from absl import flags

from data_pipeline.sources.registry import define_source_flags, source_choices, source_flags
from sat_jax.errors import SatError
from sat_jax.runtime.command_line import Program, refuse_arguments, require_flags
from sat_jax.runtime.devices import keep_freed_memory, use_cores_as_devices

FLAGS = flags.FlagValues()


def _define_config() -> flags.FlagHolder[Any]:
    """Defines --config; without ml_collections a plain flag, which only --help shows."""
    text = (
        "Config file: a path, or the name of a shipped one (sat.py, vit.py, mae.py, finetune.py); "
        "after a colon its argument. Set its fields by --config.FIELD. Required."
    )
    try:
        from ml_collections import config_flags

        from sat_jax.training.config_files import ConfigParser
    except ModuleNotFoundError:
        return flags.DEFINE_string("config", None, text, flag_values=FLAGS)
    holder = config_flags.DEFINE_config_file("config", None, text, flag_values=FLAGS)
    FLAGS["config"].parser = ConfigParser()  # DEFINE_config_file takes no parser.
    return holder


_CONFIG = _define_config()
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run: checkpoints, log and trained model. Required.",
    flag_values=FLAGS,
)
define_source_flags(FLAGS, title="Training clips")
define_source_flags(FLAGS, "valid_", title="Validation clips")
_PSL = flags.DEFINE_list(
    "psl", [], "Pseudo strong labels: files or folders written by sat-jax psl.", flag_values=FLAGS
)
_LABELS = flags.DEFINE_string(
    "labels",
    None,
    "File with the names of own classes, one per line or in the format of AudioSet's list. "
    "Default: the classes in --clips with finetune.py, else AudioSet's.",
    flag_values=FLAGS,
)
_INIT = flags.DEFINE_string(
    "init",
    None,
    "Model to start from: a name, checkpoint folder or weights file.",
    flag_values=FLAGS,
)
_WORKERS = flags.DEFINE_integer(
    "workers", 4, "Number of reads at a time.", lower_bound=1, flag_values=FLAGS
)
_ACCEPT_CHANGES = flags.DEFINE_bool(
    "accept_changes",
    False,
    "Resume even if the data or the config changed.",
    flag_values=FLAGS,
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Train with several processes, found through the environment (TPU pods, Slurm, Open MPI).",
    flag_values=FLAGS,
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Train with several processes; HOST:PORT of the first one.",
    flag_values=FLAGS,
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes.", flag_values=FLAGS
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Index of this process, from 0.", flag_values=FLAGS
)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds",
    100,
    "The job ends if a process is silent for this many seconds.",
    flag_values=FLAGS,
)
_JOIN = flags.DEFINE_integer(
    "join_seconds",
    300,
    "How many seconds to wait for the other processes at the start.",
    lower_bound=1,
    flag_values=FLAGS,
)


def main(arguments: Sequence[str]) -> bool:
    """Runs the training that the flags describe."""
    keep_freed_memory()
    del arguments
    config, workdir = _CONFIG.value, str(_WORKDIR.value)
    # Imported late, so that --help and wrong flags are answered at once.
    from data_pipeline.training_data import open_training_data, window_config
    from sat_jax.find_model import find_checkpoint
    from sat_jax.runtime.program_store import cache_compiled_programs
    from sat_jax.training.from_config import to_model, to_train_config, trains_init
    from sat_jax.training.initialization import check_input_norm, initial_variables, output_names
    from sat_jax.training.loop import train
    from sat_jax.weights.checkpoint import fingerprint
    from sat_jax.weights.warm_start import FreshStart

    process_index, process_count = _set_up_devices(config.data.batch_size)
    init = None if _INIT.value is None else find_checkpoint(_INIT.value)
    labels = _own_labels(config)
    model = to_model(config, init.config if init else None, num_classes=len(labels) or None)
    if config.frozen_input_norm:
        check_input_norm(model, init, _INIT.value)
    names = output_names(model, labels, init if trains_init(config) else None)
    with _explaining_own_classes(labels):
        data = open_training_data(
            window_config(config, model),
            names,
            source_flags(FLAGS) or {},
            valid_fields=source_flags(FLAGS, "valid_"),
            psl_paths=_PSL.value,
            process_index=process_index,
            process_count=process_count,
            workers=_WORKERS.value,
        )
    run = to_train_config(
        config,
        model,
        epoch_size=data.epoch_size,
        data=data.record,
        init=fingerprint(init.config, init.variables) if init else "",
    )
    _print(*data.notes)
    cache_compiled_programs(PROGRAM.report)

    def make_variables(key: Any) -> Any:
        fresh = FreshStart(head_bias=config.head_bias, glorot=config.glorot_init)
        variables, notes = initial_variables(model, key, fresh, init=init, labels=labels)
        _print(*notes)
        return variables

    result = train(
        run,
        data.batches,  # type: ignore[arg-type]
        workdir,
        make_variables=make_variables,
        labels=names,
        source=f"{config.name} trained by sat-jax",
        validation=data.validation,  # type: ignore[arg-type]
        accept_changes=_ACCEPT_CHANGES.value,
    )
    if result.model is None:
        _print(
            f"stopped at step {result.step} of {run.num_steps}; the same command resumes the run"
        )
    else:
        _print(f"trained for {result.step} steps; the model is {result.model}")
    return False


def _set_up_devices(batch_size: int) -> tuple[int, int]:
    """Joins the other processes or splits the CPU; returns this process's index, and how many."""
    if _DISTRIBUTED.value or _COORDINATOR.value:
        from sat_jax.training.processes import join_processes

        join_processes(
            _COORDINATOR.value,
            _NUM_PROCESSES.value,
            _PROCESS_ID.value,
            heartbeat_seconds=_HEARTBEAT.value,
            join_seconds=_JOIN.value,
        )
    else:
        use_cores_as_devices(batch_size)
    import jax

    return jax.process_index(), jax.process_count()


def _leave(code: int) -> NoReturn:
    from sat_jax.training.processes import leave

    leave(code)


def _own_labels(config: Any) -> Sequence[str]:
    """Returns the user's own classes; empty if the model keeps its own."""
    from data_pipeline.sources.clips import class_names, parse_columns
    from sat_jax.labels import read_labels
    from sat_jax.training.from_config import trains_init

    if _LABELS.value is not None:
        return read_labels(_LABELS.value)
    if trains_init(config) and FLAGS["clips"].value:
        columns = parse_columns(FLAGS["columns"].value)
        return class_names(FLAGS["clips"].value, columns=columns)
    return ()


@contextlib.contextmanager
def _explaining_own_classes(labels: Sequence[str]) -> Iterator[None]:
    """Adds the way out if clips have classes that are not AudioSet's."""
    from data_pipeline.sources.tables import UnknownClassError

    try:
        yield
    except UnknownClassError as error:
        if labels:
            raise
        raise SatError(f"{error}; to train own classes, use --config finetune.py") from error


def _print(*lines: str) -> None:
    import jax

    if lines and jax.process_index() == 0:
        print("\n".join(lines), flush=True)


def _check(arguments: Sequence[str]) -> None:
    refuse_arguments(arguments, f"name clips by {source_choices()}")
    require_flags(_CONFIG, _WORKDIR)
    if source_flags(FLAGS) is None:
        raise flags.Error(f"give one of {source_choices()}")
    source_flags(FLAGS, "valid_")
    counted = _NUM_PROCESSES.value is not None or _PROCESS_ID.value is not None
    if counted and not (_COORDINATOR.value or _DISTRIBUTED.value):
        raise flags.Error("--num_processes and --process_id need --coordinator or --distributed")


def _explain(error: Exception) -> str:
    """Shortens an error of ml_collections to what a user can use."""
    if isinstance(error, OSError):
        return f"--config={error.filename}: {error.strerror}"
    config = getattr(FLAGS["config"].parser, "config", None)
    if config is not None:
        from sat_jax.training.config_files import find_unknown_field

        # The error has only the last part of the field's name.
        for path in re.findall(r"^--?(?:no)?config\.([^=\s]*)", "\n".join(sys.argv), re.M):
            if message := find_unknown_field(config, path):
                return message
    # The text of a KeyError is a quoted literal.
    return str(error.args[0] if isinstance(error, KeyError) else error)


def _check_libraries() -> None:
    if importlib.util.find_spec("ml_collections") is None:
        raise SatError("ml_collections is not installed: pip install 'sat-jax[train]'")


PROGRAM = Program(
    main=main,
    check=_check,
    check_libraries=_check_libraries,
    explain=_explain,
    leave=_leave,
    on_interrupt="stopped; the same command resumes the run",
    # Raised by config files, and by ml_collections for unknown fields.
    flag_errors=(AttributeError, KeyError, OSError, TypeError, ValueError),
    flag_values=FLAGS,
    doc=__doc__,
)
