"""Scenes mixed from packages: what is in them is what their tables say."""

import collections
import csv
import itertools
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
import soundfile

from projects.box_model.scenes import library as library_module
from projects.box_model.scenes.library import Library, fetch_packages
from projects.box_model.scenes.rcc import read_rcc
from projects.box_model.scenes.scenes import (
    NUM_SAMPLES,
    SoundPicker,
    active_span,
    mix_scene,
)
from projects.box_model.scenes.soundfont import Player, compose, read_voices
from projects.box_model.scenes.sounds import (
    SPLITS,
    Recording,
    Sound,
    all_sounds,
    class_indices,
    read_recordings,
    split_sounds,
    with_classes_above,
)
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels

NAMES = [label.name for label in audioset_labels()]
RATE = 16_000


# --- tables ------------------------------------------------------------------------------------


def test_every_sound_has_a_class_of_audioset_and_all_above_it():
    for sound in all_sounds():
        labels = [NAMES[index] for index in class_indices(sound.labels)]
        assert set(sound.labels) <= set(labels)
        assert len(set(labels)) == len(labels)
        # A class that is above another says nothing.
        assert not any(set(with_classes_above(a)[1:]) & set(sound.labels) for a in sound.labels)
    assert set(with_classes_above("Moo")) == {
        "Moo",
        "Cattle, bovinae",
        "Livestock, farm animals, working animals",
        "Animal",
    }
    # Two ways up.
    assert {"Siren", "Alarm", "Vehicle"} <= set(with_classes_above("Police car (siren)"))


def test_no_group_is_in_two_splits_and_all_sounds_are_in_one():
    sounds = all_sounds()
    splits = split_sounds(sounds)
    groups = {split: {sound.group for sound in splits[split]} for split in SPLITS}
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]
    assert sorted(itertools.chain(*splits.values())) == sorted(sounds)
    # What is measured was learned.
    learned = {sound.label for sound in splits["train"]}
    assert {sound.label for sound in splits["test"] + splits["validation"]} <= learned


def test_names_of_recordings_are_unique_and_none_was_contradicted():
    recordings = read_recordings()
    assert len({(one.package, one.path) for one in recordings}) == len(recordings)
    trusted = {"sonic-pi-samples", "hydrogen-data", "sound-icons"}
    for one in recordings:
        assert one.licence
        if one.teacher_rank and one.package not in trusted:
            assert int(one.teacher_rank) <= 50, one


def test_a_sound_more_moves_no_other_class():
    sounds = all_sounds()
    before = split_sounds(sounds)
    after = split_sounds([*sounds, Sound("new/bark.wav", ("Bark",), "new/bark")])
    for split in SPLITS:
        kept = [sound for sound in after[split] if sound.label != "Bark"]
        assert kept == [sound for sound in before[split] if sound.label != "Bark"]


# --- Qt resource files -------------------------------------------------------------------------


def write_rcc(files, *, version=3, flags=0):
    """As Qt's documentation of the format has it: root -> files, one folder deep."""
    names, data, nodes = b"", b"", []

    def add_name(text):
        nonlocal names
        at = len(names)
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return at

    folder = add_name("sounds")
    nodes.append(struct.pack(">IHII", 0, 2, 1, 1))
    nodes.append(struct.pack(">IHII", folder, 2, len(files), 2))
    for name, content in files.items():
        at = len(data)
        if flags & 1:
            content = struct.pack(">I", len(content)) + zlib.compress(content)
        data += struct.pack(">I", len(content)) + content
        nodes.append(struct.pack(">IHHHI", add_name(name), flags, 0, 1, at))
    if version >= 2:
        nodes = [node + bytes(8) for node in nodes]
    tree = b"".join(nodes)
    header = 24 if version >= 3 else 20
    offsets = (version, header, header + len(tree), header + len(tree) + len(data))
    head = b"qres" + struct.pack(">4I", *offsets) + (bytes(4) if version >= 3 else b"")
    return head + tree + data + names


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("flags", [0, 1])
def test_resource_files_give_back_their_files(tmp_path, version, flags):
    files = {"moo.ogg": b"moo" * 50, "bähh.ogg": b"", "x": bytes(range(256))}
    path = tmp_path / "x.rcc"
    path.write_bytes(write_rcc(files, version=version, flags=flags))
    assert dict(read_rcc(path)) == {f"sounds/{name}": data for name, data in files.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"RIFF" + data[4:], "no Qt resource file"),
        (lambda data: data[:60], "damaged"),
        (lambda data: data[:-40], "damaged"),
    ],
)
def test_damaged_resource_files_are_refused(tmp_path, change, words):
    path = tmp_path / "x.rcc"
    path.write_bytes(change(write_rcc({"moo.ogg": b"moo" * 50}, flags=1)))
    with pytest.raises(SatError, match=words):
        dict(read_rcc(path))
    with pytest.raises(SatError, match="zstd"):
        path.write_bytes(write_rcc({"moo.ogg": b"moo"}, flags=4))
        dict(read_rcc(path))


