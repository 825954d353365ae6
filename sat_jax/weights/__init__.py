"""Models on disk: checkpoints, the catalog of named models, downloads, warm starts, thresholds."""
