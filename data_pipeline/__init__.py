"""Data for training and evaluation: sources of labelled clips, and batches of them.

Never imported by the library sat_jax; its commands import it.
"""
