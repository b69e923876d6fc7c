"""Channels, devices, plugins and streams: what the operator made, kept in Redis and mirrored in memory.

Field names and defaults are flespi's (its REST documentation of channels and devices). A change is written to Redis
first; readers of the mirror never see what is not stored. Items are values: a change makes a new one from the old, one
change of an item at a time, so none is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from attrs import frozen
from twisted.logger import Logger

from gateway.errors import IdentTaken, ItemError, NoSuchItem
from gateway.store.connection import Client
from gateway.store.item import DAY, DEVICE_MESSAGES_TTL, KINDS, Channel, Device, Item, Plugin, Purge, Stream, checked
from gateway.store.item_records import ItemRecords
from gateway.store.links import Link, Links
from gateway.store.pauses import with_pauses
from gateway.store.whole import whole

__all__ = [
    "CHANNELS_MOST",
    "DAY",
    "DEVICE_MESSAGES_TTL",
    "Change",
    "Channel",
    "Device",
    "Item",
    "Items",
    "Link",
    "Links",
    "Plugin",
    "Purge",
    "Stream",
]

CHANNELS_MOST = 1000
"""Channels in all; each has at least one socket, and every reader asks Redis for all of their logs at once."""

OTHERS_MOST = 1000
"""Plugins in all, and streams in all; each stream reads the logs by itself."""

T = TypeVar("T", Channel, Device, Plugin, Stream)


@frozen
class Change:
    """What happened to an item. ``kind``: channels, devices, plugins, streams.

    Created: ``old`` is None; deleted: ``new`` is None.
    """

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
        self.records = ItemRecords(redis, now)
        self._now = now
        self._device_messages_ttl = device_messages_ttl
        self.channels: dict[int, Channel] = {}
        self.devices: dict[int, Device] = {}
        self.plugins: dict[int, Plugin] = {}
        self.streams: dict[int, Stream] = {}
        self.under_way: set[asyncio.Future[Any]] = set()
        self.links = Links(redis, self._exists, now=now, under_way=self.under_way)
        self._by_ident: dict[tuple[int, str], Device] = {}
        self._claims: dict[tuple[int, str], asyncio.Future[None]] = {}
        self._new_channels = 0
        self._locks: WeakValueDictionary[tuple[str, int], asyncio.Lock] = WeakValueDictionary()
        self.on_change: list[Callable[[Change], None]] = []
        self.around_channel: Around = lambda old, new: nullcontext()

    async def load(self) -> None:
        """Read everything from Redis. Raises StoreError."""
        loaded = await self.records.load()
        self.channels, self.devices = loaded["channels"], loaded["devices"]
        self.plugins, self.streams = loaded["plugins"], loaded["streams"]
        await self.links.load()
        self._by_ident = {}
        for device in self.devices.values():
            first = self._by_ident.setdefault(device.key, device)
            if first is not device:
                self.log.error("devices {a} and {b} have the same ident: {b} gets nothing", a=first.id, b=device.id)

    def of(self, kind: str) -> dict[int, Any]:
        """The mirror of a kind: channels, devices, plugins, streams."""
        mirrors: dict[str, dict[int, Any]] = {
            "channels": self.channels,
            "devices": self.devices,
            "plugins": self.plugins,
            "streams": self.streams,
        }
        return mirrors[kind]

    def _exists(self, kind: str, id: int) -> bool:
        return kind in KINDS and id in self.of(kind)

    @property
    def purges(self) -> dict[tuple[str, int], Purge]:
        """Deleted items, by kind and id, until :mod:`gateway.store.purge` has removed what they left."""
        return self.records.purges

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

    @whole
    async def create_channel(self, **values: Any) -> Channel:
        """Store a new channel. Raises ItemError, StoreError, and what ``around_channel`` raises."""
        if len(self.channels) + self._new_channels >= CHANNELS_MOST:
            raise ItemError(f"there are {CHANNELS_MOST} channels, which is the most that can be")
        self._new_channels += 1
        try:
            checked(Channel(id=0, **values))
            return await self._put_channel(None, Channel(id=await self.records.next_id("channels"), **values))
        finally:
            self._new_channels -= 1

    @whole
    async def change_channel(self, id: int, change: Callable[[Channel], Channel]) -> Channel:
        """Store what ``change`` makes of the channel as it is then. Raises ItemError, StoreError, as creation does."""
        async with self._lock("channels", id):
            old = self._known(self.channels, id)
            new = checked(change(old))
            return old if new == old else await self._put_channel(old, new)

    @whole
    async def delete_channel(self, id: int) -> Channel:
        """Remove it. Its log stays until the readers are done with it. Raises NoSuchItem, StoreError."""
        async with self._lock("channels", id):
            old = self._known(self.channels, id)
            async with self.around_channel(old, None):
                await self._remove("channels", old, old.configured.get("name"))
            self._tell("channels", old, None)
            return old

    async def _put_channel(self, old: Channel | None, new: Channel) -> Channel:
        async with self.around_channel(old, new):
            await self.records.write("channels", new)
            self.channels[new.id] = new
        self._tell("channels", old, new)
        return new

    # -- devices

    @whole
    async def create_device(self, *, ident: str, **values: Any) -> Device:
        """Store a new device. Raises IdentTaken, ItemError, StoreError."""
        configuration = {**values.pop("configuration", {}), "ident": ident}
        ttl = self._device_messages_ttl
        defaults = {} if "messages_ttl" in values else {"messages_ttl": ttl, "configured": {"messages_ttl": ttl}}
        wanted = {**defaults, **values, "configuration": configuration}
        with self._claimed(checked(Device(id=0, **wanted))):
            return await self._put_device(None, Device(id=await self.records.next_id("devices"), **wanted))

    async def register_device(self, *, ident: str, **values: Any) -> Device:
        """The device with this ident, made if there is none yet: several connections may ask at the same time.

        Raises ItemError, StoreError.
        """
        key = (values["protocol_id"], ident)
        while (known := self._by_ident.get(key)) is None:
            claim = self._claims.get(key)
            if claim is not None:
                await asyncio.wait([claim])
                continue
            with suppress(IdentTaken):  # somebody was faster: it is known now, or being made
                return await self.create_device(ident=ident, **values)
        return known

    @whole
    async def change_device(self, id: int, change: Callable[[Device], Device]) -> Device:
        """Store what ``change`` makes of the device as it is then. Raises IdentTaken, ItemError, StoreError."""
        async with self._lock("devices", id):
            old = self._known(self.devices, id)
            new = checked(change(old))
            if new == old:
                return old
            with self._claimed(new, old):
                return await self._put_device(old, new)

    @whole
    async def delete_device(self, id: int) -> Device:
        """Remove it; what it leaves is purged afterwards. Raises NoSuchItem, StoreError."""
        async with self._lock("devices", id):
            old = self._known(self.devices, id)
            await self._remove("devices", old, old.ident if "name" in old.configured else None)
            self._release(old)
            self._tell("devices", old, None)
            return old

    # -- plugins and streams

    @whole
    async def create_plugin(self, **values: Any) -> Plugin:
        """Store a new plugin. Raises ItemError, StoreError."""
        return await self._create("plugins", Plugin, values)

    @whole
    async def create_stream(self, **values: Any) -> Stream:
        """Store a new stream. Raises ItemError, StoreError."""
        stream = Stream(id=0, **values)
        return await self._create(
            "streams", Stream, {**values, "pauses": with_pauses(None, stream, self._now()).pauses}
        )

    async def _create(self, kind: str, make: type[T], values: dict[str, Any]) -> T:
        if len(self.of(kind)) >= OTHERS_MOST:
            raise ItemError(f"there are {OTHERS_MOST} {kind}, which is the most that can be")
        checked(make(id=0, **values))
        return await self._put(kind, None, make(id=await self.records.next_id(kind), **values))

    @whole
    async def change_plugin(self, id: int, change: Callable[[Plugin], Plugin]) -> Plugin:
        """Store what ``change`` makes of the plugin as it is then. Raises ItemError, StoreError."""
        return await self._change("plugins", id, change)

    @whole
    async def change_stream(self, id: int, change: Callable[[Stream], Stream]) -> Stream:
        """The same of a stream, whose pauses are kept here."""
        return await self._change("streams", id, lambda old: with_pauses(old, change(old), self._now()))

    async def _change(self, kind: str, id: int, change: Callable[[T], T]) -> T:
        async with self._lock(kind, id):
            old: T = self._known(self.of(kind), id)
            new = checked(change(old))
            return old if new == old else await self._put(kind, old, new)

    async def _put(self, kind: str, old: T | None, new: T) -> T:
        await self.records.write(kind, new)
        self.of(kind)[new.id] = new
        self._tell(kind, old, new)
        return new

    @whole
    async def delete_other(self, kind: str, id: int) -> Plugin | Stream:
        """Remove a plugin or a stream (``kind``: plugins, streams). Raises NoSuchItem, StoreError."""
        async with self._lock(kind, id):
            old: Plugin | Stream = self._known(self.of(kind), id)
            await self._remove(kind, old, None)
            self._tell(kind, old, None)
            return old

    async def _remove(self, kind: str, old: Item, configured_as: str | None) -> None:
        """From Redis and the mirror, with its links."""
        with self.links.leaving(kind, old.id) as names:
            await self.records.remove(kind, old, configured_as, names)
        del self.of(kind)[old.id]
        self.links.forget(kind, old.id)

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
        await self.records.write("devices", new)
        self.devices[new.id] = new
        self._release(old)
        self._by_ident[new.key] = new
        self._tell("devices", old, new)
        return new

    def _release(self, old: Device | None) -> None:
        if old is not None and self._by_ident.get(old.key) is old:
            del self._by_ident[old.key]

    # -- one change at a time

    async def mend(self) -> None:
        """Bring Redis in line with the mirror, where it did not say whether it took a change. Raises StoreError."""
        for kind, id in list(self.records.doubtful):
            async with self._lock(kind, id):
                await self.records.mend(kind, id, self.of(kind).get(id))
        await self.links.mend()

    async def settle(self, timeout: float) -> None:
        """Wait for the changes under way, ``timeout`` seconds at most: before what they need is stopped."""
        if self.under_way:
            await asyncio.wait(self.under_way, timeout=timeout)

    def _lock(self, kind: str, id: int) -> asyncio.Lock:
        """One change of an item at a time."""
        return self._locks.setdefault((kind, id), asyncio.Lock())

    def _known(self, mirror: dict[int, T], id: int) -> T:
        if id not in mirror:
            raise NoSuchItem(f"there is no item {id}, or no longer")
        return mirror[id]

    def _tell(self, kind: str, old: Item | None, new: Item | None) -> None:
        item = new if new is not None else old
        assert item is not None
        for changed in self.on_change:
            try:
                changed(Change(kind, item.id, old, new))
            except Exception:
                self.log.failure("somebody who was told of a change of {kind} {id}", kind=kind, id=item.id)
