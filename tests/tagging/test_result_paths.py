"""The paths of a tagging run's results."""

from pathlib import Path

import pytest

from sat_jax.errors import SatError
from sat_jax.tagging.checks import check_options
from sat_jax.tagging.options import Recording, TaggingOptions
from sat_jax.tagging.result_paths import ResultPaths, distinct_names, result_paths


def named(*names):
    return [Recording.named(name) for name in names]


def test_distinct_names():
    sources = ["x/a.wav", "y/a.flac", "a_2.wav", "A.mp3", "-", "z/a.wav", "b.tar.gz", "stdin.wav"]
    paths = distinct_names("out", named(*sources), suffix=".npz")
    assert [path.name for path in paths] == [
        "a.npz",
        "a_3.npz",
        "a_2.npz",
        "A_4.npz",
        "stdin.npz",
        "a_5.npz",
        "b.tar.npz",
        "stdin_2.npz",
    ]
    assert {path.parent for path in paths} == {Path("out")}


def test_scores_and_pictures_mirror_folders():
    options = TaggingOptions(scores_out="out", plot="all/day.png")
    found = [Recording("n/a.wav", "a.wav"), Recording("n/s/a.wav", "s/a.wav")]
    found.append(Recording("n/s/a.flac", "s/a.flac"))
    assert result_paths(options, found) == [
        ResultPaths(None, Path("out/a.npz"), Path("all/day-a.png")),
        ResultPaths(None, Path("out/s/a.npz"), Path("all/s/day-a.png")),
        ResultPaths(None, Path("out/s/a_2.npz"), Path("all/s/day-a_2.png")),
    ]
    assert result_paths(options, found[1:2]) == [
        ResultPaths(None, Path("out/s/a.npz"), Path("all/day.png"))
    ]
    assert result_paths(TaggingOptions(), found[:1]) == [ResultPaths(None, None, None)]


def test_names_in_the_output_folder_do_not_depend_on_other_recordings():
    options = TaggingOptions(
        output_dir="o", format_name="csv", scores_out="out", plot="all/day.svg"
    )
    found = [Recording("n/s/a.flac", "s/a.flac"), Recording("n/s/a.wav", "s/a.wav")]
    want = ResultPaths(Path("o/s/a.wav.csv"), Path("out/s/a.wav.npz"), Path("all/s/day-a.wav.svg"))
    assert result_paths(options, found)[1] == want
    assert result_paths(options, found[::-1])[0] == want


def test_two_recordings_with_one_result_are_refused():
    options = TaggingOptions(output_dir="o")
    with pytest.raises(SatError, match=r"o/a\.wav\.txt"):
        check_options(options, named("x/a.wav", "y/a.wav"))
    check_options(options, named("x/a.wav", "y/a.flac"))


def test_a_recording_is_no_result(tmp_path):
    (tmp_path / "a.wav.csv").write_bytes(b"RIFF")
    options = TaggingOptions(output_dir=str(tmp_path), format_name="csv")
    recordings = named("a.wav", str(tmp_path / "a.wav.csv"))
    with pytest.raises(SatError, match="would overwrite"):
        check_options(options, recordings)
