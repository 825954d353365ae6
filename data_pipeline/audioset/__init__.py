"""AudioSet as a TFDS dataset: the builder, and the work of `sat-jax prepare`."""
