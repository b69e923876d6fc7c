"""Channels and devices: what the operator made, kept in Redis and mirrored in memory.

Field names and defaults are flespi's (its REST documentation of channels and devices). A change is written to Redis
first; readers of the mirror never see what is not stored. Items are values: a change makes a new one from the old, one
change of an item at a time, so none is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import orjson
from attrs import frozen
from twisted.logger import Logger

from gateway.errors import IdentTaken, ItemError, NoSuchItem
from gateway.store import keys
from gateway.store.connection import Client, store_errors
from gateway.store.item import (
    DAY,
    DEVICE_MESSAGES_TTL,
    Channel,
    Device,
    Purge,
    checked,
    decoded,
    decoded_purge,
    encoded,
    encoded_purge,
)

__all__ = ["CHANNELS_MOST", "DAY", "DEVICE_MESSAGES_TTL", "Change", "Channel", "Device", "Items", "Purge"]

CHANNELS_MOST = 1000
"""Channels in all; each has at least one socket, and every reader asks Redis for all of their logs at once."""

Item: TypeAlias = Channel | Device
T = TypeVar("T", Channel, Device)


@frozen
class Change:
    """What happened to an item. ``kind``: channels, devices; created: ``old`` is None; deleted: ``new`` is None."""

    kind: str
    id: int
    old: Item | None
    new: Item | None


Around: TypeAlias = Callable[[Channel | None, Channel | None], AbstractAsyncContextManager[None]]
"""What is done around the storing of a channel's change: given the old and the new one."""


