"""Config fields given as text."""

import pytest

from sat_jax.config import MaeConfig, ModelConfig
from sat_jax.convert.settings import parse_settings
from sat_jax.errors import SatError


def test_settings_get_the_types_of_their_fields() -> None:
    typed = parse_settings(
        ModelConfig,
        {
            "target_length": "192",
            "pad_last": "True",
            "remat": "no",
            "dropout": "1e-1",
            "layer_scale": "none",
            "pooling": "dm",
            "frontend.f_max": "7600",
            "top_db": "80",
        },
    )
    assert typed == {
        "target_length": 192,
        "pad_last": True,
        "remat": False,
        "dropout": 0.1,
        "layer_scale": None,
        "pooling": "dm",
        "frontend.f_max": 7600.0,
        "frontend.top_db": 80.0,
    }
    assert parse_settings(ModelConfig, {"layer_scale": "0.5"}) == {"layer_scale": 0.5}
    assert parse_settings(MaeConfig, {"target_length": "1000", "n_mels": "64"}) == {
        "encoder.target_length": 1000,
        "encoder.frontend.n_mels": 64,
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("widht", "192", "'widht'.*width.*frontend.n_mels"),
        ("frontend", "64", "'frontend'"),
        ("", "64", "''"),
        ("width", "wide", "width='wide'"),
        ("width", "192.5", "width='192.5'"),
        ("dropout", "none", "dropout='none'"),
        ("pad_last", "maybe", "pad_last=.maybe'"),
        ("pooling", "max", "pooling='max'.* mean, token, logit, dm"),
        ("layer_scale", "big", "layer_scale='big'"),
    ],
)
def test_bad_settings(key: str, value: str, message: str) -> None:
    with pytest.raises(SatError, match=message):
        parse_settings(ModelConfig, {key: value})
