"""Training configs: one file per stage, values only."""
