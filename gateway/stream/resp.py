"""Answers of a Redis that is not the gateway's own, up to a bound.

hiredis makes room for as many elements as an answer announces: a line of 13 bytes would take 16 GB, and Python's
collector of garbage would look through them for seconds, again and again.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from gateway.web import tls_context

ANSWERS_MOST = 16 * 1024 * 1024
"""Bytes of all answers to what was sent together: a batch is answered with an id of each message."""
LENGTH_DIGITS = 5
"""Of the elements or bytes that an answer may announce: so many have less than a megabyte."""
_ANNOUNCED = re.compile(rb"\n[*$%~>|=!]\+?\d{" + str(LENGTH_DIGITS + 1).encode() + rb"}")
_SEEN_AGAIN = LENGTH_DIGITS + 3
"""Bytes of what came before that can be the beginning of an announcement."""


class Answers:
    """A StreamReader, whose ``read`` raises ConnectionError where that is too much."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._stream = reader
        self._seen = b"\n"
        self._left = ANSWERS_MOST

    def begin(self) -> None:
        """Something is sent, whose answers come now."""
        self._left = ANSWERS_MOST

    async def read(self, n: int = -1) -> bytes:
        """As that of the StreamReader."""
        data = await self._stream.read(n)
        seen, self._left = self._seen + data, self._left - len(data)
        if self._left < 0:
            raise ConnectionError(f"answers of more than {ANSWERS_MOST} bytes")
        if _ANNOUNCED.search(seen):
            raise ConnectionError(f"an answer of {10**LENGTH_DIGITS} or more elements or bytes was announced")
        self._seen = seen[-_SEEN_AGAIN:]
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Bounded:
    """Of a connection of the library."""

    _reader: Any

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[misc]
        self._reader = Answers(self._reader)

    async def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        if isinstance(self._reader, Answers):
            self._reader.begin()
        await super().send_packed_command(*arguments, **options)  # type: ignore[misc]


class TcpConnection(_Bounded, Connection):
    """Of ``redis://``."""


class LocalConnection(_Bounded, UnixDomainSocketConnection):
    """Of ``unix://``."""


class TlsConnection(_Bounded, SSLConnection):
    """Of ``rediss://``. Reads the certificates in a thread."""

    async def _connect(self) -> None:
        if self.ssl_context.context is None:
            self.ssl_context.context = await asyncio.to_thread(tls_context, str(self.ca_certs or ""))
        await super()._connect()


BOUNDED: dict[type[Any], type[Any]] = {
    Connection: TcpConnection,
    UnixDomainSocketConnection: LocalConnection,
    SSLConnection: TlsConnection,
}
"""What to use instead of the library's."""
