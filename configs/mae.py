r"""Stage 1: pretrains a masked autoencoder on sounds without labels.

Windows of 10 s; three quarters of the patches are masked. Stage 2 starts from the encoder.

sat-jax train --config mae.py:tiny --workdir runs/mae_tiny --clips clips.csv

sat-jax train --config mae.py:debug --workdir runs/debug --clips clips.csv
"""

from ml_collections import ConfigDict

from sat_jax.models.registry import MAES
from sat_jax.training.defaults import default_config, parse_argument, shrink

NAMES = ("tiny", "small", "base", "xs")


def get_config(argument: str = "") -> ConfigDict:
    """Returns the published settings for one of `NAMES`, perhaps with ",debug"."""
    size, debug = parse_argument(argument, NAMES)
    name = f"mae_{size}"
    config = default_config(name, MAES[name], window_seconds=10.0)
    config.optimizer.learning_rate = 2e-4
    config.optimizer.warmup_fraction = 3 / 40
    config.optimizer.final_fraction = 0.01
    config.optimizer.weight_decay = 5e-7
    config.num_epochs = 40
    return shrink(config) if debug else config
