"""Trackers on UDP.

There is no back-pressure: what cannot be taken is dropped unanswered, and the tracker sends it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from gateway import metrics
from gateway.channel.intake import Intake
from gateway.errors import ProtocolViolation, StoreError
from gateway.protocols.teltonika.datagram import DatagramEvent, DatagramRejected

Address = tuple[str, int]

LOG_EVERY = 1000
"""Noise is logged the first time and then each so many times; anybody can send a datagram."""


class TrackerDatagrams(DatagramProtocol):
    """All trackers of a channel on one UDP port. ``max_waiting`` bounds what waits for storage."""

    log = Logger()
    noisy = False

    def __init__(self, intake: Intake, max_waiting: int) -> None:
        self._intake = intake
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
            self._ignore(violation, addr)
            return
        self._waiting += 1
        self._intake.decide(event.ident, partial(self._take, event, addr))

    def _take(self, event: DatagramEvent, addr: Address, is_welcome: bool | None) -> None:
        if not is_welcome:
            self._waiting -= 1
            metrics.count("idents_rejected", channel=self._intake.channel.name)
            return
        if isinstance(event, DatagramRejected):
            self._intake.park(
                event.ident, event.datagram, event.reason, partial(self._committed, event, event.count, addr)
            )
            return
        packet: Mapping[str, Any] = event.packet
        normalizer = self._intake.normalizer_for(event.ident)
        committed = partial(self._committed, event, packet["count"], addr)
        self._intake.submit(event.ident, f"{addr[0]}:{addr[1]}", normalizer, packet, event.body, committed)

    def _committed(self, event: DatagramEvent, count: int, addr: Address, error: StoreError | None) -> None:
        self._waiting -= 1
        answer = self._intake.protocol.acknowledge_datagram(event, count) if error is None else b""
        if answer and self.transport is not None:
            with suppress(OSError):  # a sender that cannot be answered: its address is made up
                self.transport.write(answer, addr)

    def _ignore(self, violation: ProtocolViolation, addr: Address) -> None:
        n = metrics.count("violations", channel=self._intake.channel.name, reason=violation.reason)
        if n % LOG_EVERY == 1:
            self.log.info(
                "ignored a datagram from {host}:{port} ({n}.): {violation}",
                host=addr[0], port=addr[1], n=n, violation=str(violation),
            )  # fmt: skip
