"""Metrics of multi-label tagging: ranking, stability, strong labels, thresholds."""
