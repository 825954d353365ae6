"""AudioSet from the web: its lists of segments, and their sound from video pages.

`python -m data_pipeline.download --help` tells what it can do.
"""
