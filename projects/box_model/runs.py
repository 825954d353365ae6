"""What the runs of a course of `projects.box_model.course` are called."""

DELAYS = (2, 1)
"""Seconds of the streaming models' chunks."""

SIZES = {"xs": "XS", "tiny": "T", "small": "S", "base": "B"}
"""What a size is called in configs, and in the names of streaming models."""

CLIP_MODEL = "vit"
"""What streaming models begin with."""

LONGER_CLIP_MODEL = "vit_longer"
"""The clip model that went on learning for as long as streaming models learn."""


def streaming_model(size: str, seconds: int) -> str:
    """A streaming model's name, such as "SAT_XS_2s" of the size "XS"."""
    return f"SAT_{size}_{seconds}s"


def without_memory(name: str) -> str:
    """What the model without a memory is called that learns as this streaming model does."""
    return name.replace("SAT", "no_memory")


def all_taggers(size: str) -> list[str]:
    """All models of a seed that are measured, of a size such as "XS"."""
    streaming = [streaming_model(size, seconds) for seconds in DELAYS]
    return [CLIP_MODEL, LONGER_CLIP_MODEL, *streaming, *map(without_memory, streaming)]
