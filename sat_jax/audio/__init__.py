"""Reads audio files and pipes as blocks of mono samples at the model's sample rate.

Memory use does not grow with the length of the recording.
"""

from sat_jax.audio.files import duration_seconds, read_blocks
from sat_jax.audio.libsndfile import check_exists
from sat_jax.audio.live import read_live_blocks

__all__ = [
    "check_exists",
    "duration_seconds",
    "read_blocks",
    "read_live_blocks",
]
