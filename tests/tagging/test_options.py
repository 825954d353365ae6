"""The paths of a tagging run's results."""

from pathlib import Path

from sat_jax.tagging.options import TaggingOptions, distinct_paths, plot_paths, score_paths


def test_distinct_paths():
    sources = ["x/a.wav", "y/a.flac", "a_2.wav", "A.mp3", "-", "z/a.wav", "b.tar.gz", "stdin.wav"]
    paths = distinct_paths("out", sources, suffix=".npz")
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


def test_paths_of_scores_and_pictures():
    options = TaggingOptions(scores_out="out", plot="all/day.png")
    assert score_paths(options, ["x/a.wav"]) == [Path("out/a.npz")]
    assert plot_paths(options, ["x/a.wav"]) == [Path("all/day.png")]
    several = plot_paths(options, ["x/a.wav", "y/a.wav"])
    assert several == [Path("all/day-a.png"), Path("all/day-a_2.png")]
    assert score_paths(TaggingOptions(), ["a"]) == plot_paths(TaggingOptions(), ["a"]) == [None]
