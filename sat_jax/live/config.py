r"""The settings of a server: live.toml.

model = "SAT_T_2s"

[server]
listen = "0.0.0.0:8421"
token_file = "token"

[sources.garden]
url = "rtsp://viewer:${GARDEN_PASSWORD}@192.168.1.20/stream"

[mqtt]
url = "mqtt://sat@192.168.1.10"
password_file = "mqtt_password"

[rules.default]
watch = ["alarms", "Dog", "loud"]
"""

import importlib.metadata
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from sat_jax.errors import SatError
from sat_jax.events.rules_file import DEFAULT, RulesFile, read_toml
from sat_jax.live.sinks.mqtt import Broker, check_node, find_broker
from sat_jax.live.sinks.mqtt_payloads import Node
from sat_jax.live.sinks.webhook import WebhookSettings, check_webhook
from sat_jax.live.source_watch import SourceSettings

_VARIABLE = re.compile(r"\$\{(\w+)\}")


class ServerTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The table ``[server]``.

    Attributes:
      listen: HOST:PORT.
      insecure: whether anyone who reaches another address than localhost may use the server.
      token_file: file with the token that clients need.
      allowed_origins: further sites whose pages may use the server.
      trusted_proxies: addresses of proxies in front.
      max_streams: the most streams; 0 is what this machine can step in time.
      max_lag: seconds after which waiting sound is dropped.
      max_upload: the most bytes of an uploaded file.
      idle_timeout: seconds without a message after which a client is disconnected.
      resume_window: seconds for which a stream waits for a client that went away.
    """

    listen: str = "127.0.0.1:8421"
    insecure: bool = False
    token_file: str = ""
    allowed_origins: list[str] = []
    trusted_proxies: list[str] = []
    max_streams: Annotated[int, Meta(ge=0)] = 0
    max_lag: Annotated[float, Meta(gt=0)] = 4.0
    max_upload: Annotated[int, Meta(gt=0)] = 100 << 20
    idle_timeout: Annotated[float, Meta(gt=0)] = 30.0
    resume_window: Annotated[float, Meta(ge=0)] = 60.0


class SourceTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A table ``[sources.NAME]``, see `SourceSettings`."""

    url: str
    rules: str = DEFAULT
    channel: Annotated[int, Meta(ge=0)] | None = None
    enabled: bool = True


class MqttTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The table ``[mqtt]``.

    Attributes:
      url: mqtt://USER@HOST:PORT, or mqtts:// with TLS.
      password_file: file with the password.
      base: begins all topics.
      node: name of this server, after `base`; each server of a broker has its own.
      discovery: prefix of Home Assistant's discovery; "" for none.
      legacy_discovery: whether each entity is discovered by itself, for Home Assistant before
        2024.11.
    """

    url: str
    password_file: str = ""
    base: str = "sat"
    node: str = "home"
    discovery: str = "homeassistant"
    legacy_discovery: bool = False


class WebhookTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The table ``[webhook]``, see `WebhookSettings`."""

    url: str
    updates: bool = False
    muted: bool = False


class LiveFile(RulesFile, forbid_unknown_fields=True, kw_only=True):
    """A file live.toml."""

    model: str = ""
    chunk: Annotated[float, Meta(ge=0.16, le=3600)] | None = None
    server: ServerTable = ServerTable()
    sources: dict[str, SourceTable] = msgspec.field(default_factory=dict)
    mqtt: MqttTable | None = None
    webhook: WebhookTable | None = None
    events_file: str = ""

    def source_settings(self) -> dict[str, SourceSettings]:
        """Returns the sources, with variables of the environment in their addresses.

        Raises:
          SatError: a variable is not set, or a name is not fit for topics and addresses.
        """
        found = {}
        for name, table in self.sources.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
                raise SatError(f"sources.{name}: use letters, digits, - and _ in its name")
            found[name] = SourceSettings(
                url=expand(table.url, f"sources.{name}.url"),
                rules=table.rules,
                channel=table.channel,
                enabled=table.enabled,
            )
        return found

    def mqtt_settings(self) -> tuple[Broker, Node] | None:
        """Returns the broker and this server's name there; None if there is no ``[mqtt]``.

        Raises:
          SatError: a value is wrong, a variable is not set, or the password can't be read.
        """
        if (table := self.mqtt) is None:
            return None
        broker = find_broker(expand(table.url, "mqtt.url"), table.password_file)
        node = Node(
            base=table.base,
            name=table.node,
            version=importlib.metadata.version("sat-jax"),
            prefix=table.discovery,
            legacy=table.legacy_discovery,
        )
        check_node(node)
        return broker, node

    def webhook_settings(self) -> WebhookSettings | None:
        """Returns the settings of the webhook; None if there is none.

        Raises:
          SatError: the address is wrong, or a variable is not set.
        """
        if (table := self.webhook) is None:
            return None
        url = expand(table.url, "webhook.url")
        settings = WebhookSettings(url=url, updates=table.updates, muted=table.muted)
        check_webhook(settings)
        return settings


def read_live_file(path: str | Path) -> LiveFile:
    """Reads a file of settings.

    Raises:
      SatError: it can't be read, or has unknown keys or wrong values.
    """
    return read_toml(path, LiveFile)


def expand(text: str, key: str, environment: Mapping[str, str] = os.environ) -> str:
    """Puts variables of the environment into a text, given as ``${NAME}``.

    Args:
      text: such as an address with a password.
      key: of the text, for errors.
      environment: the variables.

    Raises:
      SatError: one is not set.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise SatError(f"{key}: the variable {match[1]} is not set: export it")
        return environment[match[1]]

    expanded = _VARIABLE.sub(value, text)
    if "${" in _VARIABLE.sub("", text):
        raise SatError(f"{key}: a ${{ without its name and }}: use ${{NAME}}")
    return expanded


def parse_address(text: str) -> tuple[str, int]:
    """Parses HOST:PORT, with an IPv6 host in brackets.

    Raises:
      SatError: it is not that.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise SatError(f"listen={text}: use HOST:PORT, such as 127.0.0.1:8421")
    return host.removeprefix("[").removesuffix("]"), int(port)
