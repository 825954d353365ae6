r"""Stage 2: a clip model learns to tag recordings of 10 s.

No settings of this stage were ever published; these are ours. Start from a masked autoencoder or
from a published clip model.

python train.py --config configs/vit.py:tiny --workdir runs/vit_tiny \
    --clips clips.csv --init mae_tiny.pt

python train.py --config configs/vit.py:tiny,debug --workdir runs/debug --clips clips.csv
"""

from ml_collections import ConfigDict

from sat_jax.models.registry import MODELS
from sat_jax.training.stages import choose, shrink, training_config

NAMES = ("tiny", "xs", "small", "base")


def get_config(arg: str = "") -> ConfigDict:
    """Fine-tuning of one of `NAMES`.

    Args:
      arg: see `sat_jax.training.stages.choose`.
    """
    size, debug = choose(arg, NAMES)
    name = f"audiotransformer_{size}"
    config = training_config(name, MODELS[name], window_seconds=10.0)
    # Half of pretraining's learning rate, and its course; more decay, since labels are few.
    config.optimizer.learning_rate = 1e-4
    config.optimizer.warmup_fraction = 0.1
    config.optimizer.final_fraction = 0.01
    config.optimizer.weight_decay = 0.01
    config.optimizer.layer_decay = 0.75
    config.augment.update(mixup=0.5, time_masks=2, time_mask_frames=96, freq_masks=2)
    config.data.sampler = "balanced"
    config.num_epochs = 20
    return shrink(config) if debug else config
