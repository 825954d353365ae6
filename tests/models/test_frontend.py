"""The front end against librosa, the golden spectrograms and its length contract."""

import jax
import librosa
import numpy as np
import pytest

from sat_jax.config import FrontendConfig
from sat_jax.models.frontend import log_mel, mel_filterbank
from tests.support.golden_models import numbers

FRONTEND = FrontendConfig()
_log_mel = jax.jit(log_mel, static_argnums=1)


@pytest.mark.parametrize("n_mels", [64, 128])
def test_filterbank_is_librosas(n_mels: int) -> None:
    ours = mel_filterbank(FrontendConfig(n_mels=n_mels))
    theirs = librosa.filters.mel(
        sr=16000, n_fft=512, n_mels=n_mels, fmin=0, fmax=8000, htk=True, norm=None
    )
    np.testing.assert_allclose(ours.T, theirs, atol=1e-6)


# The golden numbers' own tolerance is 2e-2 dB for the chirp and 2e-3 dB for the others. In the
# quietest bands above -60 dB, 100 dB under the loudest, float64 arithmetic differs from the
# reference's float32 by up to 0.0137 dB (chirp) and 0.0032 dB (clip), and XLA's FFT by 0.0206 and
# 0.0030 (7 of clip's values are beyond 2e-3); that depends on the CPU. Only PyTorch's own FFT and
# window come closer, within 5e-4. Where there is sound, 2e-3 dB holds throughout.
@pytest.mark.parametrize(
    ("name", "quiet_tolerance"),
    [
        ("noise", 2e-3),
        ("chirp", 2.5e-2),
        ("burst", 2e-3),
        ("silence", 2e-3),
        ("clip", 4e-3),
        ("clip_tail", 2e-3),
    ],
)
def test_log_mel_is_the_published(name: str, quiet_tolerance: float) -> None:
    golden = numbers("frontend")
    want = golden[f"logmel_{name}"]
    have = np.asarray(_log_mel(golden[f"wave_{name}"][None], FRONTEND))[0]
    assert have.shape == want.shape
    error = np.abs(have - want)
    assert error[want > -40].max(initial=0) < 2e-3
    assert error[want > -60].max(initial=0) < quiet_tolerance
    assert error.max() < 0.5


@pytest.mark.parametrize("num_samples", [2560, 16_000, 32_000, 160_000])
def test_length_contract(num_samples: int) -> None:
    shape = jax.eval_shape(_log_mel, np.zeros((1, num_samples), np.float32), FRONTEND).shape
    assert shape == (1, 64, 1 + num_samples // 160)


def test_a_neighbour_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    quiet, loud = 1e-6 * rng.standard_normal(8000), rng.standard_normal(8000)
    quiet[4000:] = 0.0
    both = np.asarray(_log_mel(np.stack([quiet, loud]).astype(np.float32), FRONTEND))
    alone = np.asarray(_log_mel(quiet[None].astype(np.float32), FRONTEND))
    np.testing.assert_array_equal(both[0], alone[0])


@pytest.mark.parametrize("num_samples", [300, 2399, 2400, 2401, 7777])
def test_shorter_recordings_in_a_longer_array(num_samples: int) -> None:
    rng = np.random.default_rng(num_samples)
    wave = rng.standard_normal((1, num_samples)).astype(np.float32)
    wave[:, num_samples // 4 :] = 0.0  # The floor under the maximum raises this part.
    wave[:, -5] = 100.0  # With its mirror image, this click is louder in a frame after the end.
    padded = np.pad(wave, ((0, 0), (0, 8000 - num_samples)), constant_values=np.nan)
    have = np.asarray(log_mel(padded, FRONTEND, num_samples=num_samples))
    want = np.asarray(log_mel(wave, FRONTEND))
    np.testing.assert_allclose(have[..., : want.shape[-1]], want, atol=1e-4)
