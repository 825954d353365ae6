"""Exports the streaming step, so that devices run it without JAX.

All formats have one signature (`sat_jax.export.signature`): samples and state in, probabilities and
the next state out.
"""
