"""What happens to a message at device level.

The registrar reads the channel logs and, for each message of a registered ident: adds the device's identity, takes it
through the device's plugins, applies the position rules, merges it into the device's messages, updates the telemetry,
and appends it to the device log. The whole batch and the registrar's own cursor are one transaction, so a crash repeats
nothing; and a message that is stored already (a tracker resent its packet) changes nothing and is not handed on again.

Messages of a device with a plugin that asks another system go aside in the same transaction, and come back by a stream
of their own when the plugins are through (:mod:`gateway.plugin.lane`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from attrs import define, field
from twisted.logger import Logger

from gateway import message as msg
from gateway import metrics
from gateway.errors import DecodeError, StoreError
from gateway.plugin.chains import Chains
from gateway.store.changes import Arrived, DeviceChange, DeviceState, Forget, Work, change_of, fingerprint, older
from gateway.store.deferred import Deferred, Processed, Waiting
from gateway.store.event_codes import EventCode
from gateway.store.items import Change, Device, Items
from gateway.store.messages import DeviceMessages
from gateway.store.posted import order_of
from gateway.store.reader import LogEntry, LogReader
from gateway.store.telemetry import update

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
    message.update(device.identity)


def apply_position_rules(message: Message, device: Device) -> None:
    """Coordinates that cannot be are removed and marked, as flespi does."""
    msg.apply_position_rules(message)


BEFORE_PLUGINS: tuple[Callable[[Message, Device], None], ...] = (add_identity,)
AFTER_PLUGINS: tuple[Callable[[Message, Device], None], ...] = (apply_position_rules,)
"""What happens to a message, in order, before it is merged and stored: the first ones, its plugins and the first ones
once more, for plugins may have changed it, the second ones."""


@define
class Sorted:
    """A batch of the logs, by what is to be done with it."""

    works: dict[int, Work] = field(factory=dict)
    """What is registered now, by device."""
    aside: dict[int, list[bytes]] = field(factory=dict)
    """What waits for plugins first: lines for :mod:`gateway.store.deferred`."""
    back: Counter[int] = field(factory=Counter)
    """How many of a device's messages came back from there."""


