"""One stream: batches in order, each until the target has it, with pauses that grow while it does not take them.

A message leaves the queue when the target has confirmed or rejected it, or when it has waited for ``queue_ttl``. A
crash between the target's confirmation and the writing of the cursor delivers that batch once more: at least once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger

from gateway import metrics
from gateway.aio import heed_cancellation
from gateway.errors import GatewayError, RemoteRefused, RemoteUnavailable, StoreError
from gateway.store.event_codes import EventCode
from gateway.store.items import Stream
from gateway.stream.queue import Queue
from gateway.stream.state import StreamState
from gateway.stream.target import Outgoing, Target

OPEN_TIME = 30.0
DELIVER_TIME = 150.0
"""Seconds at most, whatever a type says of itself."""
CLOSE_TIME = 5.0
RETRY_FIRST, RETRY_MOST = 1.0, 60.0
STORE_RETRY = 1.0
GATHER = 0.1
"""Seconds between two looks at the logs, unless a batch was full: each look, request and cursor costs as much as many
messages, and trackers wait meanwhile. What comes after a silence is delivered at once."""
NEWS_WAIT = 1.0
"""Seconds that a stream with nothing to do waits for something new; then it looks by itself."""
REJECTIONS_TOLD = 10
"""Of a batch that have an entry in the log each; the others are counted."""
EXCERPT_MOST = 2000
"""Characters of a rejected message that an entry of the log shows."""

Record = Callable[..., object]


class Sender:
    """Runs one enabled stream. ``state`` is shared with whoever shows it; ``changed`` is told when it changes.

    ``wait_for_news`` waits until something came, so many seconds at most.
    """

    log = Logger()

    def __init__(
        self,
        stream: Stream,
        target: Target,
        queue: Queue,
        state: StreamState,
        *,
        record: Record,
        changed: Callable[[Stream], None],
        wait_for_news: Callable[[float], Any],
        now: Callable[[], float] = time.time,
        retry_first: float = RETRY_FIRST,
    ) -> None:
        self._stream = stream
        self._target = target
        self._queue = queue
        self._state = state
        self._record = record
        self._changed = changed
        self._wait_for_news = wait_for_news
        self._now = now
        self._retry_first = retry_first
        self._delay = retry_first
        self._limit: int = target.config.limit_messages
        self._is_open = False
        self._is_holding = False
        self._is_unconfirmed = False
        """The target has a batch, and the cursors do not say so yet."""
        self._is_failing = False
        """A batch was not taken, and none since."""
        self._looked_at = float("-inf")

    async def run(self) -> None:
        """Deliver until cancelled."""
        self._become("connecting")
        try:
            while True:
                heed_cancellation()
                try:
                    await self._step()
                except StoreError as error:
                    self._tell_store(error)
                    if not self._is_unconfirmed:  # or what the target has would be delivered once more
                        self._queue.rewind()
                        self._is_holding = False
                    await asyncio.sleep(STORE_RETRY)
        finally:
            await self._close()

    async def _step(self) -> None:
        if self._is_unconfirmed:
            await self._confirm()
        if not self._is_holding:
            await self._queue.hold()
            self._is_holding = True
        if not self._is_open:
            await self._queue.fill(1)  # what waits for too long is given up also while the target is away
        await self._expire()
        if not self._is_open and not await self._open():
            return
        limit, self._looked_at = self._limit, time.monotonic()
        await self._queue.fill(limit)
        batch = self._queue.head(limit)
        if not batch:
            await self._queue.settle()
            await self._wait_for_news(NEWS_WAIT)
        elif await self._deliver(batch):
            await self._confirm()
        if len(batch) < limit:
            await asyncio.sleep(max(0.0, self._looked_at + GATHER - time.monotonic()))

    async def _confirm(self) -> None:
        self._is_unconfirmed = True
        await self._queue.confirm()
        self._is_unconfirmed = False

    async def _expire(self) -> None:
        """What is older than ``queue_ttl`` is given up, and the log says how much that was."""
        given_up = await self._queue.expire(self._now() - self._stream.queue_ttl)
        if given_up:
            await self._queue.confirm()
            self._state.counters.given_up += given_up
            self._count("given_up", given_up)
            reason = f"messages given up, since they were not delivered within {self._stream.queue_ttl} s: {given_up}"
            self._record("streams", self._stream.id, EventCode.STREAM_REJECTED, reason=reason, given_up=given_up)
            self.log.error("stream {id} ({name}): {reason}", id=self._stream.id, name=self._stream.name, reason=reason)

    # -- the connection

    async def _open(self) -> bool:
        try:
            async with asyncio.timeout(OPEN_TIME):
                await self._target.open()
        except Exception as error:
            await self._fail("cannot connect", _in_words(error, OPEN_TIME))
            return False
        self._is_open = True
        if not self._is_failing:  # only a batch that is taken shows that it works again
            self._become("connected")
            self._record("streams", self._stream.id, EventCode.STREAM_CONNECTED)
        return True

    async def _close(self) -> None:
        self._is_open = False
        try:
            async with asyncio.timeout(CLOSE_TIME):
                await self._target.close()
        except Exception as error:
            self.log.warn("stream {id}: closing: {error!r}", id=self._stream.id, error=error)

    # -- a batch

    async def _deliver(self, batch: Sequence[Outgoing]) -> bool:
        started = time.monotonic()
        left = [outgoing for outgoing in batch if not outgoing.is_done]
        try:
            async with asyncio.timeout(DELIVER_TIME):
                rejections = await self._target.deliver(left) if left else []
        except RemoteRefused as error:
            if error.is_too_large and len(left) > 1:
                self._limit = max(1, len(left) // 2)
                return False
            await self._fail("the target refuses a batch", error, left)
            return False
        except Exception as error:
            await self._fail("cannot deliver", _in_words(error, DELIVER_TIME), left)
            return False
        self._queue.drop(len(batch))
        self._delivered(batch, [(left[one.index], one.reason) for one in rejections], time.monotonic() - started)
        return True

    def _delivered(self, batch: Sequence[Outgoing], rejections: Sequence[tuple[Outgoing, str]], seconds: float) -> None:
        self._delay = self._retry_first
        self._limit = min(self._target.config.limit_messages, self._limit * 2)
        counters, passed = self._state.counters, self._queue.take_passed()
        accepted = len(batch) - len(rejections)
        counters.delivered += accepted
        counters.rejected += len(rejections)
        counters.skipped += passed.skipped
        self._state.delivered_at = self._now()
        self._count("delivered", accepted)
        self._count("rejected", len(rejections))
        self._count("skipped", passed.skipped)
        metrics.observe("stream_seconds", seconds, stream=str(self._stream.id))
        self._tell_recovery()
        self._become("connected")
        self._tell_rejections(rejections)
        self._record(
            "streams", self._stream.id, EventCode.STREAM_SENT, accepted=accepted, rejected=len(rejections),
            skipped=passed.skipped, read=passed.read, ack_latency=round(seconds, 6),
        )  # fmt: skip

    def _tell_recovery(self) -> None:
        if self._is_failing:
            self._is_failing = False
            self._record("streams", self._stream.id, EventCode.STREAM_RECOVERED)
            self.log.info("stream {id} ({name}) delivers again", id=self._stream.id, name=self._stream.name)

    def _tell_rejections(self, rejections: Sequence[tuple[Outgoing, str]]) -> None:
        for outgoing, reason in rejections[:REJECTIONS_TOLD]:
            self._record(
                "streams", self._stream.id, EventCode.STREAM_REJECTED, reason=reason,
                **self._about(outgoing), message=outgoing.text[:EXCERPT_MOST].decode("utf-8", "replace"),
            )  # fmt: skip
        left = len(rejections) - REJECTIONS_TOLD
        if left > 0:
            reason = f"{left} more messages of the same batch: {rejections[-1][1]}"
            self._record("streams", self._stream.id, EventCode.STREAM_REJECTED, reason=reason)

    # -- what went wrong

    async def _fail(self, what: str, error: Exception, batch: Sequence[Outgoing] = ()) -> None:
        """Say so, close the connection if that may help, and wait."""
        self._state.counters.failures += 1
        failures = metrics.count("stream_failures", stream=str(self._stream.id))
        is_mistake = not isinstance(error, GatewayError)
        reason = f"{type(error).__name__}: {error}" if is_mistake else str(error)
        if is_mistake and (failures == 1 or failures % 100 == 0):
            self.log.failure("stream {id} ({type}) has a mistake", id=self._stream.id, type=self._stream.protocol)
        was_connected, was_failing = self._state.is_connected, self._state.state == "failing"
        self._is_failing = self._is_failing or bool(batch)
        self._state.error, self._state.error_at = f"{what}: {reason}", self._now()
        self._become("failing")
        if was_connected and not isinstance(error, RemoteRefused):
            self._record("streams", self._stream.id, EventCode.STREAM_LOST, reason=reason)
        first = {**self._about(batch[0]), "messages": len(batch)} if batch else {}
        self._record(
            "streams", self._stream.id, EventCode.STREAM_FAILED,
            reason=f"{what}: {reason}", status=_status(error), **first,
        )  # fmt: skip
        if not was_failing or failures % 100 == 0:
            self.log.warn(
                "stream {id} ({name}): {what}: {reason}; it is tried again",
                id=self._stream.id, name=self._stream.name, what=what, reason=reason,
            )  # fmt: skip
        if not isinstance(error, RemoteRefused) or not self._is_open:
            await self._close()
        pause = self._delay * random.uniform(0.5, 1.0)
        self._state.next_attempt_at = self._now() + pause
        await asyncio.sleep(pause)
        self._delay = min(self._delay * 2, RETRY_MOST)

    def _about(self, outgoing: Outgoing) -> dict[str, Any]:
        """Which message it was."""
        ids = {"device_id": outgoing.device_id, "channel_id": outgoing.channel_id}
        timestamp = outgoing.source.get("timestamp")
        return {"ident": outgoing.ident, "message_timestamp": timestamp, **{k: v for k, v in ids.items() if v}}

    def _tell_store(self, error: StoreError) -> None:
        failures = metrics.count("stream_store_failures")
        if failures == 1 or failures % 100 == 0:
            self.log.warn("streams wait for Redis ({n}.): {error}", n=failures, error=str(error))

    def _count(self, result: str, count: int) -> None:
        if count:
            metrics.count("stream_messages", count, stream=str(self._stream.id), result=result)

    def _become(self, state: str) -> None:
        if state == "connected":
            self._state.error, self._state.error_at, self._state.next_attempt_at = "", None, None
        if state != self._state.state:
            self._state.state, self._state.since = state, self._now()
            self._changed(self._stream)


def _in_words(error: Exception, seconds: float) -> Exception:
    return RemoteUnavailable(f"no answer within {seconds:g} s") if type(error) is TimeoutError else error


def _status(error: Exception) -> int | None:
    return error.status or None if isinstance(error, RemoteRefused) else None
