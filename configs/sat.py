r"""Stage 3: a streaming model learns to answer chunk by chunk.

Windows of two chunks; the second one has the first in its cache. Start from a clip model, or from
a published one: from scratch this stage does not work well.

python train.py --config configs/sat.py:SAT_T_2s --workdir runs/sat_t_2s \
    --clips clips.csv --psl psl_4s.parquet --init audiotransformer_tiny

python train.py --config configs/sat.py:debug --workdir runs/debug --clips clips.csv \
    --config.data.psl_share 0
"""

from ml_collections import ConfigDict

from sat_jax.models.registry import MODELS
from sat_jax.training.stages import choose, shrink, training_config

NAMES = ("SAT_T_2s", *(n for n in MODELS if n.startswith("SAT_") and n != "SAT_T_2s"))


def get_config(arg: str = "") -> ConfigDict:
    """The published settings, for one of `NAMES`.

    Args:
      arg: see `sat_jax.training.stages.choose`.
    """
    name, debug = choose(arg, NAMES)
    model = MODELS[name]
    # Two chunks: 4 s for models of 192 frames, 2 s for those of 96.
    config = training_config(name, model, window_seconds=model.target_length / 48)
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_fraction = 10 / 250
    config.optimizer.final_fraction = 0.1
    config.data.psl_share = 1.0
    config.data.sampler = "balanced"
    # As published: 200 000 windows drawn with replacement are an epoch.
    config.num_epochs = 250
    return shrink(config) if debug else config
