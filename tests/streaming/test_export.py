"""A step can be exported: any number of streams, no product that only JAX on CPUs knows."""

import jax
import numpy as np

from sat_jax.config import ModelConfig
from sat_jax.models.portable import portable
from sat_jax.models.transformer import init_variables
from sat_jax.streaming import ModelState, StreamingModel, make_framing

# Two streams give 16 rows of 256 values: enough for the product of few rows, were it not off.
CONFIG = ModelConfig(
    width=256, depth=2, num_classes=5, target_length=32, cache_length=32, pooling="token"
)


def test_a_step_for_any_number_of_streams() -> None:
    streams = StreamingModel(CONFIG, make_framing(CONFIG))
    variables = jax.jit(init_variables, static_argnums=0)(CONFIG, jax.random.key(0))
    state = streams.init(variables, 2, warmup="none")
    leaves, tree = jax.tree.flatten(state)

    def step(variables, window, leaves):
        probs, after = streams.step(variables, window, jax.tree.unflatten(tree, leaves))
        return probs, jax.tree.leaves(after)

    (batch,) = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for x in leaves]
    window = jax.ShapeDtypeStruct((batch, streams.framing.window), np.float32)
    with portable(True):
        exported = jax.export.export(jax.jit(step), platforms=("cpu",))(variables, window, shapes)
    sound = 0.1 * np.random.default_rng(0).standard_normal((2, streams.framing.window))
    sound = sound.astype(np.float32)
    probs, after = exported.call(variables, sound, leaves)
    want, want_after = streams.step(variables, sound, state)
    np.testing.assert_allclose(probs, want, atol=1e-6)
    assert isinstance(jax.tree.unflatten(tree, after), ModelState)
    for have, expected in zip(after, jax.tree.leaves(want_after), strict=True):
        np.testing.assert_allclose(have, expected, atol=1e-4)
