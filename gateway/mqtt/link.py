"""An accepted connection as publishers see it: a window of messages in flight, and a callback for each PUBACK."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from twisted.logger import Logger

from gateway import metrics
from gateway.errors import BrokerUnavailable
from gateway.mqtt.connection import Connection, Limits
from gateway.mqtt.packets import NO_PROPERTIES, PUBLISH_QOS_0, PUBLISH_QOS_1, RETAIN, publish_head, stamp

WINDOW = 1000
"""Messages in flight at most: 700 kB of what trackers send; the broker may want fewer (Receive Maximum)."""
SMALL_WINDOW = 200
"""Below it (Mosquitto's default is 20) each PUBACK must bring the next message, or both ends wait for delayed ACKs."""
ACK_TIMEOUT = 60.0
"""Seconds that the oldest message may wait for its PUBACK (they come in order) before the broker is taken for dead."""
LOG_EVERY = 1000

FAILURE = 0x80
PERMANENT = {0x90: "topic name invalid", 0x95: "packet too large", 0x99: "payload format invalid"}
"""Reason codes that concern the one message and would be the same for ever (MQTT 5, 3.4.2.1)."""

OnAck = Callable[[], None]


class Link:
    """Lives as long as its connection: then waiters get BrokerUnavailable, and callbacks are forgotten, not called."""

    log = Logger()

    def __init__(self, connection: Connection, limits: Limits, window: int = WINDOW) -> None:
        self.limits = limits
        self.window = max(1, min(window, limits.receive_maximum))
        self._wake_below = self.window - (1 if self.window < SMALL_WINDOW else self.window // 10)
        self._connection = connection
        self._in_flight: dict[int, tuple[OnAck, bytes]] = {}
        self._last_id = 0
        self._oldest: tuple[OnAck, bytes] | None = None
        self._oldest_since = 0.0
        self._waiters: deque[asyncio.Future[None]] = deque()
        connection.on_pubacks = self._take_pubacks
        connection.on_room = self._wake_all_if_ended

    @property
    def is_alive(self) -> bool:
        """Whether the connection still stands."""
        return self._connection.is_alive

    @property
    def in_flight(self) -> int:
        """Messages sent and not acknowledged."""
        return len(self._in_flight)

    @property
    def has_room(self) -> bool:
        """Whether one more message may be published now."""
        connection = self._connection
        return len(self._in_flight) < self.window and not connection.is_paused and connection.is_alive

    async def room(self) -> None:
        """Wait for room; in turn, where several wait. Raises BrokerUnavailable when the connection is gone."""
        if self.has_room and not self._waiters:
            return
        while True:
            if not self.is_alive:
                raise BrokerUnavailable("the connection to the broker is gone")
            loop = asyncio.get_running_loop()
            waiter = loop.create_future()
            self._waiters.append(waiter)
            if self.has_room:  # those before us may have been cancelled
                loop.call_soon(self._wake)
            await waiter
            if self.has_room:
                return

    async def ended(self) -> str:
        """Wait until the connection is gone; why."""
        return await asyncio.shield(self._connection.ended)

    async def wait_for(self, event: asyncio.Event) -> None:
        """Wait for ``event``. Raises BrokerUnavailable when the connection ends before it."""
        happens = asyncio.ensure_future(event.wait())
        awaited: list[asyncio.Future[Any]] = [happens, self._connection.ended]
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            happens.cancel()
        if not event.is_set():
            raise BrokerUnavailable("the connection to the broker is gone")

    def stamp(self, timestamp: bytes) -> bytes:
        """The properties of a message of ``timestamp`` (seconds, decimal); none in MQTT 3.1.1."""
        return stamp(timestamp) if self._connection.is_v5 else b""

    def publish(
        self, topic: bytes, payload: bytes, on_ack: OnAck, properties: bytes = b"", *, retain: bool = False
    ) -> None:
        """Send with QoS 1 on a packed topic; ``on_ack`` is called once when that is done with.

        Callers wait for :meth:`room` first. A message that no broker of this kind would ever take is counted, logged
        and done with.
        """
        if not properties and self._connection.is_v5:
            properties = NO_PROPERTIES
        first = PUBLISH_QOS_1 | RETAIN if retain and self.limits.takes_retained else PUBLISH_QOS_1
        packet_id = self._next_id()
        head = publish_head(first, topic, packet_id.to_bytes(2, "big"), properties, len(payload))
        if len(head) + len(payload) > self.limits.maximum_packet_size:
            self._skip(topic, PERMANENT[0x95], on_ack)
            return
        self._in_flight[packet_id] = (on_ack, topic)
        self._connection.send(head, payload)

    @property
    def is_paused(self) -> bool:
        """Whether the connection takes no more just now."""
        return self._connection.is_paused

    def publish_unconfirmed(self, topic: bytes, payload: bytes, properties: bytes = b"") -> bool:
        """Send with QoS 0, unless that would have to wait; whether it was sent."""
        if self._connection.is_paused or not self._connection.is_alive:
            return False
        if not properties and self._connection.is_v5:
            properties = NO_PROPERTIES
        head = publish_head(PUBLISH_QOS_0, topic, b"", properties, len(payload))
        if len(head) + len(payload) > self.limits.maximum_packet_size:
            return False
        self._connection.send(head, payload)
        return True

    def abort(self, reason: str) -> None:
        """Cut the connection, so that it is made anew."""
        self._connection.abort(reason)

    def check_progress(self) -> None:
        """Cut the connection if the broker answers pings but has stopped acknowledging. To be called now and then."""
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is None or oldest is not self._oldest:
            self._oldest, self._oldest_since = oldest, monotonic()
        elif monotonic() - self._oldest_since > ACK_TIMEOUT:
            self.abort(f"the broker has not acknowledged a message for {ACK_TIMEOUT:.0f} seconds")

    def _next_id(self) -> int:
        packet_id = self._last_id
        while True:
            packet_id = packet_id % 65535 + 1
            if packet_id not in self._in_flight:
                self._last_id = packet_id
                return packet_id

    def _take_pubacks(self, pubacks: list[tuple[int, int]]) -> None:
        for packet_id, reason in pubacks:
            awaited = self._in_flight.pop(packet_id, None)
            if awaited is None:
                continue
            on_ack, topic = awaited
            if reason < FAILURE:
                self._done(on_ack)
            elif reason in PERMANENT:
                self._skip(topic, PERMANENT[reason], on_ack)
            else:
                self._refuse(topic, reason)
                return
        self._wake()

    def _done(self, on_ack: OnAck) -> None:
        """A callback that raises is a bug of ours; it is not to take the connection along."""
        try:
            on_ack()
        except Exception:
            self.log.failure("a callback of an acknowledgement failed")

    def _skip(self, topic: bytes, reason: str, on_ack: OnAck) -> None:
        """A message that would be refused for ever must not hold up those behind it."""
        n = metrics.count("mqtt_messages_skipped", reason=reason)
        if n == 1 or n % LOG_EVERY == 0:
            self.log.error(
                "skipped a message on {topic!r}: {reason} ({n} so far)", topic=topic[2:].decode(), reason=reason, n=n
            )
        self._done(on_ack)

    def _refuse(self, topic: bytes, reason: int) -> None:
        """Quota, authorization and the like may be mended: the message stays where it came from, and is tried again."""
        metrics.count("mqtt_publish_refused", reason=f"0x{reason:02x}")
        self.abort(f"the broker refused a message on {topic[2:].decode()!r} with reason code 0x{reason:02x}")

    def _wake(self) -> None:
        """Let the first waiter go on; the others have their turn after it has taken what it wants.

        In a large window a tenth must be free before that: to wake for each message would cost more than the message.
        """
        while self._waiters and self._waiters[0].done():
            self._waiters.popleft()
        if not self._waiters or not self.has_room or len(self._in_flight) > self._wake_below:
            return
        self._waiters.popleft().set_result(None)
        if self._waiters:
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake_all_if_ended(self) -> None:
        if self.is_alive:
            self._wake()
            return
        self._in_flight.clear()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
