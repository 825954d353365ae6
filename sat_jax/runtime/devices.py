"""The devices that JAX calculates on."""

import os

import jax

from sat_jax.errors import SatError


def check_devices() -> None:
    """Finds out whether there is a device, before anything else could be blamed for it.

    Raises:
      SatError: there is none, or none such as the environment asks for.
    """
    try:
        jax.devices()
    except Exception as error:  # JAX raises many kinds, some of them without a word.
        asked = os.environ.get("JAX_PLATFORMS")
        what = f"JAX_PLATFORMS={asked} asks for" if asked else "can be used here"
        reason = f": {str(error).splitlines()[0]}" if str(error) else ""
        raise SatError(
            f"JAX finds no device such as {what}: set JAX_PLATFORMS=cpu, or install JAX for the "
            f"device{reason}"
        ) from error
