"""Files of class names."""

import re
from pathlib import Path

import pytest

import sat_jax.labels
from sat_jax.errors import SatError
from sat_jax.labels import audioset_labels, read_labels


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
