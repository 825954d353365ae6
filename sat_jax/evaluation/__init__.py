"""Evaluation of models on labelled clips."""
