"""The text formats by name. Command lines read the table: no numpy or JAX is imported."""

from sat_jax.errors import SatError
from sat_jax.tagging.event_formats import (
    AudacityFormat,
    EventsCsvFormat,
    EventsFormat,
    RavenFormat,
    SrtFormat,
)
from sat_jax.tagging.output_format import OutputFormat
from sat_jax.tagging.tag_formats import CsvFormat, JsonlFormat, TextFormat

FORMATS: dict[str, type[OutputFormat]] = {
    "text": TextFormat,
    "jsonl": JsonlFormat,
    "csv": CsvFormat,
    "events": EventsFormat,
    "events-csv": EventsCsvFormat,
    "srt": SrtFormat,
    "audacity": AudacityFormat,
    "raven": RavenFormat,
}
"""The formats by name; the choices of --format."""


def check_format(name: str, num_recordings: int) -> None:
    """Checks that a format exists and can hold so many recordings.

    Args:
      name: a key of `FORMATS`.
      num_recordings: recordings in one output.

    Raises:
      SatError: it cannot.
    """
    if name not in FORMATS:
        raise SatError(f"unknown format {name!r}: use one of {', '.join(FORMATS)}")
    if FORMATS[name].single_recording and num_recordings > 1:
        others = ", ".join(key for key, value in FORMATS.items() if not value.single_recording)
        raise SatError(
            f"format {name} holds one recording and {num_recordings} are given: "
            f"use --output_dir, or one of {others}"
        )
