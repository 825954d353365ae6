"""TensorBoard's files, read record by record."""

import re
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from sat_jax.errors import SatError
from sat_jax.training.curves import Curves


def masked_crc(data):
    """CRC-32C bit by bit, rotated and shifted as TFRecord files have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    while data:
        (length, length_crc), data = struct.unpack("<QI", data[:12]), data[12:]
        (crc,) = struct.unpack("<I", data[length : length + 4])
        assert length_crc == masked_crc(struct.pack("<Q", length))
        assert crc == masked_crc(data[:length])
        yield data[:length]
        data = data[length + 4 :]


def test_points_are_those_that_were_added(tmp_path):
    curves = Curves(tmp_path / "tensorboard", start=7)
    curves.add(8, {"train/loss": 0.5, "train/lr": 0.25})
    curves.add(9, {"validation/mAP": 0.125})
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = [Event.FromString(record) for record in records(file.read_bytes())]
    curves.close()
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].step, events[1].session_log.status) == (8, SessionLog.START)
    points = [(e.step, v.tag, v.simple_value) for e in events[2:] for v in e.summary.value]
    assert points == [
        (8, "train/loss", 0.5),
        (8, "train/lr", 0.25),
        (9, "validation/mAP", 0.125),
    ]


def test_a_full_disk_is_named(tmp_path, file_size_limit):
    curves = Curves(tmp_path / "tensorboard", start=0)
    file_size_limit(1000)
    with pytest.raises(SatError, match=re.escape(str(tmp_path / "tensorboard"))):
        for step in range(100):
            curves.add(step, {"train/loss": 0.5})
    curves.close()
