"""Scenes mixed from sounds in Debian packages: a dataset that everyone can build."""
