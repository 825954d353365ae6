"""Models on disk: checkpoint folders, bundled and downloaded weights, warm starts, thresholds."""
