"""Windows alone and in the context of their clips."""

import numpy as np
import pytest

from data_pipeline.psl.teacher import SoundTeacher, Window


class MeanScorer:
    """The probability of the first class is the mean sample; the second has 0, the third 1."""

    def score(self, windows):
        sounds = list(windows)
        self.heard = [window for window, _ in sounds]
        for key, samples in reversed(sounds):
            yield key, np.array([samples.mean(), 0.0, 1.0], np.float32)


CLIPS = [np.array([0.2, 0.2, 0.8, 0.8]), np.array([0.6, 0.6])]
WINDOWS = [Window(0, 0, 2), Window(0, 2, 4), Window(1, 0, 2)]


def test_windows_alone():
    answers = dict(SoundTeacher(MeanScorer()).score((w, CLIPS[w.clip]) for w in WINDOWS))
    assert [answers[w][0] for w in WINDOWS] == pytest.approx([0.2, 0.8, 0.6])


def test_log_odds_are_averaged_with_the_whole_clip():
    scorer = MeanScorer()
    teacher = SoundTeacher(scorer, clip_context=True)
    answers = dict(teacher.score((w, CLIPS[w.clip]) for w in WINDOWS))
    # The whole first clip has odds 1; those of its windows, 1/4 and 4, become 1/2 and 2.
    assert [answers[w][0] for w in WINDOWS] == pytest.approx([1 / 3, 2 / 3, 0.6])
    for probs in answers.values():
        assert probs.dtype == np.float32
        assert probs[1:].tolist() == pytest.approx([0.0, 1.0], abs=2e-7)
    # Each clip is heard once, and a window that is its whole clip too.
    assert sorted(scorer.heard) == [Window(0, 0, 2), Window(0, 0, 4), Window(0, 2, 4), WINDOWS[2]]
