"""Topics and messages for MQTT, and what Home Assistant needs to find them.

Below BASE/NODE, such as ``sat/home``:

    availability                online, offline (also if the server is killed)
    SOURCE/availability         whether its sound comes
    SOURCE/sound/SLUG/state     ON, OFF
    SOURCE/sound/SLUG/attributes  the newest event of the sound, as JSON
    SOURCE/event                an event that starts, as JSON; not retained
    SOURCE/level                dB; not retained
    SOURCE/listen/state         ON, OFF
    SOURCE/listen/set           takes ON, OFF

Each entity has topics of its own: a shared one would make entities reset each other.
"""

import dataclasses
import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sat_jax.events import EventMessage

ON, OFF = "ON", "OFF"
ONLINE, OFFLINE = "online", "offline"

_LEVEL_EXPIRES = 60
"""Seconds after which a level is unknown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """A server among those of a broker.

    Attributes:
      base: begins its topics.
      name: distinguishes servers.
      version: of the software.
      prefix: of Home Assistant's discovery topics; "" for no discovery.
      legacy: whether each entity is discovered by itself, for Home Assistant before 2024.11.
    """

    base: str = "sat"
    name: str = "home"
    version: str = ""
    prefix: str = "homeassistant"
    legacy: bool = False

    @property
    def availability(self) -> str:
        """Topic that tells whether the server runs."""
        return f"{self.base}/{self.name}/availability"

    def source(self, name: str) -> "SourceTopics":
        """Returns the topics of a source."""
        return SourceTopics(f"{self.base}/{self.name}/{name}")


@dataclasses.dataclass(frozen=True)
class SourceTopics:
    """The topics of a source.

    Attributes:
      root: begins them all.
    """

    root: str

    @property
    def availability(self) -> str:
        """Whether its sound comes."""
        return f"{self.root}/availability"

    @property
    def event(self) -> str:
        """Events that start."""
        return f"{self.root}/event"

    @property
    def level(self) -> str:
        """The level in dB."""
        return f"{self.root}/level"

    @property
    def listen(self) -> str:
        """Whether the source is switched on."""
        return f"{self.root}/listen/state"

    @property
    def listen_set(self) -> str:
        """Switches the source."""
        return f"{self.root}/listen/set"

    def state(self, slug: str) -> str:
        """Whether a sound is heard."""
        return f"{self.root}/sound/{slug}/state"

    def attributes(self, slug: str) -> str:
        """The newest event of a sound."""
        return f"{self.root}/sound/{slug}/attributes"


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Returns a word for each name, of letters, digits and _, for topics and ids.

    A word depends on the name alone. Only of names that are too much alike, such as the class
    "Glass" and the group "glass", all but the first get a suffix.
    """
    found: dict[str, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
        slug = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
        if not slug or slug in found.values():
            suffix = hashlib.sha256(name.encode()).hexdigest()[:6]
            slug = f"{slug or 'sound'}_{suffix}"
        found[name] = slug
    return found


def retained_topics(node: Node, source: str, sounds: Sequence[str]) -> set[str]:
    """Returns the topics of a source for which a broker keeps messages, but for discovery."""
    topics, words = node.source(source), slugs(sounds).values()
    found = {topics.availability, topics.listen}
    return found | {topic for w in words for topic in (topics.state(w), topics.attributes(w))}


def discovery(
    node: Node, source: str, sounds: Sequence[str], *, removed: Collection[str] = ()
) -> dict[str, dict[str, Any]]:
    """Returns the messages by which Home Assistant finds a source, by topic.

    Args:
      node: the server.
      source: name of the source.
      sounds: names of the sounds that are watched.
      removed: slugs of sounds that were watched before.
    """
    if not node.prefix:
        return {}
    device_id = f"sat_{node.name}_{source}"
    shared = {
        "device": {
            "identifiers": [device_id],
            "name": source,
            "manufacturer": "sat-jax",
            "sw_version": node.version,
        },
        "origin": {"name": "sat-jax", "sw_version": node.version},
    }
    components = _components(node, device_id, source, sounds)
    if node.legacy:
        return {
            _entity_topic(node, device_id, component["platform"], key): _without_platform(component)
            | shared
            for key, component in components.items()
        } | {_entity_topic(node, device_id, "binary_sensor", _key(slug)): {} for slug in removed}
    # A component of nothing but its platform is removed.
    gone = {_key(slug): {"platform": "binary_sensor"} for slug in removed}
    return {_device_topic(node, device_id): shared | {"components": components | gone}}


def event_payload(source: str, message: EventMessage) -> str:
    """Returns the message about an event that starts."""
    return to_json({"event_type": message.label, "stream": source} | message.as_json())


def attributes_payload(message: EventMessage) -> str:
    """Returns the newest event of a sound."""
    return to_json(message.as_json())


def to_json(message: Mapping[str, Any]) -> str:
    """Returns compact JSON, "" for an empty message."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")) if message else ""


def _components(
    node: Node, device_id: str, source: str, sounds: Sequence[str]
) -> dict[str, dict[str, Any]]:
    topics = node.source(source)
    up = {
        "availability": [{"topic": node.availability}, {"topic": topics.availability}],
        "availability_mode": "all",
    }
    components: dict[str, dict[str, Any]] = {}
    for name, slug in slugs(sounds).items():
        components[_key(slug)] = {
            "platform": "binary_sensor",
            "name": name,
            "device_class": "sound",
            "state_topic": topics.state(slug),
            "json_attributes_topic": topics.attributes(slug),
        } | up
    components["event"] = {
        "platform": "event",
        "name": "Event",
        "event_types": list(sounds),
        "state_topic": topics.event,
    } | up
    components["level"] = {
        "platform": "sensor",
        "name": "Level",
        "device_class": "sound_pressure",
        "state_class": "measurement",
        "unit_of_measurement": "dB",
        "expire_after": _LEVEL_EXPIRES,
        "state_topic": topics.level,
    } | up
    components["listen"] = {
        "platform": "switch",
        "name": "Listen",
        "command_topic": topics.listen_set,
        "state_topic": topics.listen,
        "availability": [{"topic": node.availability}],
    }
    return {
        key: component | {"unique_id": f"{device_id}.{key}"}
        for key, component in components.items()
    }


def _key(slug: str) -> str:
    return f"sound_{slug}"


def _without_platform(component: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in component.items() if key != "platform"}


def _device_topic(node: Node, device_id: str) -> str:
    return f"{node.prefix}/device/{device_id}/config"


def _entity_topic(node: Node, device_id: str, platform: str, key: str) -> str:
    return f"{node.prefix}/{platform}/{device_id}/{key}/config"
