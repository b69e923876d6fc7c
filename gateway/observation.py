"""What is observed, as one part of the store: the event log, the idents seen, the traffic, and what feeds them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from twisted.logger import Logger

from gateway.channel.recorder import Recorder
from gateway.errors import StoreError
from gateway.stages import Background
from gateway.store.connection import Client
from gateway.store.event_codes import EventCode
from gateway.store.events import EventLog
from gateway.store.idents import SeenIdents
from gateway.store.items import Change, Items
from gateway.store.keys import ShardKeys
from gateway.store.traffic import Traffic
from gateway.store.views import view_of

FLUSH_TIME = 2.0
"""Seconds that a stop waits for what is still to be written."""


class Observation:
    """Follows the items from the beginning; ``recorder`` is the observer of the channels."""

    log = Logger()

    def __init__(self, redis: Client, keys: ShardKeys, items: Items) -> None:
        self._items = items
        self.events = EventLog(redis, keys)
        self.traffic = Traffic(redis, keys)
        self.idents = SeenIdents(redis, keys)
        self.recorder = Recorder(items, self.events, self.traffic, self.idents)
        self._forgetting: set[asyncio.Task[None]] = set()
        items.on_change.append(self._changed)

    async def start(self, background: Background) -> None:
        """Once Redis is there and the items are loaded. Raises StoreError."""
        await self.idents.load(self._items.channels)
        background.run("the event log", self.events.run())
        background.run("the record of traffic", self.traffic.run())
        background.run("the record of idents", self.idents.run())

    async def flush(self) -> None:
        """Write what waits, before the end."""
        try:
            async with asyncio.timeout(FLUSH_TIME):
                self.events.summarize()
                await asyncio.gather(self.events.flush(), self.traffic.flush(), self.idents.flush(), *self._forgetting)
        except (TimeoutError, StoreError) as error:
            self.log.warn("the last entries of the logs are not written: {error}", error=str(error) or "no time")

    def _changed(self, change: Change) -> None:
        code = EventCode.CREATED if change.old is None else EventCode.UPDATED
        if change.new is None:
            code = EventCode.DELETED
            self._forget(change)
        views = {name: view_of(item) for name, item in (("old", change.old), ("new", change.new)) if item is not None}
        self.events.record(change.kind, change.id, code, **views)

    def _forget(self, change: Change) -> None:
        self.events.forget(change.kind, change.id)
        if change.kind == "channels":
            self.idents.forget_channel(change.id)
            self._run(self.traffic.forget_channel(change.id))

    def _run(self, forgetting: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._logged(forgetting))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _logged(self, forgetting: Coroutine[Any, Any, None]) -> None:
        try:
            await forgetting
        except StoreError as error:  # it expires
            self.log.warn("the traffic of a deleted channel stays for some days: {error}", error=str(error))