# --- soundfont ---------------------------------------------------------------------------------


def test_notes_are_the_voices_own_and_end_in_time():
    for voice in read_voices():
        played = set()
        for seed in range(20):
            notes = compose(voice, np.random.default_rng(seed))
            assert notes and notes == compose(voice, np.random.default_rng(seed))
            assert all(0 <= note.onset < 10 and 0 < note.seconds < 9 for note in notes)
            assert all(1 <= note.velocity <= 127 for note in notes)
            played |= {note.key for note in notes}
        if voice.style != "groove":
            assert played <= set(voice.keys)
        assert len(played) > 1 or len(voice.keys) == 1


def keys_by_split():
    """All that a render of each split may play, of any of its voice's programs."""
    voices = {(voice.label, voice.split): voice for voice in read_voices()}
    found = collections.defaultdict(set)
    for sound in all_sounds():
        if sound.split:
            voice = voices[sound.label, sound.split]
            notes = compose(voice, np.random.default_rng(list(sound.name.encode())))
            keys = {note.key for note in notes} | set(voice.keys)
            found[sound.split] |= set(itertools.product([voice.bank], voice.programs, keys))
    return found


def test_no_program_plays_a_key_in_two_splits():
    found = keys_by_split()
    assert set(found) == set(SPLITS)
    for one, other in itertools.combinations(SPLITS, 2):
        assert not found[one] & found[other]


def test_effects_of_one_sound_are_only_learned_from():
    held_out = {voice.label for voice in read_voices() if voice.split != "train"}
    effects = {voice.label for voice in read_voices() if voice.style in ("held", "groove")}
    assert {"Applause", "Helicopter", "Telephone bell ringing", "Drum kit"} <= effects
    assert not held_out & (effects | {"Gunshot, gunfire", "Hi-hat", "Cowbell", "Rimshot"})
    assert {"Piano", "Choir", "Snare drum", "Timpani"} <= held_out


def test_renders_are_in_the_split_that_they_name():
    splits = split_sounds(all_sounds())
    for split in SPLITS:
        renders = [sound.name for sound in splits[split] if sound.name.startswith("soundfont/")]
        assert renders and {name.split("/")[-2] for name in renders} == {split}


def test_every_split_of_an_instrument_has_chords():
    for voice in read_voices():
        if voice.style == "chords":
            notes = [compose(voice, np.random.default_rng(seed)) for seed in range(20)]
            together = [collections.Counter(note.onset for note in one) for one in notes]
            assert max(max(count.values()) for count in together) >= 3


def test_without_the_player_a_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(SatError, match="pip install --no-deps tinysoundfont"):
        Player(tmp_path / "x.sf2")


# --- scenes ------------------------------------------------------------------------------------


def tone(seconds, hertz):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


TONES = {"Moo": 500.0, "Piano": 2000.0, "Speech": 6000.0}
SOUNDS = [Sound(f"{label}/{i}", (label,), f"{label}/{i}") for label in TONES for i in range(3)]


def read_tone(sound):
    return tone(0.7, TONES[sound.label])


