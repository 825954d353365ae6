"""What people get to see: tags, scores, measures and pictures (floor 2).

`tags` picks what is worth showing, `formats` turns it into text, `files` writes without ever
harming an older file, `spectrogram` and `plot` draw; `evaluation` and its like tell how good models
are, and `figures` and the other `plot_` draw that. Nothing here knows a model.
"""
