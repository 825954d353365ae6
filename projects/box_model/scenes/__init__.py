"""Scenes mixed from sounds in packages and repositories: a dataset that everyone can build."""
