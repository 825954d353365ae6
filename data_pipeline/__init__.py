"""AudioSet and other sources, from folders of audio to NumPy batches for the training loop.

Floor 0; never imported by sat_jax.
"""
