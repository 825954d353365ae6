"""Tags of recordings that are tagged at once: in one text, or in files that are whole."""

import io

import pytest

from sat_jax.errors import SatError
from sat_jax.tagging.outputs import ResultFile, SharedText
from sat_jax.tagging.writers import OutputError


def test_a_shared_text_is_in_order_and_its_first_part_is_live():
    stream = io.StringIO()
    text = SharedText(stream)
    places = [text.add() for _ in range(3)]
    with places[0].open() as a, places[1].open() as b, places[2].open() as c:
        c.write("c1 ")
        a.write("a1 ")
        b.write("b1 ")
        assert stream.getvalue() == "a1 "
        a.write("a2 ")
        text.end_first()
        assert stream.getvalue() == "a1 a2 b1 "
        b.write("b2 ")
        text.end_first()
        c.write("c2 ")
    text.end_first()
    with text.add().open() as d:  # No other waits, so it is its turn.
        d.write("d")
    text.end_all()
    assert stream.getvalue() == "a1 a2 b1 b2 c1 c2 d"


def test_what_waits_is_written_at_the_end():
    stream = io.StringIO()
    text = SharedText(stream)
    places = [text.add() for _ in range(3)]
    with places[1].open() as b, places[2].open() as c:
        c.write("c")
        b.write("b")
    text.end_all()
    assert stream.getvalue() == "bc"


def test_waiting_text_that_cannot_be_written():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    text = SharedText(Full())
    text.add()
    with text.add().open() as b:
        b.write("b")
    with pytest.raises(OutputError, match="No space left"):
        text.end_first()


def list_files(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_result_file_appears_when_it_is_whole(tmp_path):
    folder = tmp_path / "new"
    with ResultFile(folder / "a.wav.csv").open() as stream:
        stream.write("one\n")
        stream.flush()
        assert not (folder / "a.wav.csv").exists()
    assert list_files(folder) == {"a.wav.csv": "one\n"}


@pytest.mark.parametrize("error", [SatError("damaged"), KeyboardInterrupt()])
def test_a_result_that_is_not_whole_has_another_name_until_it_is(error, tmp_path):
    def write(text, error=None):
        with ResultFile(tmp_path / "a.wav.csv").open() as stream:
            stream.write(text)
            if error:
                raise error

    with pytest.raises(type(error)):
        write("half\n", error)
    assert list_files(tmp_path) == {"a.wav.partial.csv": "half\n"}
    write("all\n")
    assert list_files(tmp_path) == {"a.wav.csv": "all\n"}


def test_a_full_disk_leaves_nothing(tmp_path):
    with pytest.raises(OutputError), ResultFile(tmp_path / "a.csv").open():
        raise OutputError("full")
    assert list_files(tmp_path) == {}