def finished(arrived: Arrived, device: Device) -> Arrived:
    """The message after its plugins, as it is merged and stored."""
    message = arrived.message
    had_position = msg.LATITUDE in message or msg.LONGITUDE in message
    has_plugins = bool(arrived.fingerprint)
    for step in (*BEFORE_PLUGINS, *AFTER_PLUGINS) if has_plugins else AFTER_PLUGINS:
        step(message, device)
    if not had_position or msg.LATITUDE in message:
        return arrived
    return Arrived(message, arrived.is_posted, True, arrived.fingerprint)


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
        chains: Chains | None = None,
        deferred: Deferred | None = None,
        wake: Callable[[int], None] = lambda device_id: None,
        processed: str = "",
        handed_on: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
        record: Callable[..., object] = lambda kind, item_id, event_code, **fields: None,
        forgotten: Callable[[int, set[str]], None] = lambda device_id, names: None,
    ) -> None:
        """``registered`` is told how many bytes of the channels' logs were dealt with; ``record`` what belongs into a
        device's log of events; ``forgotten`` which telemetry parameters of a device were deleted. ``posted`` is the
        stream of what came by the API. ``chains`` are the plugins; ``deferred``, ``wake`` and ``processed`` belong to
        those that ask other systems: where messages wait for them, who is told so, where they come back. ``handed_on``
        is told when something came to the device log."""
        self._reader = reader
        self._registered = registered
        self._items = items
        self._messages = messages
        self._posted = posted
        self._chains = chains
        self._deferred = deferred
        self._wake = wake
        self._processed = processed
        self._handed_on = handed_on
        self._now = now
        self._knows_deferred = deferred is None
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
                self._knows_deferred = self._deferred is None
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)

    async def step(self) -> int:
        """Read one batch, register it, move the cursor; gives the number of packets. Raises StoreError."""
        if not self._knows_deferred and self._deferred is not None:
            await self._deferred.load()
            self._knows_deferred = True
        entries = await self._reader.read(READ_ENTRIES)
        if entries:
            try:
                await self._register(entries)
            except StoreError:
                raise
            except Exception:
                self.log.failure("a batch of {n} packets; they are registered one by one", n=len(entries))
                await self._register_singly(entries)
            packets = (entry for entry in entries if entry.stream not in (self._posted, self._processed))
            self._registered(sum(len(text) for entry in packets for text in entry.messages))
        return len(entries)

    async def _register(self, entries: Sequence[LogEntry]) -> None:
        batch = await self._sort(entries)
        changes = await self._merge(list(batch.works.values()))
        changes = [change for change in changes if change.device_id in self._items.devices]
        await self._commit(changes, batch, self._reader.cursor_fields(entries))
        for change in changes:
            self._tell(change)
        if changes:
            self._handed_on()
        self._forget_states()

    async def _commit(self, changes: list[DeviceChange], batch: Sorted, cursors: dict[str, str]) -> None:
        deferred = self._deferred
        if deferred is None:
            await self._messages.commit(changes, cursors)
            return
        await self._messages.commit(changes, cursors, lambda pipe: deferred.queue(pipe, batch.aside))
        for device_id, count in batch.back.items():
            deferred.came_back(device_id, count)
        for device_id, lines in batch.aside.items():
            deferred.went(device_id, len(lines))
            self._wake(device_id)

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
                self._knows_deferred = self._deferred is None  # it may have been one that came back from plugins
        self._states.clear()

    async def _sort(self, entries: Iterable[LogEntry]) -> Sorted:
        """Decode the messages of registered idents, or put them aside; order is kept per device."""
        batch = Sorted()
        since_yield = 0
        for entry in entries:
            device = self._device_of(entry)
            if device is not None:
                self._sort_entry(batch, entry, device)
                since_yield += len(entry.messages)
            elif entry.stream == self._processed:
                batch.back[entry.owner] += len(entry.messages)
            if since_yield >= YIELD_AFTER:
                since_yield = 0
                await asyncio.sleep(0)
        return batch

    def _sort_entry(self, batch: Sorted, entry: LogEntry, device: Device) -> None:
        is_posted = entry.stream == self._posted
        orders = [order for line in entry.messages if is_posted and (order := order_of(line))]
        if entry.stream == self._processed:
            batch.back[device.id] += len(entry.messages)
            parts: list[Arrived | Forget] = list(self._returned(entry, device))
        elif self._goes_aside(batch, device) and not orders:
            lines = batch.aside.setdefault(device.id, [])
            lines += [Waiting(line, is_posted).line for line in entry.messages]
            return
        else:
            parts = [*orders] or list(self._decoded(entry, device, is_posted))
        batch.works.setdefault(device.id, Work(device)).parts += parts

    def _goes_aside(self, batch: Sorted, device: Device) -> bool:
        """Whether its messages wait for plugins, or earlier ones of it still do."""
        if self._deferred is None or self._chains is None:
            return False
        chain = self._chains.of(device)
        is_away = device.id in batch.aside or self._deferred.is_away(device.id)
        return is_away or (chain is not None and chain.is_remote)

    def _device_of(self, entry: LogEntry) -> Device | None:
        if entry.stream in (self._posted, self._processed):
            return self._items.devices.get(entry.owner)
        channel = self._items.logged_channel(entry.owner)
        return self._items.device_for(channel.protocol_id, entry.ident) if channel is not None else None

    def _decoded(self, entry: LogEntry, device: Device, is_posted: bool) -> Iterator[Arrived]:
        for text in entry.messages:
            message = self._decode(entry, text)
            if message is not None:
                for step in BEFORE_PLUGINS:
                    step(message, device)
                yield Arrived(message, is_posted)

    def _returned(self, entry: LogEntry, device: Device) -> Iterator[Arrived]:
        """What plugins that ask others made of messages."""
        for line in entry.messages:
            result = Processed.of(line)
            message = self._decode(entry, result.text) if result is not None else None
            if result is not None and message is not None:
                yield Arrived(message, result.is_posted, fingerprint=result.fingerprint)

    def _decode(self, entry: LogEntry, text: bytes) -> Message | None:
        try:
            return msg.decode(text)
        except DecodeError as error:
            metrics.count("registrar_undecodable")
            self.log.error("{stream} {id}: {error}", stream=entry.stream, id=entry.id, error=str(error))
            return None

    def _through_plugins(self, work: Work, state: DeviceState) -> None:
        """Take a device's messages through its plugins, and what comes after these."""
        chain = self._chains.of(work.device) if self._chains is not None else None
        if chain is not None and chain.is_remote:  # it was not when the messages came, or they are through
            chain = chain.without_remote()
        values = dict(state.telemetry) if chain is not None and chain.needs_telemetry else {}
        now = self._now()
        parts: list[Arrived | Forget] = []
        for part in work.parts:
            if isinstance(part, Arrived):
                if chain is not None and not part.fingerprint:
                    message = chain.process(part.message, values, now)
                    if message is None:
                        continue
                    part = Arrived(message, part.is_posted, fingerprint=fingerprint(part.message))
                part = finished(part, work.device)
                if chain is not None and chain.needs_telemetry:
                    update(values, part.message)
            parts.append(part)
        work.parts = parts

    async def _merge(self, works: list[Work]) -> list[DeviceChange]:
        states = await self._load_states([work.device.id for work in works])
        for work in works:
            self._through_plugins(work, states[work.device.id])
            await asyncio.sleep(0)
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
