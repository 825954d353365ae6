"""What the tagger hands to its user: printed tags, score files and pictures (floor 1).

`tags` picks what is worth showing, `formats` turns it into text, `files` writes without ever
harming an older file, `spectrogram` and `plot` draw. Nothing here knows a model.
"""
