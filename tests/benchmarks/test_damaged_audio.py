"""The count of unnoticed damage runs; for some formats here, for all of them by hand."""

import re

import pytest

from benchmarks import damaged_audio


def outcomes(capsys, *flags):
    """Returns the last row of the table: files, right, silent losses, false alarms and so on."""
    damaged_audio.main(flags)
    return [int(number) for number in re.findall(r"\d+", capsys.readouterr().out.splitlines()[-1])]


def test_no_damage_goes_unnoticed_in_small_formats(capsys):
    files, right, *wrong = outcomes(capsys, "--seeds", "1", "--formats", "AVR", "FLAC")
    assert files == right > 40
    assert wrong == [0, 0, 0, 0]


def test_unnoticed_damage_is_counted(capsys, monkeypatch):
    monkeypatch.setattr("sat_jax.audio.layout.read_header", lambda file, begin: None)
    files, right, silent, *_ = outcomes(capsys, "--seeds", "1", "--formats", "AVR")
    assert files > right and silent >= 3


@pytest.mark.slow
def test_no_damage_goes_unnoticed(capsys):
    files, _, silent, false_alarm, _, traceback = outcomes(capsys, "--seeds", "1")
    assert files > 1_500 and traceback == 0
    # A header of HTK, MAT5 or NUT has no room for anything behind the sound.
    assert silent == 0 and false_alarm <= 10
