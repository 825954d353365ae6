"""The networks: one transformer for clips and streams, its pretraining, and its names."""
