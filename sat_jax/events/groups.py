"""Groups of classes that users ask for, as one sound each."""

from collections.abc import Mapping, Sequence

GROUPS: Mapping[str, Sequence[str]] = {
    "alarms": (
        "Alarm",
        "Smoke detector, smoke alarm",
        "Fire alarm",
        "Car alarm",
        "Alarm clock",
        "Buzzer",
        "*Siren",
    ),
    "baby": ("Baby cry, infant cry", "Baby laughter"),
    "pets": ("*Domestic animals, pets",),
    "glass": ("*Glass", "Shatter"),
    "people": ("*Human voice", "*Human group actions"),
    "impact": ("*Generic impact sounds", "*Explosion", "Slam"),
}
"""Classes by group, given as for `sat_jax.labels.select_classes`."""
