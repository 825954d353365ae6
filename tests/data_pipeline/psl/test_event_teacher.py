"""The labels that events give to windows, against counting the samples that events cover."""

import numpy as np
import pytest

from data_pipeline.psl.event_teacher import EventTeacher, read_event_teacher
from data_pipeline.psl.teacher import Window
from sat_jax.errors import SatError
from sat_jax.labels import Event, audioset_labels

RATE = 16_000


def test_a_class_counts_where_its_samples_are():
    rng = np.random.default_rng(3)
    events = []
    for _ in range(30):
        onset = round(rng.uniform(0, 9), 3)
        events.append(Event(int(rng.integers(5)), onset, onset + round(rng.uniform(0.02, 2), 3)))
    windows = [(Window(0, first, first + 32_000), None) for first in range(0, 128_001, 8000)]
    for window, probs in EventTeacher([events], num_classes=6).score(windows):
        expected = np.zeros(6)
        for event in events:
            covered = np.zeros(12 * RATE, bool)
            covered[round(event.onset * RATE) : round(event.offset * RATE)] = True
            inside = covered[window.first : window.last].sum()
            if inside >= min(1600, covered.sum() / 2):
                expected[event.class_index] = 1
        np.testing.assert_array_equal(probs, expected)
        assert probs.dtype == np.float32


def test_the_higher_of_both_teachers_counts():
    class Other:
        def score(self, windows):
            for window, _ in reversed(list(windows)):
                yield window, np.array([0.25, 0.5, 0.0], np.float32)

    windows = [(Window(0, 0, RATE), None), (Window(1, 0, RATE), None)]
    teacher = EventTeacher([[Event(0, 0.0, 1.0)], []], num_classes=3, other=Other())
    answers = dict(teacher.score(windows))
    assert answers[Window(0, 0, RATE)].tolist() == pytest.approx([1.0, 0.5, 0.0])
    assert answers[Window(1, 0, RATE)].tolist() == pytest.approx([0.25, 0.5, 0.0])


def test_a_teacher_of_other_classes_is_refused():
    class Other:
        def score(self, windows):
            for window, _ in windows:
                yield window, np.zeros(2, np.float32)

    teacher = EventTeacher([[]], num_classes=3, other=Other())
    with pytest.raises(SatError, match=r"\b2 classes.*\b3\b"):
        list(teacher.score([(Window(0, 0, RATE), None)]))


def test_a_table_must_have_all_clips(tmp_path):
    table = tmp_path / "strong.tsv"
    table.write_text("filename\tonset\toffset\tevent_label\nb\t0.5\t1.5\tDog\na\t\t\t\n")
    [(_, silent), (_, barking)] = read_event_teacher(table, ["a", "b"]).score(
        [(Window(0, 0, RATE), None), (Window(1, 0, RATE), None)]
    )
    assert not silent.any()
    assert [audioset_labels()[i].name for i in np.flatnonzero(barking)] == ["Dog"]
    with pytest.raises(SatError, match=r"strong\.tsv.* 1 clips.*'c'"):
        read_event_teacher(table, ["a", "b", "c"])
