"""The channel log: where a packet becomes durable.

Whatever all connections bring while one commit is under way goes into the next one (group commit), a single
``MULTI``/``EXEC`` of ``XADD``: all of it is stored or nothing. An entry is one packet; its id is the
``server.timestamp`` of its last message in microseconds, so a commit whose answer got lost can be looked up before
it is tried again, and can never be stored twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from attrs import define
from twisted.logger import Logger

from gateway import metrics
from gateway.errors import NotCommitted, StoreError, StoreFull, StoreUnavailable
from gateway.store.connection import Client, is_refusal, store_errors
from gateway.store.gate import Gate
from gateway.store.keys import ShardKeys

MiB = 1024 * 1024

BATCH_ENTRIES = 1000
"""Packets in one commit: 100 trackers bring 100 at a time; more than this makes Redis deaf to its readers."""
BATCH_BYTES = 8 * MiB
PENDING_BYTES = 64 * MiB
"""What may wait for its commit before the gate closes."""
PARKED_ENTRIES = 1000
"""Undecodable packets kept for each channel; the oldest go first."""
RETRY_FIRST, RETRY_MOST = 0.1, 2.0

Done = Callable[[StoreError | None], None]


@define(eq=False)
class Pending:
    """A packet on its way into the log; ``done`` is called once, with None or with why it will not get there."""

    stream: str
    id: int
    ident: str
    data: bytes
    done: Done
    is_parked: bool = False
    reason: str = ""

    def command(self) -> tuple[object, ...]:
        """The command that stores it."""
        trim: tuple[object, ...] = ("MAXLEN", "~", PARKED_ENTRIES) if self.is_parked else ()
        field = "frame" if self.is_parked else "messages"
        told = ("reason", self.reason) if self.reason else ()
        return ("XADD", self.stream, *trim, f"{self.id}-0", "ident", self.ident, field, self.data, *told)


class ChannelClock:
    """Gives ``server.timestamp`` in microseconds: unique and strictly rising, whatever the system's clock does."""

    def __init__(self, now: Callable[[], float], last: int = 0) -> None:
        self._now = now
        self.last = last

    def reserve(self, count: int) -> int:
        """The first of ``count`` consecutive microseconds, later than any given before."""
        first = max(int(self._now() * 1_000_000), self.last + 1)
        self.last = first + count - 1
        return first


