"""What channels, devices, plugins and streams are, and what they may hold.

Field names and defaults are flespi's (its REST documentation of these items).
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias, TypeVar

import orjson
from attrs import asdict, field, fields, frozen

from gateway.errors import ItemError
from gateway.protocols.catalog import PROTOCOLS

DAY = 86400
DEVICE_MESSAGES_TTL = 30 * DAY
"""flespi keeps a device's messages for a year, but on its own disks, and here it is the memory of Redis that fills."""
NAME_MOST = 256
"""Characters of a name."""
JSON_MOST = 64 * 1024
"""Bytes that an item's configuration, or its metadata, may take as JSON."""
IDENT = re.compile(r"[!-~]{1,64}")
NOT_IN_IDENT = frozenset("#+/")
"""They would break the topics that an ident is part of."""
OLD_CONFIGURED = "configured"
"""Where the first version kept ``configured``: in the metadata, which the API can replace."""


@frozen
class Channel:
    """A listening point: one protocol, its endpoints in ``configuration["listen"]``."""

    id: int
    name: str
    protocol_id: int
    enabled: bool = True
    messages_ttl: int = DAY
    configuration: dict[str, Any] = field(factory=dict)
    metadata: dict[str, Any] = field(factory=dict)
    configured: dict[str, Any] = field(factory=dict)
    """What the gateway's configuration said of it when it was last read; the API does not show it."""

    @property
    def listen(self) -> list[str]:
        """Endpoint strings."""
        return list(self.configuration.get("listen", []))

    @property
    def unknown_ident(self) -> str:
        """What happens to an ident that no device has: accept its messages, reject it, or register a device."""
        return str(self.configuration.get("unknown_ident", "accept"))


@frozen
class Device:
    """A registered tracker, found by ident and protocol."""

    id: int
    name: str
    protocol_id: int
    device_type_id: int
    enabled: bool = True
    messages_ttl: int = DEVICE_MESSAGES_TTL
    messages_rotate: int = 0
    """Bytes that its messages may take, the oldest going first; 0: no such limit."""
    configuration: dict[str, Any] = field(factory=dict)
    metadata: dict[str, Any] = field(factory=dict)
    configured: dict[str, Any] = field(factory=dict)
    """As a channel's."""

    @property
    def ident(self) -> str:
        """What the tracker calls itself."""
        return str(self.configuration.get("ident", ""))

    @property
    def identity(self) -> dict[str, Any]:
        """What each of its messages says of it."""
        return {"device.id": self.id, "device.name": self.name, "device.type.id": self.device_type_id}

    @property
    def key(self) -> tuple[int, str]:
        """What no other device has: protocol id and ident."""
        return self.protocol_id, self.ident


@frozen
class Plugin:
    """What a message of the devices that it is assigned to goes through before it is registered."""

    id: int
    name: str
    type: str
    """The name of the type's file with hyphens, such as ``msg-erase``."""
    enabled: bool = True
    priority: int = 0
    """Plugins of a device run by it, the lowest first; of the same priority, by id."""
    validate_message: str = ""
    """An expression; messages for which it is not true pass the plugin by. Empty: none does."""
    configuration: dict[str, Any] = field(factory=dict)
    metadata: dict[str, Any] = field(factory=dict)


@frozen
class Stream:
    """What carries messages to another system, from a place of its own in the logs."""

    id: int
    name: str
    protocol: str
    """The name of the type's file, such as ``http``."""
    enabled: bool = True
    queue_ttl: int = DAY
    """Seconds that a message waits for its delivery at most."""
    validate_message: str = ""
    """An expression; messages for which it is not true are not delivered. Empty: all are."""
    configuration: dict[str, Any] = field(factory=dict)
    metadata: dict[str, Any] = field(factory=dict)
    pauses: list[list[float | None]] = field(factory=list)
    """When it was disabled, and enabled again: what came meanwhile is not for it. UNIX seconds; None: it still is."""


Item: TypeAlias = Channel | Device | Plugin | Stream
KINDS: dict[str, type[Item]] = {"channels": Channel, "devices": Device, "plugins": Plugin, "streams": Stream}
"""As flespi's paths and topics call them."""

T = TypeVar("T", Channel, Device, Plugin, Stream)


def checked(item: T) -> T:
    """``item``, if it can be stored. Raises ItemError, which names the field."""
    if len(item.name) > NAME_MOST:
        raise ItemError(f"name has {len(item.name)} characters, {NAME_MOST} is the most", "name")
    for name in ("configuration", "metadata"):
        size = len(_json(getattr(item, name), name))
        if size > JSON_MOST:
            raise ItemError(f"{name} takes {size} bytes as JSON, {JSON_MOST} is the most", name)
    if isinstance(item, Plugin | Stream):
        return item
    protocol = PROTOCOLS.get(item.protocol_id)
    if protocol is None:
        raise ItemError(f"protocol {item.protocol_id} not found", "protocol_id")
    if isinstance(item, Device):
        if item.device_type_id not in protocol.device_types():
            raise ItemError(f"device type {item.device_type_id} not found", "device_type_id")
        _check_ident(item.ident)
    return item


def _check_ident(ident: str) -> None:
    if not IDENT.fullmatch(ident) or NOT_IN_IDENT & set(ident):
        raise ItemError(
            f"ident {ident[:64]!r} should be 1 to 64 printable ASCII characters without spaces, '#', '+' and '/'",
            "configuration.ident",
        )


def _json(value: Any, name: str) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as error:  # a number beyond 64 bits, half a surrogate pair, objects nested too deep
        raise ItemError(f"{name} cannot be stored as JSON: {error}", name) from None


def encoded(item: Item) -> bytes:
    """As it is stored."""
    return orjson.dumps(asdict(item, recurse=False))


def decoded(kind: type[Any], text: bytes) -> Any:
    """An item as stored; keys of a later version are left alone."""
    known = {attribute.name for attribute in fields(kind)}
    values = {key: value for key, value in orjson.loads(text).items() if key in known}
    if "configured" not in values and OLD_CONFIGURED in values.get("metadata", {}):
        values["configured"] = values["metadata"].pop(OLD_CONFIGURED)
    return kind(**values)


@frozen
class Purge:
    """A deleted item some of whose keys may be left. ``at``: when it was deleted, UNIX seconds."""

    kind: str
    item: Item
    at: float


def encoded_purge(purge: Purge) -> bytes:
    """As it is stored."""
    return orjson.dumps({"kind": purge.kind, "at": purge.at, "item": orjson.Fragment(encoded(purge.item))})


def decoded_purge(text: bytes) -> Purge:
    """As :func:`encoded_purge` stored it."""
    stored = orjson.loads(text)
    item_text = orjson.dumps(stored["item"])
    return Purge(stored["kind"], decoded(KINDS[stored["kind"]], item_text), stored["at"])
