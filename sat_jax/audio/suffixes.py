"""Names of audio files."""

import os

_LIBSNDFILE = (
    "8svx aif aifc aiff au avr caf flac htk iff ircam mp1 mp2 mp3 nist oga ogg opus paf pvf rf64 "
    "sd2 sds sf snd sph svx voc w64 wav wave wve xi"
)
_FFMPEG = "aac ac3 amr ape dff dsf dts eac3 m4a m4b mka mpc ra tta wma wv"
_FILMS = "3gp avi flv m4v mkv mov mp4 mpeg mpg webm wmv"

AUDIO_SUFFIXES = frozenset(f".{each}" for each in f"{_LIBSNDFILE} {_FFMPEG} {_FILMS}".split())
"""Suffixes of files with sound, in lower case. Suffixes that mean other data too are left out."""


def is_audio_name(name: str) -> bool:
    """Returns whether a file's name says that it holds sound."""
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES
