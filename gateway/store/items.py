"""Channels and devices: what the operator made, kept in Redis and mirrored in memory.

Field names and defaults are flespi's (its REST documentation of channels and devices). A change is written to Redis
first; readers of the mirror never see what is not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import orjson
from attrs import asdict, define, field, fields

from gateway.errors import OperatorError
from gateway.store import keys
from gateway.store.connection import Client, store_errors

DAY = 86400
DEVICE_MESSAGES_TTL = 30 * DAY
"""flespi keeps a device's messages for a year, but on its own disks, and here it is the memory of Redis that fills."""
CONFIGURED = "configured"
"""Key of an item's metadata: what the configuration said of it when it was last read."""


@define
class Channel:
    """A listening point: one protocol, its endpoints in ``configuration["listen"]``."""

    id: int
    name: str
    protocol_id: int
    enabled: bool = True
    messages_ttl: int = DAY
    configuration: dict[str, Any] = field(factory=dict)
    metadata: dict[str, Any] = field(factory=dict)

    @property
    def listen(self) -> list[str]:
        """Endpoint strings."""
        return list(self.configuration.get("listen", []))

    @property
    def unknown_ident(self) -> str:
        """What happens to an ident that no device has: accept its messages, reject it, or register a device."""
        return str(self.configuration.get("unknown_ident", "accept"))


@define
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

    @property
    def ident(self) -> str:
        """What the tracker calls itself."""
        return str(self.configuration.get("ident", ""))


Item = TypeVar("Item", Channel, Device)


def _decode(kind: type[Item], text: bytes) -> Item:
    """An item as stored; keys of a later version are left alone."""
    known = {attribute.name for attribute in fields(kind)}
    return kind(**{key: value for key, value in orjson.loads(text).items() if key in known})


class Items:
    """The mirror. ``on_change`` is called after each change with the item's kind and id."""

    def __init__(self, redis: Client, device_messages_ttl: int = DEVICE_MESSAGES_TTL) -> None:
        self._redis = redis
        self._device_messages_ttl = device_messages_ttl
        self.channels: dict[int, Channel] = {}
        self.devices: dict[int, Device] = {}
        self._by_ident: dict[tuple[int, str], Device] = {}
        self.on_change: list[Callable[[str, int], None]] = []

    async def load(self) -> None:
        """Read everything from Redis. Raises StoreError."""
        with store_errors():
            channels = await self._redis.hvals(keys.CHANNELS)
            devices = await self._redis.hvals(keys.DEVICES)
        self.channels = {item.id: item for item in (_decode(Channel, text) for text in channels)}
        self.devices = {item.id: item for item in (_decode(Device, text) for text in devices)}
        self._by_ident = {(device.protocol_id, device.ident): device for device in self.devices.values()}

    def device_for(self, protocol_id: int, ident: str) -> Device | None:
        """The enabled device that this ident belongs to."""
        device = self._by_ident.get((protocol_id, ident))
        return device if device is not None and device.enabled else None

    def find_channel(self, name: str) -> Channel | None:
        """The channel of this name."""
        return next((channel for channel in self.channels.values() if channel.name == name), None)

    def find_device(self, protocol_id: int, ident: str) -> Device | None:
        """The device with this ident, be it enabled or not."""
        return self._by_ident.get((protocol_id, ident))

    async def create_channel(self, **values: Any) -> Channel:
        """Store a new channel. Raises StoreError."""
        channel = Channel(id=await self._next_id("channels"), **values)
        await self._write(keys.CHANNELS, channel)
        self.channels[channel.id] = channel
        self._tell("channels", [channel.id])
        return channel

    async def update_channel(self, channel: Channel) -> None:
        """Store a changed channel. Raises StoreError."""
        await self._write(keys.CHANNELS, channel)
        self.channels[channel.id] = channel
        self._tell("channels", [channel.id])

    async def create_device(self, *, ident: str, **values: Any) -> Device:
        """Store a new device. Raises OperatorError where the ident is taken, StoreError."""
        taken = self.find_device(values["protocol_id"], ident)
        if taken is not None:
            raise OperatorError(f"device {taken.id} ({taken.name}) has the ident {ident} already")
        ttl = self._device_messages_ttl
        defaults = {"messages_ttl": ttl, "metadata": {CONFIGURED: {"messages_ttl": ttl}}}
        new_id = await self._next_id("devices")
        return await self._claim(Device(**{**defaults, **values, "id": new_id, "configuration": {"ident": ident}}))

    async def update_device(self, device: Device) -> None:
        """Store a changed device; its ident stays. Raises StoreError."""
        await self._write(keys.DEVICES, device)
        self.devices[device.id] = self._by_ident[device.protocol_id, device.ident] = device
        self._tell("devices", [device.id])

    async def _claim(self, device: Device) -> Device:
        """Two connections may have waited for an id at the same time: the first to arrive here has the ident."""
        first = self._by_ident.setdefault((device.protocol_id, device.ident), device)
        if first is not device:
            return first
        try:
            await self._write(keys.DEVICES, device)
        except BaseException:
            del self._by_ident[device.protocol_id, device.ident]
            raise
        self.devices[device.id] = device
        self._tell("devices", [device.id])
        return device

    async def _next_id(self, kind: str) -> int:
        with store_errors():
            return int(await self._redis.hincrby(keys.NEXT_IDS, kind, 1))

    async def _write(self, key: str, item: Channel | Device) -> None:
        with store_errors():
            await self._redis.hset(key, str(item.id), orjson.dumps(asdict(item)))

    def _tell(self, kind: str, ids: Iterable[int]) -> None:
        for id in ids:
            for changed in self.on_change:
                changed(kind, id)
