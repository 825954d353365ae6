"""Batches of a source: choosing windows, and reading them ahead."""
