"""Qt resource files, written as Qt's documentation describes them."""

import pytest

from projects.box_model.scenes.archives import read_rcc
from projects.box_model.tests.scenes.made_up import write_rcc
from sat_jax.errors import SatError


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("flags", [0, 1])
def test_files_are_read_back(tmp_path, version, flags):
    files = {"moo.ogg": b"moo" * 50, "bähh.ogg": b"", "x": bytes(range(256))}
    path = tmp_path / "x.rcc"
    path.write_bytes(write_rcc(files, version=version, flags=flags))
    assert dict(read_rcc(path)) == {f"sounds/{name}": data for name, data in files.items()}


@pytest.mark.parametrize(
    "change", [lambda data: b"RIFF" + data[4:], lambda data: data[:60], lambda data: data[:-40]]
)
def test_damaged_files_are_named(tmp_path, change):
    path = tmp_path / "x.rcc"
    path.write_bytes(change(write_rcc({"moo.ogg": b"moo" * 50}, flags=1)))
    with pytest.raises(SatError, match=r"x\.rcc"):
        dict(read_rcc(path))


def test_zstd_is_refused(tmp_path):
    path = tmp_path / "x.rcc"
    path.write_bytes(write_rcc({"moo.ogg": b"moo"}, flags=4))
    with pytest.raises(SatError, match=r"x\.rcc.*zstd"):
        dict(read_rcc(path))
