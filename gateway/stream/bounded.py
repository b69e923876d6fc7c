"""Connections to targets that may announce any length, and are believed up to a bound."""

from __future__ import annotations

import asyncio
import ssl


class TooMuchAnnounced(ConnectionError):
    """More than is taken at once, or less than nothing."""


class BoundedReader(asyncio.StreamReader):
    """What is to come in one piece can have ``most`` bytes: asyncio would gather whatever was announced."""

    def __init__(self, most: int) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._most = most

    async def readexactly(self, n: int) -> bytes:
        """As the base's. Raises TooMuchAnnounced."""
        check_announced(n, self._most)
        return await super().readexactly(n)


def check_announced(size: int, most: int) -> None:
    """Raises TooMuchAnnounced."""
    if not 0 <= size <= most:
        raise TooMuchAnnounced(f"{size} bytes were announced, {most} is the most that is taken at once")


async def open_bounded(
    host: str, port: int, context: ssl.SSLContext | None, most: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As ``asyncio.open_connection``, with such a reader."""
    loop = asyncio.get_running_loop()
    reader = BoundedReader(most)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, ssl=context)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