def band_levels(samples, hertz):
    """Power around a frequency in every 0.1 s."""
    frames = samples.astype(float).reshape(-1, RATE // 10)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]))) ** 2
    bin_ = round(hertz / 10)
    return spectrum[:, bin_ - 20 : bin_ + 21].sum(1)


def test_events_are_where_the_sounds_are():
    picker = SoundPicker(SOUNDS)
    heard = 0
    for number in range(40):
        scene = mix_scene(picker, read_tone, (0, number), vary_speed=False)
        assert scene.samples.shape == (NUM_SAMPLES,) and scene.samples.dtype == np.dtype("<i2")
        for label, hertz in TONES.items():
            levels = band_levels(scene.samples, hertz)
            index = NAMES.index(label)
            spans = [(e.onset, e.offset) for e in scene.events if e.class_index == index]
            times = np.arange(100) / 10
            inside = np.array([any(a <= t and t + 0.1 <= b for a, b in spans) for t in times])
            # Echoes ring on for most of a second.
            outside = np.array([all(t + 0.1 <= a or t >= b + 1.0 for a, b in spans) for t in times])
            if inside.any():
                heard += 1
                assert levels[inside].min() > 30 * np.median(levels[outside])
    assert heard > 20


def test_a_scene_follows_from_its_numbers_and_nothing_else():
    picker = SoundPicker(SOUNDS)
    first = mix_scene(picker, read_tone, (0, 7), vary_speed=True)
    again = mix_scene(SoundPicker(SOUNDS), read_tone, (0, 7), vary_speed=True)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.events == again.events
    other = mix_scene(picker, read_tone, (0, 8), vary_speed=True)
    assert not np.array_equal(first.samples, other.samples)


def test_events_of_a_class_do_not_overlap_and_labels_reach_to_the_top():
    picker = SoundPicker(SOUNDS)
    for number in range(60):
        scene = mix_scene(picker, read_tone, (1, number), vary_speed=True)
        by_class = collections.defaultdict(list)
        for event in scene.events:
            assert 0 <= event.onset < event.offset <= 10
            by_class[event.class_index].append((event.onset, event.offset))
        for spans in by_class.values():
            assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))
        if NAMES.index("Moo") in by_class:
            assert set(by_class[NAMES.index("Moo")]) == set(by_class[NAMES.index("Animal")])
        assert scene.labels == sorted(by_class)


def test_kinds_of_classes_come_in_their_shares():
    picker = SoundPicker(SOUNDS)
    rng = np.random.default_rng(0)
    drawn = collections.Counter(picker.pick(rng).label for _ in range(4000))
    # 0.12 and 0.24 and 0.52 of what is there: no music.
    assert drawn["Speech"] / 4000 == pytest.approx(0.12 / 0.88, abs=0.02)
    assert drawn["Moo"] / 4000 == pytest.approx(0.52 / 0.88, abs=0.025)


@pytest.mark.parametrize("silence", [0.0, 1e-4])
def test_silence_around_a_sound_is_cut_off(silence):
    quiet = np.full(RATE, silence)
    first, last = active_span(np.concatenate([quiet, tone(0.5, 700), quiet]))
    assert abs(first - RATE) <= 320 and abs(last - 1.5 * RATE) <= 320
    assert active_span(np.zeros(100)) == (0, 100)


# --- the library -------------------------------------------------------------------------------


def test_packages_are_unpacked_and_read(tmp_path, monkeypatch):
    wav = tmp_path / "moo.wav"
    soundfile.write(wav, tone(1.0, 440), RATE)
    rows = [
        Recording("toy", "usr/a.rcc!/sounds/moo.wav", ("Moo",), "toy/moo", "CC0", "1"),
        Recording("toy", "usr/b.pk3!/moo.wav", ("Moo",), "toy/moo", "CC0", "1"),
        Recording("toy", "usr/bark.wav", ("Bark",), "toy/bark", "CC0", "1"),
        Recording("toy", "usr/gone.wav", ("Cat",), "toy/cat", "CC0", "1"),
        Recording("toy", "usr/silent.wav", ("Dog",), "toy/dog", "CC0", "1"),
    ]
    fetched = []

    def fetch(package, paths, folder):
        fetched.append((package, tuple(paths)))
        target = folder / package / "usr"
        if not target.exists():
            target.mkdir(parents=True)
            (target / "a.rcc").write_bytes(write_rcc({"moo.wav": wav.read_bytes()}, flags=1))
            with zipfile.ZipFile(target / "b.pk3", "w") as archive:
                archive.writestr("moo.wav", wav.read_bytes())
                archive.writestr("../../evil.wav", b"")
            (target / "bark.wav").write_bytes(wav.read_bytes())
            soundfile.write(target / "silent.wav", np.zeros(RATE, np.float32), RATE)

    monkeypatch.setattr(library_module, "read_recordings", lambda: rows)
    monkeypatch.setattr(library_module, "fetch_package", fetch)
    folder = tmp_path / "packages"
    for _ in range(2):  # The second time all is there.
        fetch_packages(folder, lambda package, count: None)
    files = ("usr/a.rcc", "usr/b.pk3", "usr/bark.wav", "usr/gone.wav", "usr/silent.wav")
    assert ("toy", files) in fetched
    sounds = [Sound(f"{one.package}/{one.path}", one.labels, one.group) for one in rows]
    library = Library(folder)
    assert library.missing(sounds) == [sounds[3]]
    assert list(library.load([*sounds[:3], sounds[4]])) == [sounds[4].name]
    for sound in sounds[:3]:
        np.testing.assert_allclose(library.read(sound), tone(1.0, 440), atol=2e-4)
    assert not list(tmp_path.rglob("evil.wav"))


