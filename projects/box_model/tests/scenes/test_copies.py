"""Copies of recordings are found by their waveforms; others are not."""

import csv
import io

import numpy as np
import pytest
import soundfile
from scipy import signal

from projects.box_model.scenes.copies import Item, change_table, find_copies
from projects.box_model.scenes.matching import RATE, compare, find_matches
from projects.box_model.scenes.sounds import RECORDINGS


def noise(seconds, seed):
    """Makes coloured noise with random changes of loudness."""
    rng = np.random.default_rng(seed)
    sound = signal.lfilter([1.0], [1.0, -0.7], rng.standard_normal(round(seconds * RATE)))
    course = np.interp(np.arange(len(sound)), np.linspace(0, len(sound), 9), rng.uniform(0.2, 1, 9))
    return (0.05 * sound * course).astype(np.float32)


def tone(seconds, hertz, seed):
    """Makes a tone with a little noise."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hertz * time + seed)).astype(np.float32) + 0.02 * noise(
        seconds, seed
    )


def unrelated(one, other):
    return one == other


def test_a_copy_at_another_time_and_level_is_found():
    original = noise(1.5, 0)
    longer = noise(4.0, 1) * 0.1
    longer[12_345 : 12_345 + len(original)] += 0.3 * original
    (match,) = find_matches([original, noise(2.0, 2), longer], unrelated)
    assert {match.first, match.second} == {0, 2} and match.is_copy
    assert abs(match.lag) == pytest.approx(12_345 / RATE)
    assert match.copied == match.blocks >= 4 and match.slid > 0.9
    # Related recordings are not compared.
    assert not find_matches([original, longer], lambda one, other: True)


def test_a_shared_part_is_found():
    shared = 3 * noise(0.8, 0)
    one = np.concatenate([noise(1.0, 1), shared])
    other = np.concatenate([shared, noise(0.7, 2)])
    (match,) = find_matches([one, other], unrelated)
    assert match.is_copy and abs(match.lag) == pytest.approx(1.0)


def test_a_tone_of_the_same_pitch_is_not_a_copy():
    matches = find_matches([tone(1.0, 440, 1), tone(1.5, 440, 2), tone(0.3, 440, 3)], unrelated)
    assert len(matches) == 3  # They match before whitening only.
    assert all(match.slid > 0.95 and not match.is_copy for match in matches)


@pytest.mark.parametrize("seconds", [0.08, 0.2, 1.5])
def test_unrelated_recordings_are_not_copies(seconds):
    recordings = [noise(seconds, seed) for seed in range(20)]
    assert not any(match.is_copy for match in find_matches(recordings, unrelated))


def test_the_lag_is_the_start_of_the_second_in_the_first():
    sound = noise(2.0, 0)
    for lag in (-4000, 0, 4000):
        other = sound[-min(lag, 0) :]
        other = np.concatenate([np.zeros(max(lag, 0), np.float32), other])
        copied, blocks, whitened = compare(sound, other, lag)
        assert copied == blocks and whitened > 0.999


def test_silence_and_short_recordings_are_ignored():
    sounds = [np.zeros(0, np.float32), np.zeros(RATE, np.float32), noise(0.01, 0), noise(1.0, 1)]
    assert not find_matches(sounds, unrelated)


def test_threads_do_not_change_the_result():
    recordings = [noise(1.0, 0), noise(1.0, 1), noise(1.0, 0) * 0.5, tone(1.0, 300, 0)]
    assert find_matches(recordings, unrelated, workers=3) == find_matches(recordings, unrelated)


def test_files_of_other_groups_and_the_same_kind_are_compared(tmp_path):
    reported = []
    paths = [tmp_path / f"{i}.wav" for i in range(4)]
    for path in paths[:3]:
        soundfile.write(path, noise(1.0, 0), RATE)
    found = find_copies(
        [
            Item(paths[0], "a", "other"),
            Item(paths[1], "b", "other"),
            Item(paths[2], "c", "Speech"),
            Item(paths[3], "d", "other"),
        ],
        workers=1,
        report=reported.append,
    )
    assert [(match.first, match.second) for match in found] in ([(0, 1)], [(1, 0)])
    assert len(reported) == 1 and "3.wav" in str(reported[0])
    same_group = [Item(path, "a", "other") for path in paths[:2]]
    assert not find_copies(same_group, workers=1, report=reported.append)


TABLE = """source,path,labels,group,licence,teacher_rank
p,1.wav,Moo,cow,CC0,1
p,2.wav,"A, b",bull,CC0,
p,3.wav,Moo,cow,CC0,2
p,4.wav,Dog,dog,CC0,
p,5.wav,Dog,hound,CC0,
p,6.wav,Cat,cat,CC0,
"""


def test_groups_of_copies_are_merged_and_outside_copies_removed():
    # 6 is outside the table; a copy of a removed row joins no group.
    changed = change_table(TABLE, [(1, 0), (3, 4), (5, 6), (5, 2)])
    groups = [row["group"] for row in csv.DictReader(io.StringIO(changed))]
    assert groups == ["cow", "cow", "cow", "dog", "dog"]
    assert changed.splitlines()[2] == 'p,2.wav,"A, b",cow,CC0,'
    # Also through a third.
    chained = change_table(TABLE, [(1, 3), (3, 5)])
    assert [line.split(",")[-3] for line in chained.splitlines()[2:5:2]] == ["bull", "bull"]


def test_the_table_stays_without_pairs():
    assert change_table(TABLE, []) == TABLE
    text = RECORDINGS.read_text(encoding="utf-8")
    assert change_table(text, []) == text
