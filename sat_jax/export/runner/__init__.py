"""Files that are copied into an exported folder; nothing here imports sat_jax."""