def test_renders_of_nothing_are_left_out(tmp_path, monkeypatch):
    class Player:
        def __init__(self, path):
            pass

        def play(self, voice, seed):
            return tone(1.0, 440) * (voice.split == "train")

    monkeypatch.setattr(library_module, "Player", Player)
    sounds = [sound for sound in all_sounds() if sound.label == "Saxophone" and sound.split]
    library = Library(tmp_path)
    silent = [sound.name for sound in sounds if sound.split != "train"]
    assert list(library.load(sounds)) == silent
    assert len(library.read(sounds[0])) == RATE


# --- the data set ------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    from data_pipeline.sources.tfds.building import prepare
    from projects.box_model.scenes.builder import PkgAudio

    def build(name, workers):
        builder = PkgAudio(
            sounds=dict.fromkeys(SPLITS, SOUNDS),
            read=read_tone,
            counts={"train": 6, "validation": 2, "test": 3},
            workers=workers,
            data_dir=tmp_path / name,
        )
        prepare(builder)
        return builder

    return build


def test_the_data_set_is_the_same_each_time_and_its_tables_agree(build, tmp_path):
    from data_pipeline.psl.event_teacher import read_event_teacher
    from data_pipeline.sources.tfds.source import TfdsSource

    folder = build("once", 1).data_path
    again = build("again", 3).data_path
    files = sorted(path.name for path in folder.iterdir())
    assert "strong_test.tsv" in files
    for name in files:
        if "record" in name or name.endswith(".tsv"):
            assert (folder / name).read_bytes() == (again / name).read_bytes(), name
    alone = TfdsSource("pkg_audio", "sounds", tmp_path / "once")
    assert sorted(alone.clips.ids) == sorted(sound.name for sound in SOUNDS)
    for place, name in enumerate(alone.clips.ids):
        sound = next(sound for sound in SOUNDS if sound.name == name)
        np.testing.assert_allclose(alone.read(place), 0.5 * read_tone(sound), atol=1e-4)
        labels = np.flatnonzero(alone.clips.targets(np.array([place]), len(NAMES)))
        assert tuple(labels) == class_indices(sound.labels)
    source = TfdsSource("pkg_audio", "train", tmp_path / "once")
    assert sorted(source.clips.ids) == [f"train_{i:06d}" for i in range(6)]
    scenes = [mix_scene(SoundPicker(SOUNDS), read_tone, (0, i), vary_speed=True) for i in range(6)]
    events = read_event_teacher(folder / "strong_train.tsv", source.clips.ids)._events
    targets = source.clips.targets(np.arange(6), len(NAMES))
    for place, name in enumerate(source.clips.ids):
        scene = scenes[int(name[-6:])]
        np.testing.assert_allclose(source.read(place), scene.samples / 32_768, atol=1e-7)
        assert np.flatnonzero(targets[place]).tolist() == scene.labels
        read = [tuple(event) for event in events[place]]
        np.testing.assert_allclose(read, [tuple(e) for e in scene.events] or [], atol=1e-4)
    with open(folder / "strong_train.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["filename"] for row in rows} == set(source.clips.ids)
