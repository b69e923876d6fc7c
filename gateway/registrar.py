"""What happens to a message at device level.

The registrar reads the channel logs and, for each message of a registered ident: adds the device's identity, applies
the position rules, merges it into the device's messages, updates the telemetry, and appends it to the device log. The
whole batch and the registrar's own cursor are one transaction, so a crash repeats nothing; and a message that is stored
already (a tracker resent its packet) changes nothing and is not handed on again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from attrs import define, field
from twisted.logger import Logger

from gateway import message as msg
from gateway import metrics
from gateway.errors import DecodeError, StoreError
from gateway.store.items import Device, Items
from gateway.store.messages import DeviceChange, DeviceMessages, DeviceState, score
from gateway.store.reader import LogEntry, LogReader
from gateway.store.telemetry import update

Message = dict[str, Any]

READ_ENTRIES = 100
"""Packets read at once from each channel's log: enough to make round trips cheap, few enough to keep latency low."""
YIELD_AFTER = 100
"""Messages prepared before the loop may serve trackers again (about 2 ms)."""
STATES_KEPT = 5000
"""Devices whose telemetry stays in memory (about 10 KiB each); others are read again."""
MERGED_KEPT = 256
"""Messages of one timestamp that are told apart: as many as a packet has records."""
RETRY_FIRST, RETRY_MOST = 0.2, 5.0

ARRIVAL = ("server.timestamp", "peer")
"""What differs when a tracker sends the very same record once more."""


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


@define
class Work:
    """The messages of one device in a batch, ready to be merged."""

    device: Device
    ident: str
    messages: list[Message] = field(factory=list)


class Registrar:
    """One for each shard; it alone writes the shard's device messages, telemetry and device log."""

    log = Logger()

    def __init__(
        self,
        reader: LogReader,
        items: Items,
        messages: DeviceMessages,
        registered: Callable[[int], None] = lambda size: None,
    ) -> None:
        """``registered`` is told how many bytes of messages were dealt with."""
        self._reader = reader
        self._registered = registered
        self._items = items
        self._messages = messages
        self._states: OrderedDict[int, DeviceState] = OrderedDict()

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
            self._registered(sum(len(text) for entry in entries for text in entry.messages))
        return len(entries)

    async def _register(self, entries: Sequence[LogEntry]) -> None:
        changes = await self._merge(await self._prepare(entries))
        await self._messages.commit(changes, self._reader.cursor_fields(entries))
        self._forget_states()

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
            work = works.setdefault(device.id, Work(device, entry.ident))
            work.messages += self._decoded(entry, device)
            since_yield += len(entry.messages)
            if since_yield >= YIELD_AFTER:
                since_yield = 0
                await asyncio.sleep(0)
        return list(works.values())

    def _device_of(self, entry: LogEntry) -> Device | None:
        channel = self._items.logged_channel(entry.owner)
        return self._items.device_for(channel.protocol_id, entry.ident) if channel is not None else None

    def _decoded(self, entry: LogEntry, device: Device) -> list[Message]:
        decoded = []
        for text in entry.messages:
            try:
                message = msg.decode(text)
            except DecodeError as error:
                metrics.count("registrar_undecodable")
                self.log.error("{stream} {id}: {error}", stream=entry.stream, id=entry.id, error=str(error))
                continue
            for step in STEPS:
                step(message, device)
            decoded.append(message)
        return decoded

    async def _merge(self, works: list[Work]) -> list[DeviceChange]:
        states = await self._load_states([work.device.id for work in works])
        stored = await self._messages.find(
            {work.device.id: _older(work.messages, states[work.device.id].newest) for work in works}
        )
        fingerprints = await self._messages.find_merged(stored)
        changes = []
        for work in works:
            changes.append(_merged(work, states[work.device.id], stored, fingerprints))
            await asyncio.sleep(0)
        return [change for change in changes if change.stored]

    async def _load_states(self, device_ids: list[int]) -> dict[int, DeviceState]:
        missing = [device_id for device_id in device_ids if device_id not in self._states]
        if missing:
            self._states.update(await self._messages.load_states(missing))
        for device_id in device_ids:
            self._states.move_to_end(device_id)
        return {device_id: self._states[device_id] for device_id in device_ids}

    def _forget_states(self) -> None:
        while len(self._states) > STATES_KEPT:
            self._states.popitem(last=False)


def _older(messages: Iterable[Message], newest: int) -> set[int]:
    """Scores that may be stored already."""
    return {at for at in (score(msg.message_key(message)) for message in messages) if at <= newest}


Place = tuple[int, int]
"""Device id, and score of a message's key."""


def _merged(
    work: Work, state: DeviceState, stored: Mapping[Place, bytes], fingerprints: Mapping[Place, set[str]]
) -> DeviceChange:
    """Merge a device's messages, in order, into what is stored, into its telemetry and into its log."""
    change = DeviceChange(work.device.id, work.ident)
    present: dict[int, Message] = {}
    updated: set[str] = set()
    for message in work.messages:
        at = score(msg.message_key(message))
        place = (work.device.id, at)
        earlier = stored.get(place)
        if earlier is not None and at not in present:
            present[at] = msg.decode(earlier)
        known = present.get(at)
        merged = message if known is None else msg.merge(known, message)
        if known is not None:
            parts = change.merged.get(at) or fingerprints.get(place) or {_fingerprint(known)}
            if _is_resent(known, merged) or _fingerprint(message) in parts:
                continue
            if len(parts) < MERGED_KEPT:
                change.merged[at] = parts | {_fingerprint(message)}
        present[at] = merged
        text = msg.encode(message)
        change.stored[at] = text if known is None else msg.encode(merged)
        change.logged.append(text)
        if earlier is not None:
            change.replaced[at] = earlier
        updated |= update(state.telemetry, message)
        state.newest = max(state.newest, at)
    change.telemetry = {name: state.telemetry[name] for name in updated}
    return change


def _fingerprint(message: Message) -> str:
    """What tells a message from others of the same timestamp, whenever it came."""
    sent = {name: message[name] for name in sorted(message) if name not in ARRIVAL}
    return blake2b(msg.encode(sent), digest_size=8).hexdigest()


def _is_resent(known: Message, merged: Message) -> bool:
    """Whether merging changed nothing but when and from where the message came."""
    for name in ARRIVAL:
        if name in known:
            merged = {**merged, name: known[name]}
    return merged == known
