"""Connections to PostgreSQL that follow what the server sends before asyncpg sees it.

asyncpg believes its server. Zeros where a message should begin make it turn for ever within one call, so that the event
loop stands still and not even SIGTERM is heeded; a length of 2 GB is waited for; a text without an end is read beyond
its message, and what follows is taken for something else. Here such a connection is cut, and it is said why.

    server -> gateway   type (1 byte)   length (4 bytes, with itself)   body
    https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import asyncpg
from asyncpg.protocol import Protocol

MiB = 1024 * 1024
HEADER = 5
ANSWER_MOST = 32 * MiB
"""Bytes that may come until the server is ready for the next query. Ours ask for no rows of size; what can be large is
an error or a notice that has the statement's parameters in its context, which are 16 MiB and are quoted in it."""
TYPES = frozenset(b"123ACDEIKNRSTZnstv")
"""Those that a server may send to who copies nothing."""
AUTHENTICATION, READY = b"RZ"
MD5, SASL, SASL_CONTINUE, SASL_FINAL = (bytes([0, 0, 0, number]) for number in (5, 10, 11, 12))
BEFORE = {SASL_CONTINUE: SASL, SASL_FINAL: SASL_CONTINUE}
"""What must have come before it: without, asyncpg reads where no memory is, and the process ends."""
CANNOT_FOLLOW = "sends what cannot be followed"


def _has_texts(body: bytes, least: int) -> bool:
    return body.endswith(b"\0") and body.count(b"\0") >= least


def _has_fields(body: bytes) -> bool:
    """An empty one is the end of them; asyncpg reads on until it finds it."""
    return body == b"\0" or body.endswith(b"\0\0")


def _has_method(body: bytes) -> bool:
    if body.startswith(SASL):
        return _has_fields(body[4:])
    return len(body) >= (8 if body.startswith(MD5) else 4)


CHECKS: dict[int, Callable[[bytes], bool]] = {
    ord("A"): lambda body: len(body) > 4 and _has_texts(body[4:], 2),
    ord("E"): _has_fields,
    ord("K"): lambda body: len(body) >= 8,
    ord("N"): _has_fields,
    AUTHENTICATION: _has_method,
    ord("S"): lambda body: _has_texts(body, 2),
    READY: lambda body: len(body) >= 1,
}
"""Whether there is in a body what asyncpg reads from it: it finds out only when it has read on in the next message."""


class Messages:
    """Whole messages out of the pieces that come. ``flaw`` is what was wrong with the one after them."""

    def __init__(self) -> None:
        self.flaw = ""
        self._data = bytearray()
        self._room = ANSWER_MOST
        self._method = b""

    def whole(self, data: bytes) -> bytes:
        """Those that are complete now, up to a flaw."""
        self._data += data
        end = 0
        while (size := self._size(end)) and end + size <= len(self._data):
            if not self._is_sound(end, size):
                break
            end += size
        whole = bytes(self._data[:end])
        del self._data[:end]
        return whole

    def _size(self, start: int) -> int:
        """Of the message that begins there; 0 where that is not known yet, or never will be."""
        header = self._data[start : start + HEADER]
        if header and header[0] not in TYPES:
            self.flaw = f"speaks no PostgreSQL, but {bytes(header)!r}"
            return 0
        if len(header) < HEADER:
            return 0
        length = int.from_bytes(header[1:], "big")
        if length < HEADER - 1:
            self.flaw = f"speaks no PostgreSQL: a message of {length} bytes, with the 4 of its length"
        elif length > self._room:
            self.flaw = f"announces {length} bytes, where {self._room} more are taken"
        return 0 if self.flaw else 1 + length

    def _is_sound(self, start: int, size: int) -> bool:
        kind = self._data[start]
        self._room = ANSWER_MOST if kind == READY else self._room - size
        check = CHECKS.get(kind)
        body = bytes(self._data[start + HEADER : start + size]) if check else b""
        if check and not check(body):
            self.flaw = f"speaks no PostgreSQL: a message of type {chr(kind)} that has not all that belongs to it"
        elif kind == AUTHENTICATION and not self._is_next(body[:4]):
            self.flaw = "speaks no PostgreSQL: an authentication that has not begun"
        return not self.flaw

    def _is_next(self, method: bytes) -> bool:
        before, self._method = self._method, method
        return BEFORE.get(method, before) == before


class Guard(asyncio.Protocol):
    """Between the transport and asyncpg's protocol. ``refuse`` is told what was wrong, when the connection is cut."""

    def __init__(self, protocol: Any, refuse: Callable[[str], None]) -> None:
        self._protocol = protocol
        self._refuse = refuse
        self._messages = Messages()
        self._is_cut = False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_cut:
            return
        try:
            if whole := self._messages.whole(data):
                self._protocol.data_received(whole)
        except Exception as error:  # asyncpg's own, of an answer to what nobody has asked
            self._cut(f"{CANNOT_FOLLOW}: {type(error).__name__}: {error}")
        else:
            if self._messages.flaw:
                self._cut(self._messages.flaw)

    def _cut(self, reason: str) -> None:
        self._is_cut = True
        self._refuse(reason)
        self.transport.abort()

    def eof_received(self) -> bool | None:
        end: bool | None = self._protocol.eof_received()
        return end

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


class GuardedLoop:
    """The running loop, as far as asyncpg connects with it: each of its protocols gets a guard."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.refused = ""
        """Why the last connection was cut."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    async def create_connection(
        self, factory: Callable[[], Any], host: str, port: int, **options: Any
    ) -> tuple[Any, Any]:
        made: list[Any] = []

        def guarded() -> Any:
            made.append(factory())
            return self._guarded(made[-1], host, port)

        transport, _ = await self.loop.create_connection(guarded, host, port, **options)
        return _Transport(transport, lambda protocol: self._guarded(protocol, host, port)), made[-1]

    async def start_tls(self, transport: Any, protocol: Any, context: ssl.SSLContext, **options: Any) -> Any:
        encrypted = await self.loop.start_tls(transport.plain, protocol, context, **options)
        return None if encrypted is None else _Transport(encrypted, transport.guarded)

    def _guarded(self, protocol: Any, host: str, port: int) -> Any:
        if not isinstance(protocol, Protocol):  # it only asks for TLS, or to cancel a query
            return protocol
        self.refused = ""

        def refuse(reason: str) -> None:
            self.refused = f"{host}:{port} {reason}"

        return Guard(protocol, refuse)


class _Transport:
    """One that may change its protocol, as asyncpg does when it knows whether there is TLS."""

    def __init__(self, plain: Any, guarded: Callable[[Any], Any]) -> None:
        self.plain = plain
        self.guarded = guarded

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def set_protocol(self, protocol: Any) -> None:
        guard = self.guarded(protocol)
        if isinstance(guard, Guard):
            guard.transport = self.plain
        self.plain.set_protocol(guard)


class GuardedConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Goes on with the loop itself: asyncio looks for the current task by it."""

    def __init__(self, protocol: Any, transport: Any, loop: GuardedLoop, *others: Any) -> None:
        try:
            super().__init__(protocol, transport, loop.loop, *others)
        except Exception as error:  # such as of a server that says no version
            host, port = others[0]
            loop.refused = f"{host}:{port} {CANNOT_FOLLOW}: {type(error).__name__}: {error}"
            protocol.abort()
            raise ConnectionError(loop.refused) from None
