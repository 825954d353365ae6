r"""Stage 3: trains a streaming model, chunk by chunk.

Windows of two chunks; the second chunk sees the first in its cache. Start from a clip model or a
published streaming model: from scratch this stage does not work well.

sat-jax train --config sat.py:SAT_T_2s --workdir runs/sat_t_2s \
    --clips clips.csv --psl psl_4s.parquet --init audiotransformer_tiny

sat-jax train --config sat.py:debug --workdir runs/debug --clips clips.csv \
    --config.data.psl_share 0
"""

from ml_collections import ConfigDict

from sat_jax.models.registry import MODELS
from sat_jax.training.defaults import default_config, parse_argument, shrink

NAMES = ("SAT_T_2s", *(n for n in MODELS if n.startswith("SAT_") and n != "SAT_T_2s"))


def get_config(argument: str = "") -> ConfigDict:
    """Returns the published settings for one of `NAMES`, perhaps with ",debug"."""
    name, debug = parse_argument(argument, NAMES)
    model = MODELS[name]
    # Two chunks: 4 s for chunks of 192 frames, 2 s for chunks of 96.
    config = default_config(name, model, window_seconds=model.target_length / 48)
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_fraction = 10 / 250
    config.optimizer.final_fraction = 0.1
    config.data.psl_share = 1.0
    config.data.sampler = "balanced"
    # As published: an epoch is 200 000 windows, drawn with replacement.
    config.num_epochs = 250
    return shrink(config) if debug else config
