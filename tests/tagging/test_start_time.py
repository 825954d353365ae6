"""When recordings began, by what their names say."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from sat_jax.errors import SatError
from sat_jax.tagging.options import Recording
from sat_jax.tagging.start_time import StartTime, clock_time

MOMENT = datetime(2026, 11, 29, 14, 3, 22)

BERLIN = timezone(timedelta(hours=1))


def began(rule: str, name: str) -> datetime | None:
    return StartTime(rule).of(Recording.named(name))


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("20261129_140322.WAV", None),  # AudioMoth
        ("card 2/SMM00007_20261129_140322.wav", None),  # Song Meter
        ("2026-11-29-birdnet-14:03:22.wav", None),  # BirdNET-Pi
        ("2026-11-29-birdnet-RTSP_1-14:03:22.wav", None),
        ("20261129T140322+1000_REC.flac", timezone(timedelta(hours=10))),  # Frontier Labs
        ("20261129T140322-0330.flac", timezone(-timedelta(hours=3, minutes=30))),
        ("20261129T140322Z.flac", UTC),
        ("2026-11-29 14-03-22.mkv", None),  # OBS
        ("Screen 2026-11-29 at 14.03.22.mov", None),
        ("Recording_20261129140322.m4a", None),
        ("20261129_140322ZOOM.wav", None),  # No zone: a word.
        ("20261129_140322-0001.wav", None),  # No zone: a number.
        ("20269999_999999_20261129_140322.wav", None),
        ("20250101_000000/20261129_140322.wav", None),  # Folders do not count.
    ],
)
def test_usual_names(name: str, zone: timezone | None) -> None:
    assert began("name", name) == MOMENT.replace(tzinfo=zone)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("%Y%m%d_%H%M%S", "20261129_140322.WAV", MOMENT),
        ("%y%m%d_%H%M", "261129_1403_02.mp3", MOMENT.replace(second=0)),  # Sony
        ("%y%m%d-%H%M%S", "261129-140322.WAV", MOMENT),  # Zoom
        ("%Y-%m-%d-birdnet-RTSP_1-%H:%M:%S", "2026-11-29-birdnet-RTSP_1-14:03:22.wav", MOMENT),
        ("%Y.%j %I.%M.%S %p", "x 2026.333 02.03.22 PM.ogg", MOMENT),
        ("(%d-%m-%Y)", "a.b(29-11-2026).wav", datetime(2026, 11, 29)),
        ("%Y%m%d%H%M%S%z", "20261129140322+0100.wav", MOMENT.replace(tzinfo=BERLIN)),
        ("100%%_%Y%m%d", "100%_20261129.wav", datetime(2026, 11, 29)),
        ("%Y%m%d", "999999999_20261340_20261129.wav", datetime(2026, 11, 29)),
    ],
)
def test_names_by_a_pattern(pattern: str, name: str, expected: datetime) -> None:
    assert began(pattern, name) == expected


def test_times_that_are_given() -> None:
    assert began("2026-11-29T14:03:22", "a.wav") == MOMENT
    assert began("2026-11-29 14:03:22Z", "-") == MOMENT.replace(tzinfo=UTC)
    assert began("now", "-") is None


def test_clock_times() -> None:
    assert clock_time(MOMENT, 0.0) == "2026-11-29T14:03:22.000"
    assert clock_time(MOMENT, 0.16 * 3) == "2026-11-29T14:03:22.480"
    assert clock_time(MOMENT.replace(tzinfo=UTC), 86_400.0004) == "2026-11-30T14:03:22.000+00:00"
    # A recorder's clock has no zone, so none is made up when the clocks change.
    assert clock_time(datetime(2026, 3, 29, 1, 59), 120.0) == "2026-03-29T02:01:00.000"


@pytest.mark.parametrize("rule", ["yesterday", "2026-11-29", "14:03", "%q", "%Y%m", "%H%M%S", "%"])
def test_rules_that_are_none(rule: str) -> None:
    with pytest.raises(SatError, match=re.escape(f"start_time={rule}")):
        StartTime(rule)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("name", "choir.flac"),
        ("name", "20261340_140322.wav"),
        ("name", "-"),
        ("%Y%m%d", "120261129.wav"),
        ("now", "choir.flac"),
    ],
)
def test_names_without_a_time(rule: str, name: str) -> None:
    with pytest.raises(SatError, match=f"{name}: .*start_time={rule}"):
        began(rule, name)


@pytest.mark.parametrize("rule", ["9999-12-31T23:59:59", "name", "%Y%m%d_%H%M%S"])
def test_a_year_in_which_time_ends_is_refused(rule: str) -> None:
    with pytest.raises(SatError, match=r"^99991231_235959.wav: begins in 9999: [^\n]*$"):
        began(rule, "99991231_235959.wav")
