"""Whole courses of training, from recordings to a model that tags; each is one command."""
