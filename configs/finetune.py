r"""Own classes: fine-tunes a trained model with a new head.

The model is that of --init, streaming or not. Its classes are those in the table of clips, or
those in --labels.

sat-jax train --config finetune.py --workdir runs/mine --init SAT_T_2s \
    --clips mine.csv --valid_clips held_out.csv

sat-jax train --config finetune.py:debug --workdir runs/debug --init SAT_XS_2s --clips mine.csv

To learn from a teacher's scores too, add --psl scores.parquet --config.data.psl_share 0.5.
"""

from ml_collections import ConfigDict

from sat_jax.training.defaults import default_config, parse_argument, shrink

NAMES = ("own",)


def get_config(argument: str = "") -> ConfigDict:
    """Returns settings for small sets of clips; they are ours, since none were published."""
    _, debug = parse_argument(argument, NAMES)
    config = default_config("own", None, window_seconds=None)
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_fraction = 0.1
    config.optimizer.final_fraction = 0.01
    config.optimizer.weight_decay = 0.01
    # Lower layers compute features that all sounds share, and have learned them already.
    config.optimizer.layer_decay = 0.75
    # A few clips have other input statistics than AudioSet, by chance.
    config.frozen_input_norm = True
    config.augment.update(time_shift=0.5, gain_db=6.0, mixup=0.5, time_masks=1, freq_masks=1)
    config.data.sampler = "balanced"
    config.data.draws_per_epoch = 2000
    config.num_epochs = 20
    config.evaluate_every = 100
    return shrink(config) if debug else config
