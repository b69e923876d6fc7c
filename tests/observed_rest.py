"""The API over a running channel with trackers on real sockets, as the tests of what is observed meet it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.store.history import ChannelHistory
from tests.builders import FrameFactory
from tests.items_rest import KEYS, gateway
from tests.rest import Rest

LOCAL = "interface=127.0.0.1"


@asynccontextmanager
async def observed_gateway(redis: Any, **configuration: Any) -> AsyncIterator[Rest]:
    """Channel 1, on a port of its own."""
    async with gateway(redis) as there:
        there.parts.history = ChannelHistory(redis, KEYS, there.parts.items)
        configuration = {"listen": [f"tcp:0:{LOCAL}"], **configuration}
        await there.post("/gw/channels", [{"name": "one", "configuration": configuration}])
        yield there


class Tracker:
    """One on TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, there: Rest, channel_id: int = 1) -> Tracker:
        channel = there.parts.items.channels[channel_id]
        port = there.parts.channels.port_of(channel)
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    @classmethod
    async def log_in(cls, there: Rest, frames: FrameFactory | None = None, answer: bytes = b"\x01") -> Tracker:
        tracker = await cls.connect(there)
        assert await tracker.ask((frames or FrameFactory()).login(), len(answer)) == answer
        return tracker

    async def ask(self, data: bytes, size: int) -> bytes:
        """Send ``data``, and read so many bytes."""
        self.writer.write(data)
        async with asyncio.timeout(5):
            return await self.reader.readexactly(size)

    async def is_closed(self) -> bool:
        """Whether the gateway closes, within some seconds."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        await asyncio.wait([asyncio.ensure_future(self.writer.wait_closed())], timeout=2)


async def until(check: Any) -> Any:
    """What ``check`` gives, as soon as that is something."""
    async with asyncio.timeout(10):
        while not (value := await check()):
            await asyncio.sleep(0.01)
    return value
