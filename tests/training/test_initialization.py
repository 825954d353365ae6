"""What a run starts from: class names and input statistics."""

import dataclasses

import jax
import numpy as np
import pytest

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.errors import SatError
from sat_jax.labels import default_label_names
from sat_jax.training.initialization import check_input_norm, initial_variables, output_names
from sat_jax.weights.checkpoint import Checkpoint
from sat_jax.weights.warm_start import FreshStart

MODEL = ModelConfig(width=64, depth=1, target_length=32, num_classes=3)
INIT = Checkpoint(config=MODEL, variables={}, labels=("a", "b", "c"))


def test_own_names_come_before_those_of_init_and_audioset():
    own = ("x", "y", "z")
    assert output_names(MODEL, own, INIT) == own
    assert output_names(MODEL, (), INIT) == INIT.labels
    more = dataclasses.replace(MODEL, num_classes=527)
    assert output_names(more, (), INIT) == output_names(more, ()) == default_label_names(527)


def test_an_autoencoder_has_no_classes():
    model = MaeConfig(encoder=MODEL)
    assert output_names(model, ()) == ()
    with pytest.raises(SatError, match="--labels"):
        output_names(model, ("x",))


def test_frozen_input_norm_needs_statistics():
    check_input_norm(MODEL, INIT, "a")
    fixed = dataclasses.replace(MODEL, input_norm="fixed")
    check_input_norm(fixed, None, None)
    with pytest.raises(SatError, match="--init=other"):
        check_input_norm(MODEL, dataclasses.replace(INIT, config=fixed), "other")
    with pytest.raises(SatError, match="no --init"):
        check_input_norm(MODEL, None, None)


def test_weights_are_those_of_init_or_random():
    key = jax.random.key(0)
    random, notes = initial_variables(MODEL, key, FreshStart(head_bias=-1.0))
    assert not notes and (random["params"]["head"]["bias"] == -1).all()
    other = jax.tree.map(lambda x: np.asarray(x) + 1, random)
    init = dataclasses.replace(INIT, variables=other)
    taken, _ = initial_variables(MODEL, key, FreshStart(), init=init, labels=INIT.labels)
    jax.tree.map(np.testing.assert_array_equal, taken, other)
