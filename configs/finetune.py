r"""Own classes: a trained model gets a new head and learns what is to be told apart.

The model is that of --init, streaming or not; its classes are those named in the table of clips or
in --labels.

python train.py --config configs/finetune.py --workdir runs/mine --init SAT_T_2s \
    --clips mine.csv --valid_clips held_out.csv

python train.py --config configs/finetune.py:debug --workdir runs/debug --init SAT_XS_2s \
    --clips mine.csv

To learn from a teacher's scores as well, add --psl scores.parquet --config.data.psl_share 0.5.
"""

from ml_collections import ConfigDict

from sat_jax.training.stages import choose, shrink, training_config

NAMES = ("own",)


def get_config(arg: str = "") -> ConfigDict:
    """Settings for small sets of clips; ours, since none were published.

    Args:
      arg: see `sat_jax.training.stages.choose`.
    """
    _, debug = choose(arg, NAMES)
    config = training_config("own", None, window_seconds=None)
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_fraction = 0.1
    config.optimizer.final_fraction = 0.01
    config.optimizer.weight_decay = 0.01
    # Lower layers hear what all sounds have in common, and have learned it already.
    config.optimizer.layer_decay = 0.75
    # Few clips have other statistics than what the model learned from, and by chance.
    config.frozen_input_norm = True
    config.augment.update(time_shift=0.5, gain_db=6.0, mixup=0.5, time_masks=1, freq_masks=1)
    config.data.sampler = "balanced"
    config.data.draws_per_epoch = 2000
    config.num_epochs = 20
    config.evaluate_every = 100
    return shrink(config) if debug else config
