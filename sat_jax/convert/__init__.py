"""PyTorch weights to ours and back (floor 5).

`names` pairs the tensors, `architecture` reads the model off them, `files` reads and writes
them; ``python -m sat_jax.convert`` puts the three together.
"""
