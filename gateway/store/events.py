"""The event log: what happened to each item, who connected, what was refused and why.

An entry is a JSON object as flespi's (its page "Logs"): ``event_code``, ``origin_id``, ``origin_type``, ``timestamp``
(seconds, microseconds in the fraction), and what belongs to the event: ``ident``, ``source`` (``ip:port``),
``transport``, ``connection_id``, ``close_code``, ``duration`` (seconds), ``msgs``, ``recv``, ``send`` (bytes),
``reason``, ``new``, ``old``. Codes and their meaning are in :mod:`gateway.store.event_codes`.

Junk must not push out what somebody looks for: the same event of an item is written so often a minute and no more, by
each ident or address even fewer times; ``repeated`` of one more entry counts the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any

from attrs import define, field
from twisted.logger import Logger

from gateway import metrics
from gateway.aio import heed_cancellation
from gateway.store.compact import compact_json
from gateway.store.connection import Client
from gateway.store.event_codes import ORIGIN_TYPES, CloseCode, EventCode
from gateway.store.history import Chunks
from gateway.store.journals import Bounds, JournalEntries, Journals, KiB, MiB, Place
from gateway.store.keys import ShardKeys
from gateway.store.ordered import Source, Turn, merged
from gateway.store.sources import MICROSECONDS, Span

__all__ = ["CloseCode", "Entry", "EventCode", "EventLog"]

DAY = 86400.0
BOUNDS = {"channels": Bounds(10_000, 4 * MiB, 30 * DAY)}
BOUNDS_OF_OTHERS = Bounds(10_000, 1 * MiB, 30 * DAY)
"""Of one item's log: devices are many, and bring two entries a connection."""
ENTRY_MOST = 64 * KiB
"""Bytes of an entry; ``old`` and ``new`` of an item can be larger, and are left out then."""

FIRST_LIMITED = EventCode.CONNECTION_ACCEPTED
"""Events below come from the operator's own changes, and clients follow them: all are written."""
WINDOW = 60.0
OF_ITEM = {"channels": 200}
OF_OTHER_ITEMS = 30
OF_SUBJECT = 10
"""Events of one code in a window: of an item, and of one ident or address in it."""
OF_CODE: dict[int, int] = {EventCode.PROCESSING_WARNING: 2}
"""What comes with every message: a device without GPS reception has it for hours."""
SUMMARIES_MOST = 20
"""Idents or addresses whose repetitions are counted apart; those of all others are counted together."""
WINDOWS_MOST = 50_000
FORGOTTEN_MOST = 10_000

Entry = dict[str, Any]
OnEntry = Callable[[str, int, Entry], None]


@define
class _Window:
    """Events of one kind since the window began."""

    count: int = 0
    repeated: int = 0
    last: Entry = field(factory=dict)


