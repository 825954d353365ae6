"""What norms add to a variance, beside PyTorch's: it shows only where a variance is small."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sat_jax.config import ModelConfig
from sat_jax.convert.weight_table import from_torch
from sat_jax.models.layers import Block
from sat_jax.models.transformer import AudioTransformer
from sat_jax.training.window import _standardize
from tests.reference.torch_model import SAT, Config
from tests.support.reference_models import as_numpy, with_rule_weights

QUIET = 1e-3 * np.random.default_rng(0).standard_normal((1, 6, 64)).astype(np.float32)
"""Tokens [b, n, d] with a variance like an epsilon."""


@pytest.fixture(scope="module")
def models() -> tuple[SAT, ModelConfig, Any]:
    """Returns a PyTorch model with one block, and ours with the same weights."""
    shape = {"depth": 1, "target_length": 32, "cache_length": 32}
    reference = with_rule_weights(SAT(Config(embed_dim=64, outputdim=5, **shape)), 25)
    reference.get_buffer("init_bn.1.running_var").fill_(1e-5)
    weights = from_torch(as_numpy(reference))
    return reference.double(), ModelConfig(width=64, num_classes=5, **shape), weights


@torch.inference_mode()
def test_norms_of_quiet_tokens_are_those_of_pytorch(models: tuple[SAT, ModelConfig, Any]) -> None:
    reference, config, variables = models
    tokens = torch.from_numpy(QUIET).double()
    want, _ = reference.blocks[0](tokens, tokens[:, :0])
    have, _ = Block(config, 0.0).apply({"params": variables["params"]["blocks_0"]}, QUIET)
    np.testing.assert_allclose(have, want, atol=1e-5)
    model = AudioTransformer(config)
    last = model.apply(variables, QUIET, method=lambda net, x: net.norm(x))
    np.testing.assert_allclose(last, reference.norm(tokens), atol=1e-5)
    in_training = _standardize(QUIET[None], "float32")[0]  # A norm of the block, without weights.
    np.testing.assert_allclose(in_training, F.layer_norm(tokens, (64,), eps=1e-6), atol=1e-5)
    scores = model.apply(variables, QUIET, 2, method="scores")
    np.testing.assert_allclose(scores, reference.classify(tokens), atol=1e-6)


@torch.inference_mode()
def test_the_input_norm_of_steady_bands_is_that_of_pytorch(
    models: tuple[SAT, ModelConfig, Any],
) -> None:
    reference, config, variables = models
    log_mel = np.random.default_rng(1).standard_normal((1, 64, 5)).astype(np.float32)
    want = reference.init_bn(torch.from_numpy(log_mel).double())
    have = AudioTransformer(config).apply(variables, log_mel, method="normalize")
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-3)
