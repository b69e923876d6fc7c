"""What happens to a message at device level.

The registrar reads the channel logs and, for each message of a registered ident: adds the device's identity, applies
the position rules, merges it into the device's messages, updates the telemetry, and appends it to the device log. The
whole batch and the registrar's own cursor are one transaction, so a crash repeats nothing; and a message that is stored
already (a tracker resent its packet) changes nothing and is not handed on again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.logger import Logger

from gateway import message as msg
from gateway import metrics
from gateway.errors import DecodeError, StoreError
from gateway.store.changes import Arrived, DeviceChange, DeviceState, Forget, Work, change_of, older
from gateway.store.event_codes import EventCode
from gateway.store.items import Change, Device, Items
from gateway.store.messages import DeviceMessages
from gateway.store.posted import order_of
from gateway.store.reader import LogEntry, LogReader

Message = dict[str, Any]

READ_ENTRIES = 100
"""Packets read at once from each channel's log: enough to make round trips cheap, few enough to keep latency low."""
YIELD_AFTER = 100
"""Messages prepared before the loop may serve trackers again (about 2 ms)."""
STATES_KEPT = 5000
"""Devices whose telemetry stays in memory (about 10 KiB each); others are read again."""
RETRY_FIRST, RETRY_MOST = 0.2, 5.0


def add_identity(message: Message, device: Device) -> None:
    """The device's own parameters win over anything the message brings."""
    message["device.id"] = device.id
    message["device.name"] = device.name
    message["device.type.id"] = device.device_type_id


def apply_position_rules(message: Message, device: Device) -> None:
    """Coordinates that cannot be are removed and marked, as flespi does."""
    msg.apply_position_rules(message)


STEPS: tuple[Callable[[Message, Device], None], ...] = (add_identity, apply_position_rules)
"""The one ordered list of what happens to a message before it is merged and stored."""


