"""Trackers on UDP.

There is no back-pressure: what cannot be taken is dropped unanswered, and the tracker sends it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from gateway import metrics
from gateway.channel.intake import Intake
from gateway.channel.observer import Decision, Sender
from gateway.errors import ProtocolViolation, StoreError
from gateway.protocols.teltonika.datagram import DatagramEvent, DatagramRejected, said_in

Address = tuple[str, int]

LOG_EVERY = 1000
"""Noise is logged the first time and then each so many times; anybody can send a datagram."""


def peer_of(addr: Address) -> str:
    """``ip:port``."""
    host, port = addr[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class TrackerDatagrams(DatagramProtocol):
    """All trackers of a channel on one UDP port. ``max_waiting`` bounds what waits for storage."""

    log = Logger()
    noisy = False

    def __init__(self, intake: Intake, max_waiting: int, now: Callable[[], float] = time.monotonic) -> None:
        self._intake = intake
        self._now = now
        self._max_waiting = max_waiting
        self._waiting = 0
        self._is_draining = False

    def stop_taking(self) -> None:
        """Take nothing new; what is being stored is still acknowledged."""
        self._is_draining = True

    def start_taking(self) -> None:
        """Take what comes from now on."""
        self._is_draining = False

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        if self._is_draining or not self._intake.gate.is_open or self._waiting >= self._max_waiting:
            metrics.count("datagrams_dropped", channel=self._intake.channel.name)
            return
        try:
            event = self._intake.protocol.receive_datagram(datagram)
        except ProtocolViolation as violation:
            self._ignore(violation, datagram, addr)
            return
        self._waiting += 1
        sender = Sender(self._intake.channel, event.ident, peer_of(addr))
        if self._intake.packets_ttl:
            self._intake.observer.received(sender, datagram)
        self._intake.decide(event.ident, partial(self._take, event, addr, sender, self._now()))

    def _take(self, event: DatagramEvent, addr: Address, sender: Sender, began: float, decision: Decision) -> None:
        self._intake.observer.noted(sender, event.ident, decision)
        if not decision.is_welcome:
            self._waiting -= 1
            metrics.count("idents_rejected", channel=self._intake.channel.name)
            return
        committed = partial(self._committed, event, addr, sender, began)
        if isinstance(event, DatagramRejected):
            said = said_in(event)
            if said:
                self._intake.say(event.ident, sender.peer, said, partial(committed, 0))
                return
            self._intake.observer.rejected(sender, event.reason, event.datagram, is_parked=True)
            self._intake.park(event.ident, event.datagram, event.reason, partial(committed, event.count))
            return
        packet: Mapping[str, Any] = event.packet
        normalizer = self._intake.normalizer_for(event.ident)
        self._intake.submit(
            event.ident, sender.peer, normalizer, packet, event.body, partial(committed, packet["count"])
        )

    def _committed(
        self,
        event: DatagramEvent,
        addr: Address,
        sender: Sender,
        began: float,
        count: int,
        error: StoreError | None,
    ) -> None:
        self._waiting -= 1
        answer = self._intake.protocol.acknowledge_datagram(event, count) if error is None else b""
        if not answer or self.transport is None:
            return
        with suppress(OSError):  # a sender that cannot be answered: its address is made up
            self.transport.write(answer, addr)
        metrics.observe("ack_seconds", self._now() - began)
        if self._intake.packets_ttl:
            self._intake.observer.sent(sender, answer)
        elif isinstance(event, DatagramRejected):
            self._intake.observer.answered(sender, answer)

    def _ignore(self, violation: ProtocolViolation, datagram: bytes, addr: Address) -> None:
        sender = Sender(self._intake.channel, None, peer_of(addr))
        self._intake.observer.violated(sender, str(violation), datagram)
        n = metrics.count("violations", channel=self._intake.channel.name, reason=violation.reason)
        if n % LOG_EVERY == 1:
            self.log.info(
                "ignored a datagram from {host}:{port} ({n}.): {violation}",
                host=addr[0], port=addr[1], n=n, violation=str(violation),
            )  # fmt: skip
