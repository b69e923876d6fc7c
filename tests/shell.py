"""One channel as trackers meet it, without sockets: real sessions on a real log, transports in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransportWithDisconnection

from gateway.channel.connection import TrackerConnection
from gateway.channel.connections import Connections, Limits
from gateway.channel.datagrams import TrackerDatagrams
from gateway.channel.intake import Intake
from gateway.channel.observer import Observer
from gateway.protocols.catalog import TELTONIKA
from gateway.store.gate import Gate
from gateway.store.items import Channel, Items
from gateway.store.keys import ShardKeys
from gateway.store.log import LogWriter
from tests.builders import FrameFactory

KEYS = ShardKeys()
IMEI = FrameFactory().imei


class Transport(StringTransportWithDisconnection):
    """A transport in memory that can also be aborted."""

    disconnecting = False

    def abortConnection(self) -> None:
        self.loseConnection()


class Shell:
    """One channel on a real log, with connections in memory. Commits happen when the test says so."""

    def __init__(
        self, redis, limits: Limits | None = None, observe: Callable[[Items], Observer] | None = None, **configuration
    ) -> None:
        self.redis = redis
        self.gate = Gate()
        self.items = Items(redis)
        self.writer = LogWriter(redis, KEYS, self.gate)
        self.limits = limits or Limits()
        self.time = 0.0
        self.turns: list[Callable[[], None]] = []
        self.presence: list[tuple[str, bool]] = []
        self.connections = Connections(
            self.limits,
            lambda _protocol, ident, is_there: self.presence.append((ident, is_there)),
            lambda: self.time,
            device_for=self.items.device_for,
        )
        self.gate.subscribe(self, self._gate_changed)
        channel = Channel(id=1, name="test", protocol_id=14, configuration=configuration)
        observer = observe(self.items) if observe is not None else None
        self.intake = Intake(channel, TELTONIKA, self.items, self.writer, self.gate, self.limits.devices, observer)
        self._task: asyncio.Future | None = None

    async def open(self) -> None:
        await self.writer.open_channel(1)

    def _gate_changed(self, is_open: bool) -> None:
        for connection in list(self.connections):
            connection.gate_changed(is_open)

    def connect(self, port: int = 40000, host: str = "10.0.0.1") -> tuple[TrackerConnection, Transport]:
        connection = TrackerConnection(
            self.intake, self.connections, self.limits.packet_size, lambda: self.time, self.turns.append
        )
        transport = Transport(peerAddress=IPv4Address("TCP", host, port))
        transport.protocol = connection
        connection.makeConnection(transport)
        return connection, transport

    def log_in(self, frames: FrameFactory | None = None, **where) -> tuple[TrackerConnection, Transport]:
        connection, transport = self.connect(**where)
        connection.dataReceived((frames or FrameFactory()).login())
        assert transport.value() == b"\x01"
        transport.clear()
        return connection, transport

    async def commit(self) -> None:
        """Let everything that waits be stored."""
        task = asyncio.ensure_future(self.writer.run())
        assert await self.writer.drain(5)
        task.cancel()

    async def messages(self) -> list[dict]:
        rows = await self.redis.xrange(KEYS.channel_log(1))
        return [orjson.loads(text) for _id, fields in rows for text in fields[b"messages"].split(b"\n")]


class DatagramTransport:
    """Where datagrams go."""

    def __init__(self) -> None:
        self.written: list[tuple[bytes, tuple[str, int]]] = []

    def write(self, data: bytes, addr: tuple[str, int]) -> None:
        self.written.append((data, addr))


def datagrams(there: Shell, max_waiting: int = 10) -> tuple[TrackerDatagrams, DatagramTransport]:
    taker, transport = TrackerDatagrams(there.intake, max_waiting), DatagramTransport()
    taker.transport = transport
    return taker, transport