class Items:
    """The mirror. Each of ``on_change`` is called with a :class:`Change` after it is stored.

    ``around_channel`` is entered before a channel's change is stored, and left after it: with the error where it could
    not be. It may refuse the change by an error of its own; whoever listens on ports sets it.
    """

    log = Logger()

    def __init__(
        self,
        redis: Client,
        device_messages_ttl: int = DEVICE_MESSAGES_TTL,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._device_messages_ttl = device_messages_ttl
        self._now = now
        self.channels: dict[int, Channel] = {}
        self.devices: dict[int, Device] = {}
        self.purges: dict[tuple[str, int], Purge] = {}
        """Deleted items, by kind and id, until :mod:`gateway.store.purge` has removed what they left."""
        self.deleted_by_api: dict[tuple[str, str], dict[str, Any]] = {}
        """(kind, name or ident) of configured items that were deleted -> what the configuration had said of them."""
        self._by_ident: dict[tuple[int, str], Device] = {}
        self._claims: dict[tuple[int, str], asyncio.Future[None]] = {}
        self._new_channels = 0
        self._doubtful: set[tuple[str, int]] = set()
        self._locks: WeakValueDictionary[tuple[str, int], asyncio.Lock] = WeakValueDictionary()
        self.on_change: list[Callable[[Change], None]] = []
        self.around_channel: Around = lambda old, new: nullcontext()

    async def load(self) -> None:
        """Read everything from Redis. Raises StoreError."""
        with store_errors():
            channels = await self._redis.hvals(keys.CHANNELS)
            devices = await self._redis.hvals(keys.DEVICES)
            purges = await self._redis.hgetall(keys.PURGES)
            deleted = await self._redis.hgetall(keys.DELETED)
        self.channels = _by_id(decoded(Channel, text) for text in channels)
        self.devices = _by_id(decoded(Device, text) for text in devices)
        self.purges = {(purge.kind, purge.item.id): purge for purge in map(decoded_purge, purges.values())}
        self.deleted_by_api = {_place(name.decode()): orjson.loads(text) for name, text in deleted.items()}
        self._by_ident = {}
        for device in self.devices.values():
            first = self._by_ident.setdefault(device.key, device)
            if first is not device:
                self.log.error("devices {a} and {b} have the same ident: {b} gets nothing", a=first.id, b=device.id)

    def device_for(self, protocol_id: int, ident: str) -> Device | None:
        """The enabled device that this ident belongs to."""
        device = self._by_ident.get((protocol_id, ident))
        return device if device is not None and device.enabled else None

    def find_channel(self, name: str) -> Channel | None:
        """The first channel of this name."""
        return next((channel for channel in self.channels.values() if channel.name == name), None)

    def find_device(self, protocol_id: int, ident: str) -> Device | None:
        """The device with this ident, be it enabled or not."""
        return self._by_ident.get((protocol_id, ident))

    def logged_channels(self) -> dict[int, Channel]:
        """All channels whose log there is, by id: also the deleted ones that some reader is not done with."""
        deleted = {purge.item.id: purge.item for purge in self.purges.values() if isinstance(purge.item, Channel)}
        return {**deleted, **self.channels}

    def logged_channel(self, id: int) -> Channel | None:
        """The one of these with this id."""
        purge = self.purges.get(("channels", id))
        return self.channels.get(id) or (purge.item if purge is not None and isinstance(purge.item, Channel) else None)

    # -- channels

    async def create_channel(self, **values: Any) -> Channel:
        """Store a new channel. Raises ItemError, StoreError, and what ``around_channel`` raises."""
        if len(self.channels) + self._new_channels >= CHANNELS_MOST:
            raise ItemError(f"there are {CHANNELS_MOST} channels, which is the most that can be")
        self._new_channels += 1
        try:
            checked(Channel(id=0, **values))
            return await self._put_channel(None, Channel(id=await self._next_id("channels"), **values))
        finally:
            self._new_channels -= 1

    async def change_channel(self, id: int, change: Callable[[Channel], Channel]) -> Channel:
        """Store what ``change`` makes of the channel as it is then. Raises ItemError, StoreError, as creation does."""
        async with self._lock("channels", id):
            old = self._known(self.channels, id)
            new = checked(change(old))
            return old if new == old else await self._put_channel(old, new)

    async def delete_channel(self, id: int) -> Channel:
        """Remove it. Its log stays until the readers are done with it. Raises NoSuchItem, StoreError."""
        async with self._lock("channels", id):
            old = self._known(self.channels, id)
            async with self.around_channel(old, None):
                await self._remove("channels", old, old.configured.get("name"))
                del self.channels[id]
            self._tell("channels", old, None)
            return old

    async def _put_channel(self, old: Channel | None, new: Channel) -> Channel:
        async with self.around_channel(old, new):
            await self._write("channels", new)
            self.channels[new.id] = new
        self._tell("channels", old, new)
        return new

    # -- devices

    async def create_device(self, *, ident: str, **values: Any) -> Device:
        """Store a new device. Raises IdentTaken, ItemError, StoreError."""
        configuration = {**values.pop("configuration", {}), "ident": ident}
        ttl = self._device_messages_ttl
        defaults = {} if "messages_ttl" in values else {"messages_ttl": ttl, "configured": {"messages_ttl": ttl}}
        wanted = {**defaults, **values, "configuration": configuration}
        with self._claimed(checked(Device(id=0, **wanted))):
            return await self._put_device(None, Device(id=await self._next_id("devices"), **wanted))

    async def register_device(self, *, ident: str, **values: Any) -> Device:
        """The device with this ident, made if there is none yet: several connections may ask at the same time.

        Raises ItemError, StoreError.
        """
        key = (values["protocol_id"], ident)
        while (known := self._by_ident.get(key)) is None:
            claim = self._claims.get(key)
            if claim is None:
                return await self.create_device(ident=ident, **values)
            await asyncio.wait([claim])
        return known

    async def change_device(self, id: int, change: Callable[[Device], Device]) -> Device:
        """Store what ``change`` makes of the device as it is then. Raises IdentTaken, ItemError, StoreError."""
        async with self._lock("devices", id):
            old = self._known(self.devices, id)
            new = checked(change(old))
            if new == old:
                return old
            with self._claimed(new, old):
                return await self._put_device(old, new)

    async def delete_device(self, id: int) -> Device:
        """Remove it; what it leaves is purged afterwards. Raises NoSuchItem, StoreError."""
        async with self._lock("devices", id):
            old = self._known(self.devices, id)
            await self._remove("devices", old, old.ident if "name" in old.configured else None)
            del self.devices[id]
            self._release(old)
            self._tell("devices", old, None)
            return old

    @contextmanager
    def _claimed(self, new: Device, old: Device | None = None) -> Iterator[None]:
        """Nobody else may take the ident of ``new`` while it is stored. Raises IdentTaken."""
        if old is not None and old.key == new.key and self._by_ident.get(old.key) is old:
            yield
            return
        taken = self._by_ident.get(new.key)
        if taken is not None:
            raise IdentTaken(f"device {taken.id} ({taken.name}) has the ident {new.ident} already")
        if new.key in self._claims:
            raise IdentTaken(f"a device with the ident {new.ident} is being made just now")
        self._claims[new.key] = claim = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._claims[new.key]
            claim.set_result(None)

    async def _put_device(self, old: Device | None, new: Device) -> Device:
        await self._write("devices", new)
        self.devices[new.id] = new
        self._release(old)
        self._by_ident[new.key] = new
        self._tell("devices", old, new)
        return new

    def _release(self, old: Device | None) -> None:
        if old is not None and self._by_ident.get(old.key) is old:
            del self._by_ident[old.key]

    # -- what is stored

    async def mend(self) -> None:
        """Bring Redis in line with the mirror, where it did not say whether it took a change. Raises StoreError."""
        for kind, id in list(self._doubtful):
            async with self._lock(kind, id):
                mirror: dict[int, Any] = self.channels if kind == "channels" else self.devices
                if id in mirror:
                    await self._write(kind, mirror[id], revive=True)
                else:
                    with store_errors():
                        await self._redis.hdel(_key(kind), str(id))
                self._doubtful.discard((kind, id))

    async def purged(self, kind: str, id: int) -> None:
        """Nothing of this deleted item is left. Raises StoreError."""
        with store_errors():
            await self._redis.hdel(keys.PURGES, f"{kind}:{id}")
        self.purges.pop((kind, id), None)

    def _lock(self, kind: str, id: int) -> asyncio.Lock:
        """One change of an item at a time."""
        return self._locks.setdefault((kind, id), asyncio.Lock())

    def _known(self, mirror: dict[int, T], id: int) -> T:
        if id not in mirror:
            raise NoSuchItem(f"there is no item {id}, or no longer")
        return mirror[id]

    async def _next_id(self, kind: str) -> int:
        with store_errors():
            return int(await self._redis.hincrby(keys.NEXT_IDS, kind, 1))

    async def _write(self, kind: str, item: Item, *, revive: bool = False) -> None:
        with self._in_doubt(kind, item.id), store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(_key(kind), str(item.id), encoded(item))
                if revive:
                    pipe.hdel(keys.PURGES, f"{kind}:{item.id}")
                await pipe.execute()

    async def _remove(self, kind: str, item: Item, configured_as: str | None) -> None:
        """Remove the item, and remember what is to be purged, and what the configuration shall not make again."""
        purge = Purge(kind, item, self._now())
        with self._in_doubt(kind, item.id), store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hdel(_key(kind), str(item.id))
                pipe.hset(keys.PURGES, f"{kind}:{item.id}", encoded_purge(purge))
                if configured_as is not None:
                    pipe.hset(keys.DELETED, f"{kind}:{configured_as}", orjson.dumps(item.configured))
                await pipe.execute()
        self.purges[kind, item.id] = purge
        if configured_as is not None:
            self.deleted_by_api[kind, configured_as] = item.configured

    @contextmanager
    def _in_doubt(self, kind: str, id: int) -> Iterator[None]:
        """Redis may have done what it did not answer: remember to look after it."""
        try:
            yield
        except BaseException:
            self._doubtful.add((kind, id))
            raise
        self._doubtful.discard((kind, id))

    def _tell(self, kind: str, old: Item | None, new: Item | None) -> None:
        item = new if new is not None else old
        assert item is not None
        for changed in self.on_change:
            try:
                changed(Change(kind, item.id, old, new))
            except Exception:
                self.log.failure("somebody who was told of a change of {kind} {id}", kind=kind, id=item.id)


def _key(kind: str) -> str:
    return keys.CHANNELS if kind == "channels" else keys.DEVICES


def _by_id(items: Iterable[T]) -> dict[int, T]:
    """In the order in which they were made."""
    return {item.id: item for item in sorted(items, key=lambda item: item.id)}


def _place(name: str) -> tuple[str, str]:
    kind, _, rest = name.partition(":")
    return kind, rest
