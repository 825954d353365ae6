"""Projects that use sat_jax and are not part of it."""
