"""Files of class names, and the choice of classes."""

import csv
import re
from pathlib import Path

import pytest

import sat_jax.labels
from sat_jax.errors import SatError
from sat_jax.labels import audioset_ids, audioset_labels, read_labels, select_classes


def test_labels_of_either_layout(tmp_path: Path) -> None:
    names = [f"sound, {i}" for i in range(11)]
    (tmp_path / "plain.txt").write_text("\ufeff" + "\n".join(names) + "\n\n", encoding="utf-8")
    rows = [f'{i},/m/{i},"{name}"' for i, name in enumerate(names)]
    (tmp_path / "table.csv").write_text(
        "\n".join(["index,mid,display_name", *reversed(rows)]), encoding="utf-8"
    )
    for file in ("plain.txt", "table.csv"):
        assert read_labels(tmp_path / file) == tuple(names)


def test_audiosets_own_list_of_labels() -> None:
    source = Path(sat_jax.labels.__file__).parent / "data" / "class_labels_indices.csv"
    assert read_labels(source) == tuple(label.name for label in audioset_labels())


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "empty"),
        (b"index,mid,display_name\n", "rows"),
        (b"index,mid,display_name\n0,x,a\n1,y\n", "index 1"),
        (b"index,mid,display_name\n0,x,a\n2,x,c\n", "index '1'"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_bad_labels(content: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(SatError, match=re.escape(str(path))) as caught:
        read_labels(path)
    assert named in str(caught.value)


NAMES = [label.name for label in audioset_labels()]
DATA = Path(sat_jax.labels.__file__).parent / "data"


def _below(name: str) -> set[str]:
    """A class and all below it, by walking down the table of parents."""
    with (DATA / "ontology.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {row["mid"]: row["display_name"] for row in rows}

    def walk(mid: str) -> set[str]:
        children = [row["mid"] for row in rows if mid in row["parents"].split()]
        return {names[mid]}.union(*(walk(child) for child in children))

    return walk(next(mid for mid, each in names.items() if each == name))


def test_the_ontology_has_audiosets_classes_by_the_same_ids() -> None:
    assert audioset_ids(NAMES) == tuple(label.mid for label in audioset_labels())
    assert audioset_ids(["Dog", "my dog"]) == ("/m/0bt9lr", "")
    assert len(_below("Animal")) == 73  # as counted in Google's ontology.json
    assert {"Dog", "Bow-wow", "Purr"} < _below("Animal")


@pytest.mark.parametrize(
    ("only", "without", "expected"),
    [
        ((), (), set(NAMES)),
        (["Dog"], (), {"Dog"}),
        (["dog", "BIRD VOCALIZATION, BIRD CALL, BIRD SONG"], (), {"Dog", NAMES[112]}),
        (["/m/0bt9lr", "/t/dd00125"], (), {"Dog", "Inside, small room"}),
        (["*Animal"], (), _below("Animal") & set(NAMES)),
        (["*/m/0jbk"], (), _below("Animal") & set(NAMES)),
        (["*human sounds"], (), _below("Human sounds") & set(NAMES)),  # No label of its own.
        (["*Animal"], ["*Dog", "cat"], (_below("Animal") - _below("Dog") - {"Cat"}) & set(NAMES)),
        ((), ["*Music"], set(NAMES) - _below("Music")),
    ],
)
def test_chosen_classes(only: list[str], without: list[str], expected: set[str]) -> None:
    indices = select_classes(NAMES, only=only, without=without)
    assert indices == tuple(sorted(indices))
    assert {NAMES[index] for index in indices} == expected


def test_own_classes_are_chosen_by_name() -> None:
    names = ["saw", "*star", "Dog", "SAW"]
    assert select_classes(names, only=["saw"]) == (0, 3)
    assert select_classes(names, only=["*star"]) == (1,)
    assert select_classes(names, only=["*Animal"], without=["*star"]) == (2,)


@pytest.mark.parametrize(
    ("only", "without", "named"),
    [
        (["Dgo"], (), "'Dgo': did you mean 'Dog'?"),
        ((), ["bird cal"], "'bird cal': did you mean 'Bird vocalization, bird call, bird song'?"),
        (["*Anmial"], (), "'*Anmial': did you mean '*Animal'?"),
        (["/m/none"], (), "'/m/none'"),
        ([""], (), "''"),
        (["*"], (), "'*'"),
        (["Human sounds"], (), "'*Human sounds'"),
        (["*Yak"], (), "'*Yak'"),
        (["Dog"], ["*Animal"], "*Animal"),
    ],
)
def test_classes_that_cannot_be_chosen(only: list[str], without: list[str], named: str) -> None:
    with pytest.raises(SatError, match=re.escape(named)):
        select_classes(NAMES, only=only, without=without)
