"""Training: optimiser, state, step, checkpoints of a run, and the loop over them."""
