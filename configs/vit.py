r"""Stage 2: trains a clip model to tag recordings of 10 s.

The authors published no settings for this stage; these are ours. Start from a masked autoencoder
or from a published clip model.

sat-jax train --config vit.py:tiny --workdir runs/vit_tiny --clips clips.csv --init mae_tiny.pt

sat-jax train --config vit.py:tiny,debug --workdir runs/debug --clips clips.csv
"""

from ml_collections import ConfigDict

from sat_jax.models.registry import MODELS
from sat_jax.training.defaults import default_config, parse_argument, shrink

NAMES = ("tiny", "xs", "small", "base")


def get_config(argument: str = "") -> ConfigDict:
    """Returns settings for one of `NAMES`, perhaps with ",debug"."""
    size, debug = parse_argument(argument, NAMES)
    name = f"audiotransformer_{size}"
    config = default_config(name, MODELS[name], window_seconds=10.0)
    # Half the learning rate of pretraining and the same schedule; more decay, since labels are few.
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_fraction = 0.1
    config.optimizer.final_fraction = 0.01
    config.optimizer.weight_decay = 0.01
    config.optimizer.layer_decay = 0.75
    config.augment.update(mixup=0.5, time_masks=2, time_mask_frames=96, freq_masks=2)
    config.data.sampler = "balanced"
    config.num_epochs = 20
    return shrink(config) if debug else config
