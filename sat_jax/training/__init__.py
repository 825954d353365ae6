"""Training: config, optimiser, step, checkpoints and the training loop."""