class EventLog:
    """Each of ``on_entry`` is called with (kind, item id, entry) at once, whether or not Redis takes the entry."""

    log = Logger()

    def __init__(self, redis: Client, keys: ShardKeys, *, now: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._keys = keys
        self._now = now
        self._journals = Journals(redis, "events", now=now)
        self._windows: dict[tuple[str, int, int, str], _Window] = {}
        self._window_ends = 0.0
        self._forgotten: dict[tuple[str, int], None] = {}
        self.on_entry: list[OnEntry] = []

    def record(self, kind: str, item_id: int, event_code: int, **fields: Any) -> None:
        """Write that this happened to the item of ``kind`` (channels, devices, streams, plugins, tokens).

        Fields that are None are left out. Never waits, never raises.
        """
        try:
            if self._is_allowed(kind, item_id, event_code, fields):
                self._write(kind, item_id, event_code, fields)
        except Exception:  # a tracker's connection must not end for want of an entry
            self.log.failure("an entry of the log of {kind} {id}", kind=kind, id=item_id)

    def forget(self, kind: str, item_id: int) -> None:
        """The item is deleted: what still happens to it is told, but not kept."""
        self._forgotten[kind, item_id] = None
        if len(self._forgotten) > FORGOTTEN_MOST:
            del self._forgotten[next(iter(self._forgotten))]
        self._journals.delete(self._keys.log(kind, item_id))

    async def run(self) -> None:
        """Write to Redis until cancelled."""
        writing = asyncio.ensure_future(self._journals.run())
        try:
            while True:
                await asyncio.wait([writing], timeout=1.0)
                heed_cancellation()
                if writing.done():
                    writing.result()  # it does not end but by an error
                if self._now() >= self._window_ends:
                    self.summarize()
        finally:
            writing.cancel()

    async def flush(self) -> None:
        """Write what waits. Raises StoreError."""
        await self._journals.flush()

    async def read(self, kind: str, ids: Iterable[int], span: Span, turn: Turn | None = None) -> Chunks:
        """The entries of these items in one order, as JSON texts. Raises StoreError.

        Those who share a ``turn`` read one page at a time.
        """
        await self.flush()
        sources: list[Source] = [
            JournalEntries.of(self._keys.log(kind, item_id), span, lambda _, fields: [fields[b"entry"]])
            for item_id in ids
        ]
        async with aclosing(merged(self._redis, sources, turn)) as pages:
            async for page in pages:
                yield page.texts

    # -- how often

    def _is_allowed(self, kind: str, item_id: int, event_code: int, fields: Entry) -> bool:
        if event_code < FIRST_LIMITED:
            return True
        if self._now() >= self._window_ends or len(self._windows) > WINDOWS_MOST:
            self.summarize()
        subject = fields.get("ident") or str(fields.get("source") or "").rpartition(":")[0]
        if subject and not self._is_within(OF_SUBJECT, (kind, item_id, event_code, subject), fields):
            return False
        most = OF_CODE.get(event_code, OF_ITEM.get(kind, OF_OTHER_ITEMS))
        return self._is_within(most, (kind, item_id, event_code, ""), fields)

    def _is_within(self, most: int, key: tuple[str, int, int, str], fields: Entry) -> bool:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window()
        window.count += 1
        if window.count <= most:
            return True
        window.repeated += 1
        window.last = fields
        return False

    def summarize(self) -> None:
        """Begin a new window; what the last one left out is counted, in some entries for each item and event."""
        windows, self._windows = self._windows, {}
        self._window_ends = self._now() + WINDOW
        summaries: Counter[tuple[str, int, int]] = Counter()
        rest: dict[tuple[str, int, int], _Window] = {}
        for (kind, item_id, event_code, subject), window in windows.items():
            if not window.repeated:
                continue
            what = kind, item_id, event_code
            summaries[what] += 1
            if subject and summaries[what] <= SUMMARIES_MOST:
                self._write(*what, {**window.last, "repeated": window.repeated})
            else:
                of_item = rest.setdefault(what, _Window(last=window.last))
                of_item.repeated += window.repeated
        for what, window in rest.items():
            self._write(*what, {**window.last, "repeated": window.repeated})

    # -- one entry

    def _write(self, kind: str, item_id: int, event_code: int, fields: Entry) -> None:
        stamp = self._journals.stamp()
        entry = {
            "event_code": int(event_code),
            "origin_id": item_id,
            "origin_type": ORIGIN_TYPES.get(kind, 0),
            "timestamp": stamp / MICROSECONDS,
        }
        entry.update((name, value) for name, value in fields.items() if value is not None)
        metrics.count("events", kind=kind)
        self._tell(kind, item_id, entry)
        if (kind, item_id) not in self._forgotten:
            place = Place(self._keys.log(kind, item_id), BOUNDS.get(kind, BOUNDS_OF_OTHERS))
            self._journals.add(place, stamp, ("entry", _encoded(entry)))

    def _tell(self, kind: str, item_id: int, entry: Entry) -> None:
        for told in self.on_entry:
            try:
                told(kind, item_id, entry)
            except Exception:
                self.log.failure("somebody who was told of an event of {kind} {id}", kind=kind, id=item_id)


def _encoded(entry: Entry) -> bytes:
    """Not more than :data:`ENTRY_MOST` bytes of it."""
    for left_out in ((), ("old",), ("old", "new")):
        kept = {name: value for name, value in entry.items() if name not in left_out}
        text = compact_json(kept, str)
        if len(text) <= ENTRY_MOST:
            return text
    return compact_json({name: value for name, value in entry.items() if isinstance(value, int | float)})
