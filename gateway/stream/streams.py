"""All streams, as the items say: each enabled one has a sender, and a change of the item makes a new one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from twisted.logger import Logger

from gateway import metrics
from gateway.errors import ExpressionError, GatewayError, StoreError
from gateway.expressions import compile_expression
from gateway.store.connection import Client
from gateway.store.event_codes import EventCode
from gateway.store.items import Change, Items, Stream
from gateway.store.keys import ShardKeys
from gateway.store.links import Link
from gateway.store.reader import LogReader
from gateway.stream.news import News
from gateway.stream.protocols import StreamProtocol
from gateway.stream.queue import Queue, count_waiting
from gateway.stream.selection import Form, Selection
from gateway.stream.sender import RETRY_FIRST, Record, Sender
from gateway.stream.state import StreamState
from gateway.stream.target import StreamInfo, Target

COUNT_KEPT = 2.0
"""Seconds that a count of waiting messages is given again."""
STOP_TIME = 10.0
"""Seconds that the senders may take to end."""


def reader_name(stream_id: int) -> str:
    """What the cursors of a stream are kept under."""
    return f"stream:{stream_id}"


class Streams:
    """``record`` writes to the event log; ``on_change`` are told of a stream whose state has changed."""

    log = Logger()

    def __init__(
        self,
        redis: Client,
        keys: ShardKeys,
        items: Items,
        protocols: Mapping[str, StreamProtocol],
        record: Record = lambda *_, **__: None,
        *,
        now: Callable[[], float] = time.time,
        retry_first: float = RETRY_FIRST,
    ) -> None:
        """``retry_first``: seconds of the first pause after a failure."""
        self.protocols = protocols
        self.news = News()
        self.on_change: list[Callable[[Stream, StreamState], None]] = []
        self._redis = redis
        self._keys = keys
        self._items = items
        self._record = record
        self._now = now
        self._retry_first = retry_first
        self._running: dict[int, asyncio.Task[None]] = {}
        """By stream; also of one that is ending."""
        self._states: dict[int, StreamState] = {}
        self._sizes: dict[int, tuple[float, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._relinked: set[int] = set()
        """Streams whose cursors are to be set."""
        self._is_started = False
        items.on_change.append(self._item_changed)
        items.links.on_change.append(self._link_changed)

    async def start(self) -> None:
        """Start a sender for each enabled stream."""
        self._is_started = True
        for stream in self._items.streams.values():
            self._begin(stream)

    async def stop(self) -> None:
        """End all senders; what they have under way is delivered once more after the next start."""
        self._is_started = False
        for task in self._running.values():
            _end(task)
        tasks = {*self._running.values(), *self._tasks}
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_TIME)

    # -- what others ask

    def status(self, stream_id: int) -> StreamState:
        """How a stream is doing."""
        return self._states.setdefault(stream_id, StreamState(since=self._now()))

    async def queue_size(self, stream_id: int) -> int:
        """How many messages wait for it: of the first 2,000 packets of each log. Raises StoreError."""
        known = self._sizes.get(stream_id)
        if known is not None and time.monotonic() - known[0] < COUNT_KEPT:
            return known[1]
        stream = self._items.streams.get(stream_id)
        size = 0
        if stream is not None:
            selection = Selection(stream, self._items, self._keys)
            size = await count_waiting(self._reader(selection), selection)
        self._sizes[stream_id] = time.monotonic(), size
        return size

    def readers_of_channel(self, channel_id: int) -> list[str]:
        """The names of those who need a channel's log, for who trims it."""
        return self._names(self._items.links.to("channels", channel_id, "streams"))

    def readers_of_devices(self) -> list[str]:
        """The names of those who need the device log."""
        links = self._items.links
        return self._names(id for id in self._items.streams if links.of("streams", id, "devices"))

    def _names(self, ids: Iterable[int]) -> list[str]:
        return [reader_name(id) for id in ids if self._needs_logs(self._items.streams.get(id))]

    def _needs_logs(self, stream: Stream | None) -> bool:
        """Not one that has been disabled for so long that all that waited before is to be given up."""
        if stream is None or stream.enabled or not stream.pauses:
            return stream is not None
        began = stream.pauses[-1][0]
        return began is None or self._now() - began <= stream.queue_ttl

    # -- one stream

    def _reader(self, selection: Selection) -> LogReader:
        name = reader_name(selection.stream.id)
        return LogReader(self._redis, self._keys, name, selection.logs, wait=0, begin=selection.begin)

    def _begin(self, stream: Stream) -> None:
        state = self.status(stream.id)
        state.next_attempt_at = None
        if not stream.enabled or not self._is_started:
            self._become(stream, state, "disabled")
            return
        try:
            target, form = self._made(stream)
        except (msgspec.ValidationError, ExpressionError, GatewayError) as error:
            state.error, state.error_at = str(error), self._now()
            self._become(stream, state, "blocked")
            self.log.error("stream {id} ({name}): {error}", id=stream.id, name=stream.name, error=str(error))
            self._record("streams", stream.id, EventCode.CONFIGURATION_INVALID, reason=str(error))
            return
        selection = Selection(stream, self._items, self._keys)
        queue = Queue(self._reader(selection), selection, form, self._keys, now=self._now)
        sender = Sender(
            stream,
            target,
            queue,
            state,
            record=self._record,
            changed=self._tell,
            wait_for_news=self.news.wait,
            now=self._now,
            retry_first=self._retry_first,
        )
        self._running[stream.id] = asyncio.ensure_future(self._run(stream, sender))

    def _made(self, stream: Stream) -> tuple[Target, Form]:
        protocol = self.protocols.get(stream.protocol)
        if protocol is None or protocol.cls is None:
            reason = protocol.reason if protocol is not None else f"there is no stream protocol {stream.protocol}"
            raise GatewayError(reason)
        config = msgspec.convert(stream.configuration, protocol.cls.Config)
        protocol.cls.check(config)
        validate = compile_expression(stream.validate_message) if stream.validate_message else None
        return protocol.cls(config, StreamInfo(stream.id, stream.name)), Form(validate, config.convert_message)

    async def _run(self, stream: Stream, sender: Sender) -> None:
        """A sender that ends by itself has a mistake; the others go on."""
        while True:
            try:
                await sender.run()
            except Exception:
                self.log.failure("stream {id} ({name}) begins again", id=stream.id, name=stream.name)
                await asyncio.sleep(1.0)

    def _become(self, stream: Stream, state: StreamState, name: str) -> None:
        if state.state != name:
            state.state, state.since = name, self._now()
        self._tell(stream)

    def _tell(self, stream: Stream) -> None:
        state = self.status(stream.id)
        metrics.gauge("stream_connected", lambda: float(state.is_connected), stream=str(stream.id))
        for changed in self.on_change:
            changed(stream, state)

    # -- what changes

    def _item_changed(self, change: Change) -> None:
        if change.kind != "streams":
            return
        self._sizes.pop(change.id, None)
        if isinstance(change.new, Stream):
            self._later(self._begin_anew(change.new))
            return
        self._states.pop(change.id, None)
        metrics.forget_gauge("stream_connected", stream=str(change.id))
        if (task := self._running.pop(change.id, None)) is not None:
            _end(task)
            self._tasks.add(task)  # it is waited for when all are stopped meanwhile
            task.add_done_callback(self._tasks.discard)

    async def _begin_anew(self, stream: Stream) -> None:
        """End the sender of the stream as it was; two of one stream would deliver everything twice."""
        while (task := self._running.get(stream.id)) is not None and self._items.streams.get(stream.id) is stream:
            _end(task)
            while not (await asyncio.wait([task], timeout=STOP_TIME))[0]:
                self.log.error("stream {id} ({name}) does not end; its change waits", id=stream.id, name=stream.name)
            if self._running.get(stream.id) is task:
                del self._running[stream.id]
        if self._items.streams.get(stream.id) is stream and stream.id not in self._running:
            self._begin(stream)

    def _link_changed(self, old: Link | None, new: Link | None) -> None:
        link = new or old
        if link is None or link.kind != "streams":
            return
        self._sizes.pop(link.id, None)
        if old is None or new is None:
            is_made = new is not None
            code = _CODES[link.to, is_made]
            one = link.to.removesuffix("s")
            self._record("streams", link.id, code, **{f"{one}_id": link.to_id})
            if link.to_id in self._items.of(link.to):
                self._record(link.to, link.to_id, code, stream_id=link.id)
            if link.id not in self._relinked:  # once for all links that are made together
                self._relinked.add(link.id)
                self._later(self._set_cursors(link.id))

    async def _set_cursors(self, stream_id: int) -> None:
        """Hold the logs that the stream reads now, and let go of the others."""
        self._relinked.discard(stream_id)
        stream = self._items.streams.get(stream_id)
        if stream is None:
            return
        selection = Selection(stream, self._items, self._keys)
        reader = self._reader(selection)
        logs = selection.logs()
        every = {self._keys.channel_log(id) for id in self._items.logged_channels()} | {self._keys.device_log}
        try:
            await reader.hold()
            await reader.forget(every - set(logs))
        except StoreError as error:  # the sender holds them when it runs; the others expire
            self.log.warn("stream {id}: its cursors are not set: {error}", id=stream_id, error=str(error))

    def _later(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _end(task: asyncio.Task[None]) -> None:
    """Once: a second cancellation would break off the closing of the target."""
    if not task.cancelling():
        task.cancel()


_CODES = {
    ("devices", True): EventCode.DEVICE_SUBSCRIBED,
    ("devices", False): EventCode.DEVICE_UNSUBSCRIBED,
    ("channels", True): EventCode.CHANNEL_SUBSCRIBED,
    ("channels", False): EventCode.CHANNEL_UNSUBSCRIBED,
}
