"""A log's reader that publishes: each message with QoS 1, in order, the cursor moving as PUBACKs come.

An entry is delivered when all its messages are acknowledged, and confirmed when all before it are. When the connection
goes, everything from the cursor on is published again over the next one: nothing is lost, the order of each ident is
kept, and what was in flight may come twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Protocol

from twisted.logger import Logger

from gateway import metrics
from gateway.aio import heed_cancellation
from gateway.errors import BrokerUnavailable, StoreError
from gateway.mqtt.client import MqttClient
from gateway.mqtt.link import Link
from gateway.mqtt.packets import packed_text, timestamp_of
from gateway.mqtt.topics import Topics, is_safe_level
from gateway.store.reader import LogEntry

READ_ENTRIES = 200
"""Entries of each stream in one read."""
CONFIRM_INTERVAL = 0.1
"""Seconds between two writes of the cursor: so much may be published again after a crash."""
RETRY_INTERVAL = 1.0
"""Seconds before Redis is asked again after it failed, or after it said at once that there is nothing."""
LOG_EVERY = 1000

TopicOf = Callable[[LogEntry], bytes | None]
"""The packed topic of an entry's messages; None: it can have none, and is skipped."""


class Reader(Protocol):
    """What a publisher needs of a :class:`gateway.store.reader.LogReader`."""

    async def read(self, count: int) -> list[LogEntry]: ...

    async def confirm_all(self, entries: Iterable[LogEntry]) -> None: ...

    def rewind(self) -> None: ...


def channel_topic(topics: Topics) -> TopicOf:
    """For the channel log: by channel and ident."""

    @lru_cache(maxsize=65536)
    def packed(channel_id: int, ident: str) -> bytes | None:
        return packed_text(topics.channel_message(channel_id, ident)) if is_safe_level(ident) else None

    return lambda entry: packed(entry.owner, entry.ident)


def device_topic(topics: Topics) -> TopicOf:
    """For the device log: by device."""

    @lru_cache(maxsize=65536)
    def packed(device_id: int) -> bytes:
        return packed_text(topics.device_message(device_id))

    return lambda entry: packed(entry.owner)


class Cursor:
    """Confirms entries to the reader, the last one of each stream, a few times a second."""

    log = Logger()

    def __init__(self, reader: Reader, name: str) -> None:
        self._reader = reader
        self._name = name
        self._delivered: dict[str, LogEntry] = {}
        self._has_news = asyncio.Event()
        self._lock = asyncio.Lock()
        self._has_failed = False

    def deliver(self, entry: LogEntry) -> None:
        """Everything of its stream up to ``entry`` was delivered."""
        self._delivered[entry.stream] = entry
        self._has_news.set()

    async def run(self) -> None:
        """Write the cursor, until cancelled."""
        while True:
            heed_cancellation()
            await self._has_news.wait()
            self._has_news.clear()
            try:
                await self.write()
                self._has_failed = False
            except StoreError as error:
                self._tell_failure(error)
                self._has_news.set()
                await asyncio.sleep(RETRY_INTERVAL)
            await asyncio.sleep(CONFIRM_INTERVAL)

    def _tell_failure(self, error: StoreError) -> None:
        """Once, not each second of an outage."""
        if not self._has_failed:
            self.log.warn("the cursor of {name} cannot be written: {error}", name=self._name, error=str(error))
        self._has_failed = True

    async def write(self) -> None:
        """Write it now. Raises StoreError; then it is written another time."""
        async with self._lock:
            delivered, self._delivered = self._delivered, {}
            if not delivered:
                return
            try:
                await self._reader.confirm_all(delivered.values())
            except BaseException:
                self._delivered = delivered | self._delivered
                raise

    async def rewind(self) -> None:
        """Go back to the cursor, after writing it if that is possible."""
        try:
            await self.write()
        except StoreError:
            self._delivered.clear()  # these are read and delivered once more
        self._reader.rewind()


