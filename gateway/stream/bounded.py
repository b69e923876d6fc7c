"""Connections to targets that may announce any length, and are believed up to a bound."""

from __future__ import annotations

import asyncio
import ssl


class BoundedReader(asyncio.StreamReader):
    """What is to come in one piece can have ``most`` bytes: asyncio would gather whatever was announced."""

    def __init__(self, most: int) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._most = most

    async def readexactly(self, n: int) -> bytes:
        """As the base's. Raises ConnectionError where that is too much."""
        if n > self._most:
            raise ConnectionError(f"{n} bytes were announced, {self._most} is the most that is taken at once")
        return await super().readexactly(n)


async def open_bounded(
    host: str, port: int, context: ssl.SSLContext | None, most: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As ``asyncio.open_connection``, with such a reader."""
    loop = asyncio.get_running_loop()
    reader = BoundedReader(most)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, ssl=context)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
