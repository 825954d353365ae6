"""Scenes mixed from recordings in packages: a data set that anyone can make."""