class Registrar:
    """One for each shard; it alone writes the shard's device messages, telemetry and device log."""

    log = Logger()

    def __init__(
        self,
        reader: LogReader,
        items: Items,
        messages: DeviceMessages,
        registered: Callable[[int], None] = lambda size: None,
        *,
        posted: str = "",
        record: Callable[..., object] = lambda kind, item_id, event_code, **fields: None,
        forgotten: Callable[[int, set[str]], None] = lambda device_id, names: None,
    ) -> None:
        """``registered`` is told how many bytes of the channels' logs were dealt with; ``record`` what belongs into a
        device's log of events; ``forgotten`` which telemetry parameters of a device were deleted. ``posted`` is the
        stream of what came by the API."""
        self._reader = reader
        self._registered = registered
        self._items = items
        self._messages = messages
        self._posted = posted
        self._record = record
        self._forgotten = forgotten
        self._states: OrderedDict[int, DeviceState] = OrderedDict()
        items.on_change.append(self._item_changed)

    def _item_changed(self, change: Change) -> None:
        """What is known of a device that was changed or deleted may have been trimmed or removed."""
        if change.kind == "devices":
            self._states.pop(change.id, None)

    async def run(self) -> None:
        """Register until cancelled. While Redis is away it waits, and then goes on from its cursor."""
        delay = RETRY_FIRST
        while True:
            try:
                await self.step()
                delay = RETRY_FIRST
            except StoreError as error:
                failures = metrics.count("registrar_failures")
                if failures == 1 or failures % 100 == 0:
                    self.log.warn("registration waits for Redis ({n}.): {error}", n=failures, error=str(error))
                self._reader.rewind()
                self._states.clear()
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)

    async def step(self) -> int:
        """Read one batch, register it, move the cursor; gives the number of packets. Raises StoreError."""
        entries = await self._reader.read(READ_ENTRIES)
        if entries:
            try:
                await self._register(entries)
            except StoreError:
                raise
            except Exception:
                self.log.failure("a batch of {n} packets; they are registered one by one", n=len(entries))
                await self._register_singly(entries)
            packets = (entry for entry in entries if entry.stream != self._posted)
            self._registered(sum(len(text) for entry in packets for text in entry.messages))
        return len(entries)

    async def _register(self, entries: Sequence[LogEntry]) -> None:
        changes = await self._merge(await self._prepare(entries))
        changes = [change for change in changes if change.device_id in self._items.devices]
        await self._messages.commit(changes, self._reader.cursor_fields(entries))
        for change in changes:
            self._tell(change)
        self._forget_states()

    def _tell(self, change: DeviceChange) -> None:
        if change.forgotten:
            self._forgotten(change.device_id, change.forgotten)
        if change.lost_positions:
            self._record(
                "devices", change.device_id, EventCode.PROCESSING_WARNING, reason="invalid parameters removed",
                ident=change.ident, messages=change.lost_positions, parameters=[msg.LATITUDE, msg.LONGITUDE],
            )  # fmt: skip

    async def _register_singly(self, entries: Sequence[LogEntry]) -> None:
        """A packet that breaks registration must not stop the others: it stays in the channel's log and is skipped."""
        for entry in entries:
            self._states.clear()
            try:
                await self._register([entry])
            except StoreError:
                raise
            except Exception:
                metrics.count("registrar_skipped")
                self.log.failure(
                    "skipped {stream} {id} of {ident}", stream=entry.stream, id=entry.id, ident=entry.ident
                )
                await self._reader.confirm(entry)
        self._states.clear()

    async def _prepare(self, entries: Iterable[LogEntry]) -> list[Work]:
        """Decode the messages of registered idents and take them through the steps; order is kept per device."""
        works: dict[int, Work] = {}
        since_yield = 0
        for entry in entries:
            device = self._device_of(entry)
            if device is None:
                continue
            work = works.setdefault(device.id, Work(device))
            work.parts += self._decoded(entry, device)
            since_yield += len(entry.messages)
            if since_yield >= YIELD_AFTER:
                since_yield = 0
                await asyncio.sleep(0)
        return list(works.values())

    def _device_of(self, entry: LogEntry) -> Device | None:
        if entry.stream == self._posted:
            return self._items.devices.get(entry.owner)
        channel = self._items.logged_channel(entry.owner)
        return self._items.device_for(channel.protocol_id, entry.ident) if channel is not None else None

    def _decoded(self, entry: LogEntry, device: Device) -> list[Arrived | Forget]:
        is_posted = entry.stream == self._posted
        decoded: list[Arrived | Forget] = []
        for text in entry.messages:
            if is_posted and (order := order_of(text)):
                decoded.append(order)
                continue
            try:
                message = msg.decode(text)
            except DecodeError as error:
                metrics.count("registrar_undecodable")
                self.log.error("{stream} {id}: {error}", stream=entry.stream, id=entry.id, error=str(error))
                continue
            had_position = msg.LATITUDE in message or msg.LONGITUDE in message
            for step in STEPS:
                step(message, device)
            decoded.append(Arrived(message, is_posted, had_position and msg.LATITUDE not in message))
        return decoded

    async def _merge(self, works: list[Work]) -> list[DeviceChange]:
        states = await self._load_states([work.device.id for work in works])
        stored = await self._messages.find(
            {
                work.device.id: older(work.messages, states[work.device.id].newest)
                for work in works
                if work.device.messages_ttl
            }
        )
        fingerprints = await self._messages.find_merged(stored)
        changes = []
        for work in works:
            changes.append(await change_of(work, states[work.device.id], stored, fingerprints))
            await asyncio.sleep(0)
        return [change for change in changes if change.is_any]

    async def _load_states(self, device_ids: list[int]) -> dict[int, DeviceState]:
        states = {device_id: self._states[device_id] for device_id in device_ids if device_id in self._states}
        missing = [device_id for device_id in device_ids if device_id not in states]
        if missing:
            states.update(await self._messages.load_states(missing))
        for device_id, state in states.items():
            self._states[device_id] = state
            self._states.move_to_end(device_id)
        return states

    def _forget_states(self) -> None:
        while len(self._states) > STATES_KEPT:
            self._states.popitem(last=False)
