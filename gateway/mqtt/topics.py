"""Topic names: flespi's (its documentation of MQTT topics), below a first part that the operator may choose."""

from __future__ import annotations

from attrs import field, frozen

from gateway.errors import ConfigError
from gateway.message import is_safe

MAX_LEVEL = 1024
"""Characters: longer than any ident or parameter name, and far below the 65,535 bytes of a topic (MQTT 5, 1.5.4)."""


def is_safe_level(text: str) -> bool:
    """Whether ``text`` can be one level of a topic: not empty, printable, without ``#``, ``+`` and ``/``."""
    return len(text) <= MAX_LEVEL and is_safe(text)


def _check_prefix(_instance: object, _attribute: object, prefix: str) -> None:
    if prefix.startswith("$") or not all(is_safe_level(level) for level in prefix.split("/")):
        raise ConfigError(
            f"mqtt.topic_prefix: {prefix!r} should be one or more levels, printable, without '#', '+' and a leading '$'"
        )


@frozen
class Topics:
    """The names below ``prefix``. Idents and parameter names must be safe (:func:`is_safe_level`): callers check."""

    prefix: str = field(default="flespi", validator=_check_prefix)

    def channel_message(self, channel_id: int, ident: str) -> str:
        """A message as the channel got it."""
        return f"{self.prefix}/message/gw/channels/{channel_id}/{ident}"

    def device_message(self, device_id: int) -> str:
        """A message as it was registered for a device."""
        return f"{self.prefix}/message/gw/devices/{device_id}"

    def telemetry(self, device_id: int, parameter: str) -> str:
        """Retained: the last value of a parameter, as a bare JSON value."""
        return f"{self.prefix}/state/gw/devices/{device_id}/telemetry/{parameter}"

    def item(self, kind: str, item_id: int) -> str:
        """Retained: the whole of an item, as JSON."""
        return f"{self.prefix}/state/gw/{kind}/{item_id}"

    def item_property(self, kind: str, item_id: int, name: str) -> str:
        """Retained: a property of an item (``kind``: channels, devices), as JSON."""
        return f"{self.prefix}/state/gw/{kind}/{item_id}/{name}"

    def setting(self, device_id: int, name: str) -> str:
        """Retained: a setting of a device, as JSON."""
        return f"{self.prefix}/state/gw/devices/{device_id}/settings/{name}"

    def log(self, kind: str, item_id: int, event: str) -> str:
        """What happened to an item, QoS 0."""
        return f"{self.prefix}/log/gw/{kind}/{item_id}/{event}"

    def status(self, client_id: str) -> str:
        """Retained: whether the gateway with this client id is connected (its birth and its will)."""
        return f"{self.prefix}/state/gw/status/{client_id}"
