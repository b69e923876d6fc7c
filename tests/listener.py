"""A channel that listens on real ports, with its log in a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import orjson

from gateway.channel.channels import Channels
from gateway.channel.connections import Limits
from gateway.store.connection import Client
from gateway.store.gate import Gate
from gateway.store.items import Channel, Items
from gateway.store.keys import ShardKeys
from gateway.store.log import LogWriter
from tests.builders import FrameFactory

KEYS = ShardKeys()
LOCAL = "interface=127.0.0.1"


@attrs.define
class Listener:
    """While it listens."""

    redis: Client
    channels: Channels
    channel: Channel

    @property
    def port(self) -> int:
        port = self.channels.port_of(self.channel)
        assert port is not None
        return port

    async def messages(self) -> list[dict]:
        rows = await self.redis.xrange(KEYS.channel_log(self.channel.id))
        return [orjson.loads(text) for _id, fields in rows for text in fields[b"messages"].split(b"\n")]

    async def connected(self, count: int) -> None:
        """Wait for so many connections, no more and no less."""
        async with asyncio.timeout(10):
            while len(self.channels.connections) != count:
                await asyncio.sleep(0.005)

    async def open(self, tls: ssl.SSLContext | None = None) -> Tracker:
        return await Tracker.open(self.port, tls)


@asynccontextmanager
async def listening(redis: Client, *specs: str, limits: Limits | None = None) -> AsyncIterator[Listener]:
    from twisted.internet import reactor

    gate = Gate()
    writer = LogWriter(redis, KEYS, gate)
    channels = Channels(reactor, Items(redis), writer, gate, limits or Limits())
    channel = Channel(id=1, name="test", protocol_id=14, configuration={"listen": list(specs)})
    await channels.start_channel(channel)
    writing = asyncio.ensure_future(writer.run())
    try:
        yield Listener(redis, channels, channel)
    finally:
        await channels.stop(timeout=1)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


@attrs.define
class Tracker:
    """The other side of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    frames: FrameFactory = attrs.field(factory=FrameFactory)

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None = None) -> Tracker:
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=tls))

    @property
    def address(self) -> str:
        host, port = self.writer.get_extra_info("sockname")[:2]
        return f"{host}:{port}"

    async def start_tls(self, context: ssl.SSLContext) -> None:
        await self.writer.start_tls(context, server_hostname="127.0.0.1")

    async def send(self, data: bytes, piece: int = 0) -> None:
        """In pieces of so many bytes; 0: all at once."""
        for begin in range(0, len(data), piece or len(data)):
            self.writer.write(data[begin : begin + (piece or len(data))])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def log_in(self, before: bytes = b"", piece: int = 0) -> None:
        """Send ``before`` and the IMEI, and wait for the verdict."""
        await self.send(before + self.frames.login(), piece)
        assert await asyncio.wait_for(self.reader.readexactly(1), 10) == b"\x01"

    async def deliver(self) -> None:
        """A packet with one record, and its acknowledgement."""
        await self.send(self.frames.packet(1))
        assert await asyncio.wait_for(self.reader.readexactly(4), 10) == b"\0\0\0\1"

    async def closed(self) -> bytes:
        """What came before the gateway closed."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            return await asyncio.wait_for(self.reader.read(), 10)
        return b""

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
