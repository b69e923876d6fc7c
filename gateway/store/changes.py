"""What messages change for a device: its stored messages, its telemetry, and what is handed on.

Messages with the same key merge: the same parameters are overridden, others added (flespi, "Message - basic information
unit"). What a tracker sends once more changes nothing and is not handed on again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from attrs import define, field, frozen

from gateway import message as msg
from gateway.store.items import Device
from gateway.store.masks import Masks
from gateway.store.telemetry import Values, update

Message = dict[str, Any]
Place = tuple[int, int]
"""Device id, and score of a message's key."""

MICROSECONDS = 1_000_000
YIELD_AFTER = 100
"""Messages merged until others have their turn, some 3 ms."""
MERGED_KEPT = 256
"""Messages of one timestamp that are told apart: as many as a packet has records."""
ARRIVAL = ("server.timestamp", "peer")
"""What differs when a tracker sends the very same record once more."""


def score(key: float) -> int:
    """A message's key in whole microseconds, which a double holds exactly."""
    return round(key * MICROSECONDS)


@frozen
class Arrived:
    """A message to be registered. ``is_posted``: it came by the API, where saying the same again is meant so."""

    message: Message
    is_posted: bool = False
    lost_position: bool = False
    """Its coordinates could not be, and were removed."""
    fingerprint: str = ""
    """That of the message as it came, where plugins have worked on it: what they make of it may differ each time."""

    @property
    def at(self) -> int:
        """Its score."""
        return score(msg.message_key(self.message))


@frozen
class Forget:
    """These telemetry parameters are to be deleted."""

    masks: Masks


@define
class Work:
    """What came for one device in a batch, in order."""

    device: Device
    parts: list[Arrived | Forget] = field(factory=list)

    @property
    def messages(self) -> list[Arrived]:
        """The messages of it."""
        return [part for part in self.parts if isinstance(part, Arrived)]


@define
class DeviceState:
    """What the registrar must know of a device before it can register a message."""

    telemetry: Values
    newest: int
    """Score of the newest message; 0 without any. Whatever is newer needs no look-up."""


@define
class DeviceChange:
    """What a batch of messages changes for one device."""

    device_id: int
    ident: str
    stored: dict[int, bytes] = field(factory=dict)
    """Score -> the message as it is to be stored."""
    replaced: dict[int, bytes] = field(factory=dict)
    """Score -> the message as it was stored before."""
    merged: dict[int, set[str]] = field(factory=dict)
    """Score -> fingerprints of the messages that make up the stored one, where they are several: what is sent again
    cannot be told from the merged message alone."""
    telemetry: Values = field(factory=dict)
    forgotten: set[str] = field(factory=set)
    """Telemetry parameters that go, before those of ``telemetry`` come."""
    logged: list[bytes] = field(factory=list)
    """Messages for the device log, in order of reception."""
    lost_positions: int = 0
    """Messages whose coordinates were removed."""

    @property
    def is_any(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.stored or self.logged or self.forgotten)


async def change_of(
    work: Work, state: DeviceState, stored: Mapping[Place, bytes], fingerprints: Mapping[Place, set[str]]
) -> DeviceChange:
    """Merge a device's messages, in order, into what is ``stored``, into its telemetry (``state``) and into its log.

    A device whose ``messages_ttl`` is 0 stores nothing; all else is the same, but that nothing tells a message that is
    sent once more.
    """
    merging = _Merging(work.device, state, stored, fingerprints)
    for count, part in enumerate(work.parts, 1):
        if count % YIELD_AFTER == 0:
            await asyncio.sleep(0)
        if isinstance(part, Forget):
            merging.forget(part.masks)
        else:
            merging.add(part)
    merging.change.telemetry = {name: state.telemetry[name] for name in merging.updated}
    return merging.change


class _Merging:
    """The change of one device, as it grows."""

    def __init__(
        self, device: Device, state: DeviceState, stored: Mapping[Place, bytes], fingerprints: Mapping[Place, set[str]]
    ) -> None:
        self.change = DeviceChange(device.id, device.ident)
        self.updated: set[str] = set()
        self._is_storing = device.messages_ttl > 0
        self._state = state
        self._stored = stored
        self._fingerprints = fingerprints
        self._present: dict[int, Message] = {}

    def forget(self, masks: Masks) -> None:
        names = [name for name in self._state.telemetry if masks.choose(name)]
        for name in names:
            del self._state.telemetry[name]
        self.change.forgotten.update(names)
        self.updated.difference_update(names)

    def add(self, arrived: Arrived) -> None:
        whole = self._store(arrived) if self._is_storing else arrived.message
        if whole is None:
            return
        self.change.logged.append(msg.encode(arrived.message))
        self.change.lost_positions += arrived.lost_position
        self.updated |= update(self._state.telemetry, arrived.message, whole)

    def _store(self, arrived: Arrived) -> Message | None:
        """The message as it is stored then; None where it was there already."""
        message, at = arrived.message, arrived.at
        place = (self.change.device_id, at)
        earlier = self._stored.get(place)
        if earlier is not None and at not in self._present:
            self._present[at] = msg.decode(earlier)
        known = self._present.get(at)
        merged = message if known is None else msg.merge(known, message)
        if known is not None and self._is_repeated(arrived, place, known, merged):
            return None
        if known is None and arrived.fingerprint:
            self.change.merged[at] = {arrived.fingerprint}
        self._present[at] = merged
        self.change.stored[at] = msg.encode(merged)
        if earlier is not None:
            self.change.replaced[at] = earlier
        self._state.newest = max(self._state.newest, at)
        return merged

    def _is_repeated(self, arrived: Arrived, place: Place, known: Message, merged: Message) -> bool:
        """Whether the message changes nothing; if it does, remember that it is part of the stored one.

        A posted one may well set a parameter back to what it was: it is judged by what it changes alone.
        """
        at = place[1]
        parts = self.change.merged.get(at) or self._fingerprints.get(place) or {fingerprint(known)}
        if arrived.is_posted:
            self.change.merged[at] = parts
            return msg.encode(known) == msg.encode(_with_arrival(merged, known))
        own = arrived.fingerprint or fingerprint(arrived.message)
        if own in parts or _with_arrival(merged, known) == known:
            return True
        if len(parts) < MERGED_KEPT:
            self.change.merged[at] = parts | {own}
        return False


def older(arrived: Sequence[Arrived], newest: int) -> set[int]:
    """Scores that may be stored already."""
    return {at for at in (part.at for part in arrived) if at <= newest}


def fingerprint(message: Message) -> str:
    """What tells a message from others of the same timestamp, whenever it came."""
    sent = {name: message[name] for name in sorted(message) if name not in ARRIVAL}
    return blake2b(msg.encode(sent), digest_size=8).hexdigest()


def _with_arrival(merged: Message, known: Message) -> Message:
    """``merged``, but for when and from where it came: so it can be told whether merging changed anything else."""
    return {**merged, **{name: known[name] for name in ARRIVAL if name in known}}
