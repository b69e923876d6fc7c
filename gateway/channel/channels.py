"""What listens where: the channels' endpoints, their connections, and an orderly end."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorUDP
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from gateway import aio
from gateway.channel.connection import TrackerConnection
from gateway.channel.connections import Connections, Limits, OnPresence
from gateway.channel.datagrams import TrackerDatagrams
from gateway.channel.intake import Intake
from gateway.errors import ConfigError, ListenError
from gateway.protocols.catalog import PROTOCOLS
from gateway.store.gate import Gate
from gateway.store.items import Channel, Items
from gateway.store.log import LogWriter

SWEEP_EVERY = 10.0
"""Seconds between looks for connections that are silent or gone."""
CLOSE_TIME = 2.0
"""Seconds that connections have to take their last acknowledgement at a stop."""
UDP = re.compile(r"udp:(?P<port>\d+)(?::interface=(?P<interface>[^:]+))?")


@define
class Listening:
    """One channel while it listens."""

    channel: Channel
    streams: list[IListeningPort] = field(factory=list)
    datagrams: list[IListeningPort] = field(factory=list)
    takers: list[TrackerDatagrams] = field(factory=list)


class TrackerFactory(Factory):
    """Makes the protocol of each connection."""

    noisy = False

    def __init__(self, make: Callable[[], TrackerConnection]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> TrackerConnection:
        return self._make()


class Channels:
    """Starts and stops channels; stopping finishes what was taken."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        items: Items,
        writer: LogWriter,
        gate: Gate,
        limits: Limits,
        *,
        on_presence: OnPresence = lambda protocol_id, ident, is_connected: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reactor = reactor
        self._items = items
        self._writer = writer
        self._gate = gate
        self._limits = limits
        self._now = now
        self._listening: dict[int, Listening] = {}
        self.connections = Connections(limits, on_presence, now)
        gate.subscribe(self, self._gate_changed)

    async def start(self, channel: Channel) -> None:
        """Listen on all endpoints of ``channel``, or on none. Raises ListenError, ConfigError, StoreError."""
        await self._writer.open_channel(channel.id)
        intake = Intake(
            channel, PROTOCOLS[channel.protocol_id], self._items, self._writer, self._gate, self._limits.devices
        )
        listening = self._listening[channel.id] = Listening(channel)
        try:
            for spec in channel.listen:
                await self._listen(listening, intake, spec)
        except BaseException:
            await self._stop_listening(listening)
            del self._listening[channel.id]
            raise

    def addresses(self) -> list[tuple[Channel, str]]:
        """What listens where, for people: (channel, "tcp 0.0.0.0:5027")."""
        return [
            (listening.channel, _readable(port))
            for listening in self._listening.values()
            for port in (*listening.streams, *listening.datagrams)
        ]

    async def stop(self, timeout: float) -> None:
        """Stop listening, store and acknowledge what was taken (``timeout`` seconds at most), close all connections."""
        self._gate.unsubscribe(self)
        for listening in self._listening.values():
            await _stop_all(listening.streams)
            for taker in listening.takers:
                taker.stop_taking()
        for connection in list(self.connections):
            connection.stop_taking()
        if not await self._writer.drain(timeout):
            self.log.warn("stopped before all packets were stored: the trackers will send them again")
        for listening in self._listening.values():
            await self._stop_listening(listening)
        await self._close_all()
        self._listening.clear()

    async def sweep_forever(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            self.connections.sweep()

    def _gate_changed(self, is_open: bool) -> None:
        for connection in list(self.connections):
            connection.gate_changed(is_open)

    async def _listen(self, listening: Listening, intake: Intake, spec: str) -> None:
        where = f"channel {intake.channel.name}: {spec}"
        try:
            if spec.startswith("udp:"):
                taker = TrackerDatagrams(intake, self._limits.pending_packets_udp)
                listening.datagrams.append(_listen_udp(self._reactor, spec, taker))
                listening.takers.append(taker)
            else:
                factory = TrackerFactory(lambda: self._connection(intake))
                port = await aio.from_deferred(serverFromString(self._reactor, spec).listen(factory))
                listening.streams.append(port)
        except CannotListenError as error:
            raise ListenError(f"{where}: cannot listen: {error.socketError}") from error
        except Exception as error:  # a key file, a port beyond 65535, a syntax: each raises something else
            raise ConfigError(f"{where}: not an endpoint that can be listened on: {error}") from error

    def _connection(self, intake: Intake) -> TrackerConnection:
        return TrackerConnection(
            intake,
            self.connections,
            self._limits.packet_size,
            self._now,
            lambda function: self._reactor.callLater(0, function),
        )

    async def _stop_listening(self, listening: Listening) -> None:
        await _stop_all(listening.streams)
        await _stop_all(listening.datagrams)

    async def _close_all(self) -> None:
        for connection in list(self.connections):
            connection.close("the gateway stops", is_routine=True)
        deadline = self._now() + CLOSE_TIME
        while len(self.connections) and self._now() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort("the gateway stops", is_routine=True)


def _listen_udp(reactor: IReactorUDP, spec: str, protocol: TrackerDatagrams) -> IListeningPort:
    match = UDP.fullmatch(spec)
    if match is None:
        raise ValueError("should be udp:PORT or udp:PORT:interface=ADDRESS")
    return reactor.listenUDP(int(match["port"]), protocol, interface=match["interface"] or "", maxPacketSize=65535)


async def _stop_all(ports: list[IListeningPort]) -> None:
    while ports:
        stopping = ports.pop().stopListening()
        if stopping is not None:
            await aio.from_deferred(stopping)


def _readable(port: IListeningPort) -> str:
    address = port.getHost()
    kind = getattr(address, "type", "unix").lower()
    return f"{kind} {address.host}:{address.port}" if isinstance(address, IPv4Address) else f"{kind} {address}"
