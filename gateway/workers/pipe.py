"""One end of the pair of sockets between the first process and a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from twisted.logger import Logger

from gateway.workers.wire import MESSAGE_MOST, SIZE, Message, pack

T = TypeVar("T")
AT_ONCE = 100
"""Messages taken until others have their turn."""


class Pipe(asyncio.Protocol, Generic[T]):
    """``take`` gets each message, ``lost`` is called once at the end. What is sent in one turn goes together."""

    log = Logger()

    def __init__(
        self, decoder: msgspec.msgpack.Decoder[T], take: Callable[[T], None], lost: Callable[[], None]
    ) -> None:
        self._decoder = decoder
        self._take = take
        self._lost = lost
        self._buffer = bytearray()
        self._outgoing: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._is_taking = False

    @property
    def is_open(self) -> bool:
        """Whether anything can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: Message) -> None:
        """Send it; where the other one is gone, nobody misses it."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(pack(message))

    def close(self) -> None:
        """End it, after what was sent."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self.is_open and self._transport is not None:
            self._transport.write(b"".join(outgoing))

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_taking:
            self._take_some()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost()

    def _take_some(self) -> None:
        """So many messages, and the others when the loop has had its turn."""
        self._is_taking = False
        start = 0
        for _ in range(AT_ONCE):
            size = int.from_bytes(self._buffer[start : start + SIZE], "big")
            if len(self._buffer) < start + SIZE or len(self._buffer) < start + SIZE + size:
                self._check(size)
                break
            start += SIZE + size
            self._take_one(bytes(memoryview(self._buffer)[start - size : start]))
        else:
            self._is_taking = True
            asyncio.get_running_loop().call_soon(self._take_some)
        del self._buffer[:start]

    def _check(self, size: int) -> None:
        if size > MESSAGE_MOST:
            self.log.error("a message of {size} bytes between processes: {most} can be", size=size, most=MESSAGE_MOST)
            self.abort()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _take_one(self, body: bytes) -> None:
        try:
            self._take(self._decoder.decode(body))
        except msgspec.DecodeError as error:
            self.log.error("what came from another process of the gateway is no message: {error}", error=str(error))
            self.abort()
        except Exception:
            self.log.failure("a message of another process of the gateway")


async def open_pipe(sock: Any, pipe: Pipe[T]) -> None:
    """Let ``pipe`` speak over a connected socket."""
    sock.setblocking(False)
    await asyncio.get_running_loop().create_connection(lambda: pipe, sock=sock)
