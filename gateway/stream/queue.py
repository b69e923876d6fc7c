"""What a stream has still to deliver: read from the logs as it is needed, and confirmed there when it is done with.

In memory is little more than a batch; all else waits in the logs. A cursor moves when everything before it is done
with: delivered, rejected, given up, or not for this stream.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile

from attrs import define, evolve, field

from gateway.store.keys import ShardKeys
from gateway.store.reader import LogEntry, LogReader
from gateway.stream.selection import Form, Selection, moment_of
from gateway.stream.target import Outgoing

READ_ENTRIES = 100
"""Packets read at once from each log."""
YIELD_AFTER = 200
"""Messages looked at until trackers have their turn, some 2 ms."""
CONFIRM_INTERVAL = 0.5
"""Seconds between two writes of a cursor that moves over what is not for the stream."""
LOOKED_MOST = 5000
"""Packets looked at for a batch that has something: it goes out then, though it is not full."""
COUNTED_MOST = 2000
"""Packets of each log that are looked at to say how much waits."""


@define
class Place:
    """The ends of entries in the queue, by log: all up to them is done with when they are reached.

    There is one between two messages at most, however many entries have nothing for the stream.
    """

    ends: dict[str, LogEntry] = field(factory=dict)
    """Without their messages."""


@define
class Passed:
    """What was read and is not for the target."""

    read: int = 0
    skipped: int = 0


class Queue:
    """Of one stream. Its methods are called by one task at a time."""

    def __init__(
        self,
        reader: LogReader,
        selection: Selection,
        form: Form,
        keys: ShardKeys,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reader = reader
        self._selection = selection
        self._form = form
        self._keys = keys
        self._now = now
        self._items: deque[Outgoing | Place] = deque()
        self._count = 0
        self._done: dict[str, LogEntry] = {}
        self._confirmed_at = 0.0
        self.passed = Passed()

    def take_passed(self) -> Passed:
        """What was read since this was asked last."""
        passed, self.passed = self.passed, Passed()
        return passed

    async def fill(self, count: int) -> None:
        """Have ``count`` messages ready, or as many as there are now; fewer where they lie far apart.

        Raises StoreError.
        """
        looked = 0
        while self._count < count:
            entries = await self._reader.read(READ_ENTRIES)
            await self._take(entries)
            self._advance()
            looked += len(entries)
            if not entries or not self._reader.is_behind or (self._count and looked >= LOOKED_MOST):
                return
            if not self._count:
                await self._confirm_sometimes()

    async def _take(self, entries: Sequence[LogEntry]) -> None:
        since_yield = 0
        for entry in entries:
            is_device = entry.stream == self._keys.device_log
            since_yield += 1
            if self._selection.wants(entry):
                received = moment_of(entry, is_device)
                self.passed.read += len(entry.messages)
                since_yield += len(entry.messages)
                for text in entry.messages:
                    outgoing = self._form.take(entry, text, is_device, received)
                    if outgoing is None:
                        self.passed.skipped += 1
                    else:
                        self._items.append(outgoing)
                        self._count += 1
            self._end(entry)
            if since_yield >= YIELD_AFTER:
                since_yield = 0
                await asyncio.sleep(0)

    def _end(self, entry: LogEntry) -> None:
        if not self._items or not isinstance(self._items[-1], Place):
            self._items.append(Place())
        place = self._items[-1]
        assert isinstance(place, Place)
        place.ends[entry.stream] = evolve(entry, messages=[])

    def head(self, count: int) -> list[Outgoing]:
        """The next messages, ``count`` at most; they stay in the queue."""
        return list(islice((item for item in self._items if isinstance(item, Outgoing)), count))

    def drop(self, count: int) -> None:
        """The next ``count`` messages are done with."""
        while count:
            if self._pop():
                count -= 1
        self._advance()

    def _advance(self) -> None:
        while self._items and isinstance(self._items[0], Place):
            self._pop()

    def _pop(self) -> bool:
        """Be done with the first of the queue; whether it was a message."""
        item = self._items.popleft()
        if isinstance(item, Place):
            self._done |= item.ends
            return False
        self._count -= 1
        return True

    async def expire(self, before: float) -> int:
        """Give up what was received before then, in UNIX seconds; how many messages. Raises StoreError."""
        given_up = 0
        while old := self._expired(before):
            self.drop(len(old))
            given_up += sum(not outgoing.is_done for outgoing in old)
            if self._count:
                break
            await self.confirm()
            await self.fill(1)
        return given_up

    def _expired(self, before: float) -> list[Outgoing]:
        messages = (item for item in self._items if isinstance(item, Outgoing))
        return list(takewhile(lambda outgoing: outgoing.received < before, messages))

    async def confirm(self) -> None:
        """Move the cursors. Raises StoreError; then they are moved another time."""
        done, self._done = self._done, {}
        if not done:
            return
        try:
            await self._reader.confirm_all(done.values())
        except BaseException:
            self._done = done | self._done
            raise
        self._confirmed_at = time.monotonic()

    async def _confirm_sometimes(self) -> None:
        if time.monotonic() - self._confirmed_at > CONFIRM_INTERVAL:
            await self.confirm()

    async def hold(self) -> None:
        """Keep what comes from now on, in logs that the stream has no cursor for yet. Raises StoreError."""
        await self._reader.hold()

    async def settle(self) -> None:
        """Write from time to time how far it is, where nothing is to be delivered. Raises StoreError."""
        await self._confirm_sometimes()

    def rewind(self) -> None:
        """Read again from the cursors."""
        self._items.clear()
        self._count = 0
        self._reader.rewind()


async def count_waiting(reader: LogReader, selection: Selection) -> int:
    """Messages for the stream after its cursors; those of :data:`COUNTED_MOST` packets of each log at most.

    Raises StoreError.
    """
    reader.rewind()
    waiting = 0
    for _ in range(COUNTED_MOST // READ_ENTRIES):
        entries = await reader.read(READ_ENTRIES)
        waiting += sum(len(entry.messages) for entry in entries if selection.wants(entry))
        if not entries or not reader.is_behind:
            break
        await asyncio.sleep(0)
    return waiting
