r"""Stage 1: a masked autoencoder learns from sounds without labels.

Random windows of 10 s, three quarters of the patches hidden. The encoder starts stage 2.

python train.py --config configs/mae.py:tiny --workdir runs/mae_tiny --clips clips.csv

python train.py --config configs/mae.py:debug --workdir runs/debug --clips clips.csv
"""

from ml_collections import ConfigDict

from sat_jax.models.registry import MAES
from sat_jax.training.stages import choose, shrink, training_config

NAMES = ("tiny", "small", "base", "xs")


def get_config(arg: str = "") -> ConfigDict:
    """The published settings, for one of `NAMES`.

    Args:
      arg: see `sat_jax.training.stages.choose`.
    """
    size, debug = choose(arg, NAMES)
    name = f"mae_{size}"
    config = training_config(name, MAES[name], window_seconds=10.0)
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_fraction = 3 / 40
    config.optimizer.final_fraction = 0.01
    config.optimizer.weight_decay = 5e-7
    config.num_epochs = 40
    return shrink(config) if debug else config
