"""Pseudo strong labels: files, teachers, labelling, and the windows that training uses."""
