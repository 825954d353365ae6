"""Recordings are traced to sounds of Freesound."""

from projects.box_model.scenes import freesound
from projects.box_model.scenes.freesound import PROGRAM, from_freesound
from projects.box_model.scenes.sounds import Recording
from tests.support.programs import run_program


def recording(path, credit):
    return Recording("farm", path, ("Moo",), "farm/cow", "CC0-1.0", "", "train", credit)


ROWS = [
    recording("cow.ogg", "freesound 123 by me"),
    recording("bull.ogg", "freesound 1234 by me; freesound 99 by you, edited by me"),
    recording("123.ogg", "soundbible.com/123-Cow.html by me"),
    recording("a/325367__me__cow.mp3", ""),
    recording("usr/share/1999__.ogg", ""),
]


def test_numbers_of_credits_and_file_names_are_found():
    found = from_freesound(ROWS, {"123", "99", "325367", "12", "999"})
    assert found == [ROWS[0], ROWS[1], ROWS[3]]
    assert from_freesound(ROWS, {"23", "234"}) == []


def test_the_command_fails_if_a_number_is_used(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(freesound, "read_recordings", lambda: ROWS)
    table = tmp_path / "numbers.csv"
    table.write_text("freesound,in_esc10\n99,1\n", encoding="utf-8")
    assert run_program(PROGRAM, "freesound", f"--numbers={table}") == 1
    assert capsys.readouterr().out.splitlines()[0].startswith("farm/bull.ogg: ")
    table.write_text("freesound,in_esc10\n77,1\n", encoding="utf-8")
    assert run_program(PROGRAM, "freesound", f"--numbers={table}") == 0
    for broken in ("number\n99\n", None):
        table = table if broken else tmp_path / "missing.csv"
        if broken:
            table.write_text(broken, encoding="utf-8")
        capsys.readouterr()
        assert run_program(PROGRAM, "freesound", f"--numbers={table}") == 1
        [line] = capsys.readouterr().err.splitlines()
        assert str(table) in line