class _Delivery:
    """An entry under way; ``remaining`` of its messages wait for their PUBACK or are not sent yet."""

    __slots__ = ("entry", "remaining")

    def __init__(self, entry: LogEntry) -> None:
        self.entry = entry
        self.remaining = len(entry.messages)


class Publisher:
    """Publishes one log. ``name`` is for the log and the metrics, e.g. ``channels``."""

    log = Logger()

    def __init__(self, client: MqttClient, reader: Reader, topic_of: TopicOf, name: str) -> None:
        self.name = name
        self._client = client
        self._reader = reader
        self._topic_of = topic_of
        self._cursor = Cursor(reader, name)
        self._pending: deque[_Delivery] = deque()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_stopping = False
        self._has_failed = False

    async def run(self) -> None:
        """Publish until cancelled, or until :meth:`stop` has drained what is in flight."""
        confirming = asyncio.ensure_future(self._cursor.run())
        try:
            await self._client.serve(self._publish_over)
        finally:
            confirming.cancel()

    async def stop(self, timeout: float) -> bool:
        """Take nothing more from the log, wait for what is in flight, write the cursor; False: not all in ``timeout``.

        Cancel :meth:`run` afterwards.
        """
        self._is_stopping = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
                await self._cursor.write()
        except (TimeoutError, StoreError):
            return False
        return True

    async def _publish_over(self, link: Link) -> None:
        await self._cursor.rewind()
        try:
            await self._publish_log(link)
        finally:
            # what is in flight now will never be acknowledged
            self._pending.clear()
            self._idle.set()

    async def _publish_log(self, link: Link) -> None:
        while True:
            entries = await self._read(link)
            for entry in entries:
                if self._is_stopping:
                    break
                await self._publish(link, entry)
            if not link.is_alive:
                raise BrokerUnavailable("the connection to the broker is gone")
            if self._is_stopping:
                await link.wait_for(self._idle)
                return

    async def _read(self, link: Link) -> list[LogEntry]:
        started = asyncio.get_running_loop().time()
        try:
            entries = await self._reader.read(READ_ENTRIES)
        except StoreError as error:
            self._tell_failure(error)
            await asyncio.sleep(RETRY_INTERVAL)
            return []
        self._has_failed = False
        if not entries and asyncio.get_running_loop().time() - started < RETRY_INTERVAL / 2:
            await asyncio.sleep(RETRY_INTERVAL)  # there is no log yet
        return entries

    def _tell_failure(self, error: StoreError) -> None:
        if not self._has_failed:
            self.log.warn("the log of {name} cannot be read: {error}", name=self.name, error=str(error))
        self._has_failed = True

    async def _publish(self, link: Link, entry: LogEntry) -> None:
        delivery = _Delivery(entry)
        self._pending.append(delivery)
        self._idle.clear()
        topic = self._topic_of(entry)
        if topic is None or not entry.messages:
            self._skip(delivery)
            return
        on_ack = partial(self._acknowledged, delivery)
        for message in entry.messages:
            if not link.has_room:
                await link.room()
            link.publish(topic, message, on_ack, link.stamp(timestamp_of(message)))

    def _acknowledged(self, delivery: _Delivery) -> None:
        delivery.remaining -= 1
        if not delivery.remaining:
            self._advance()

    def _advance(self) -> None:
        pending = self._pending
        messages = 0
        while pending and pending[0].remaining == 0:
            delivery = pending.popleft()
            messages += len(delivery.entry.messages)
            self._cursor.deliver(delivery.entry)
        if messages:
            metrics.count("mqtt_messages_published", messages, log=self.name)
        if not pending:
            self._idle.set()

    def _skip(self, delivery: _Delivery) -> None:
        n = metrics.count("mqtt_messages_skipped", len(delivery.entry.messages) or 1, reason="no topic")
        if n == 1 or n % LOG_EVERY == 0:
            self.log.error("{ident!r} cannot be part of a topic: skipped", ident=delivery.entry.ident)
        delivery.remaining = 0
        self._advance()