class LogWriter:
    """Takes packets from the channels and commits them in groups. One for each process and shard."""

    log = Logger()

    def __init__(self, redis: Client, keys: ShardKeys, gate: Gate, *, now: Callable[[], float] = time.time) -> None:
        self._redis = redis
        self._keys = keys
        self._gate = gate
        self._now = now
        self._clocks: dict[int, ChannelClock] = {}
        self._queue: deque[Pending] = deque()
        self._pending_bytes = 0
        self._resynchronizing: asyncio.Future[None] | None = None
        self.unregistered_bytes = 0
        """Committed since the start, and not yet told to :meth:`registered`."""
        self.on_commit: list[Callable[[], None]] = []
        """Each is called when packets were stored; must not raise."""
        self._wakeup = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def open_channel(self, channel_id: int) -> None:
        """Learn the last ``server.timestamp`` of a channel; before its first packet, and once more after a misfit.

        Raises StoreError.
        """
        last = 0
        for stream in (self._keys.channel_log(channel_id), self._keys.parked(channel_id)):
            last = max(last, await self._last_id(stream))
        if channel_id in self._clocks:
            self._clocks[channel_id].last = max(self._clocks[channel_id].last, last)
        else:
            self._clocks[channel_id] = ChannelClock(self._now, last)

    def reserve(self, channel_id: int, count: int) -> int:
        """The first of ``count`` consecutive server timestamps (microseconds) for what :meth:`append` gets next."""
        return self._clocks[channel_id].reserve(count)

    def append(self, channel_id: int, last_timestamp: int, ident: str, messages: bytes, done: Done) -> None:
        """Commit a packet's ``messages`` (JSON texts, one a line); ``last_timestamp`` is that of its last message."""
        self._push(Pending(self._keys.channel_log(channel_id), last_timestamp, ident, messages, done))

    def park(self, channel_id: int, ident: str, frame: bytes, done: Done, reason: str = "") -> None:
        """Keep a packet that nobody can decode, so that it can be acknowledged and looked at."""
        stream = self._keys.parked(channel_id)
        self._push(Pending(stream, self.reserve(channel_id, 1), ident, frame, done, is_parked=True, reason=reason))

    def _push(self, pending: Pending) -> None:
        self._queue.append(pending)
        self._pending_bytes += len(pending.data)
        self._idle.clear()
        self._wakeup.set()
        if self._pending_bytes > PENDING_BYTES:
            self._gate.close("pending", f"more than {PENDING_BYTES // MiB} MiB wait for Redis")

    def registered(self, size: int) -> None:
        """The registrar has dealt with so many bytes."""
        self.unregistered_bytes = max(0, self.unregistered_bytes - size)

    async def run(self) -> None:
        """Commit until cancelled. It never gives up on a packet whose commit may have happened."""
        with metrics.showing(
            log_pending_packets=lambda: len(self._queue), log_pending_bytes=lambda: self._pending_bytes
        ):
            while True:
                await self._wakeup.wait()
                self._wakeup.clear()
                await self._commit_all()
                self._idle.set()

    async def _commit_all(self) -> None:
        while self._queue:
            batch = self._take_batch()
            await self._commit(batch)
            size = sum(len(pending.data) for pending in batch)
            self._pending_bytes -= size
            self.unregistered_bytes += size
            for committed in self.on_commit:
                committed()
            if self._pending_bytes <= PENDING_BYTES // 2:
                self._gate.open("pending")

    async def drain(self, timeout: float) -> bool:
        """Wait until everything taken is committed; False when ``timeout`` seconds were not enough."""
        if self._idle.is_set():
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def _take_batch(self) -> list[Pending]:
        batch: list[Pending] = []
        size = 0
        while self._queue and len(batch) < BATCH_ENTRIES and size < BATCH_BYTES:
            pending = self._queue.popleft()
            size += len(pending.data)
            batch.append(pending)
        return batch

    async def _commit(self, batch: list[Pending]) -> None:
        """Store the whole of ``batch``, however long Redis is away, and tell each packet how it went."""
        delay = RETRY_FIRST
        is_uncertain = False
        while True:
            try:
                if is_uncertain:
                    batch = await self._without_stored(batch)
                results = await self._execute(batch)
                break
            except StoreFull as error:
                metrics.count("log_commit_failures", reason="no memory")
                self._gate.close("memory", f"Redis takes no more data ({error})")
            except StoreUnavailable as error:
                metrics.count("log_commit_failures", reason="no answer")
                self._gate.close("redis", f"Redis does not answer ({error})")
                is_uncertain = True
            except StoreError as error:
                metrics.count("log_commit_failures", reason="refused")
                self.log.error("Redis refused a commit of {n} packets: {error}", n=len(batch), error=str(error))
                results = [error] * len(batch)
                break
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MOST)
        self._gate.open("memory")
        self._gate.open("redis")
        for pending, result in zip(batch, results, strict=True):
            self._tell(pending, self._misfit(pending, result) if is_refusal(result) else None)

    def _tell(self, pending: Pending, error: StoreError | None) -> None:
        """A bug in one connection must not end the writer of all."""
        try:
            pending.done(error)
        except Exception:
            self.log.failure("the owner of a packet of {ident}", ident=pending.ident)

    async def _execute(self, batch: list[Pending]) -> list[object]:
        if not batch:
            return []
        with store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                for pending in batch:
                    pipe.execute_command(*pending.command())
                started = time.perf_counter()
                results: list[object] = await pipe.execute(raise_on_error=False)
        metrics.observe("commit_seconds", time.perf_counter() - started)
        metrics.count("log_commits")
        return results

    async def _without_stored(self, batch: list[Pending]) -> list[Pending]:
        """Tell the packets that an attempt without an answer did store, and give back the others."""
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for pending in batch:
                    pipe.xrange(pending.stream, f"{pending.id}-0", f"{pending.id}-0")
                found = await pipe.execute()
        for pending, entries in zip(batch, found, strict=True):
            if entries:
                self._tell(pending, None)
        return [pending for pending, entries in zip(batch, found, strict=True) if not entries]

    def _misfit(self, pending: Pending, result: object) -> StoreError:
        """An id that is not later than the log's last one: somebody else writes to it, or it was stored and trimmed."""
        metrics.count("log_entries_refused")
        self.log.error(
            "{stream} refused entry {id}: {result}", stream=pending.stream, id=pending.id, result=str(result)
        )
        channel_id = int(pending.stream.rsplit(":", 2)[1])
        self._resynchronizing = asyncio.ensure_future(self._resynchronize(channel_id))
        return NotCommitted(str(result))

    async def _resynchronize(self, channel_id: int) -> None:
        try:
            await self.open_channel(channel_id)
        except StoreError as error:
            self.log.error("the clock of channel {id} could not be set: {error}", id=channel_id, error=str(error))

    async def _last_id(self, stream: str) -> int:
        with store_errors():
            if not await self._redis.exists(stream):
                return 0
            info = await self._redis.xinfo_stream(stream)
        last = info["last-generated-id"]
        return int((last.decode() if isinstance(last, bytes) else last).split("-")[0])
