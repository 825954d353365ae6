"""Courses that use sat_jax and are no part of it."""
