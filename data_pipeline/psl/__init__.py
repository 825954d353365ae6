"""Pseudo strong labels: their files, their use in training, and making them with a teacher."""
