"""Writing an answer no faster than the client reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from twisted.internet.interfaces import IPushProducer
from twisted.web.server import Request
from zope.interface import implementer

from gateway.api.answers import HEAD, Answer
from gateway.errors import PeerError

STALL_TIME = 60.0
"""Seconds that a client may read nothing."""
CHUNK_BYTES = 64 * 1024


class Gone(PeerError):
    """The client closed its connection, or reads nothing."""


@implementer(IPushProducer)
class Outlet:
    """The way to one client. While it does not read, :meth:`write` waits."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._is_finished = False

    # -- what Twisted calls

    def pauseProducing(self) -> None:
        self._may_write.clear()

    def resumeProducing(self) -> None:
        self._may_write.set()

    def stopProducing(self) -> None:
        self._may_write.set()

    # -- what the site calls

    async def finish(self, body: bytes) -> None:
        """The whole answer, whose length is known."""
        if not self._is_gone:
            self._request.setHeader(b"content-length", b"%d" % len(body))
            self._request.write(body)
            self._end()

    async def stream(self, texts: AsyncIterator[list[bytes]], answer: Answer) -> None:
        """The envelope around ``texts``. An error on the way cuts the connection: half a list must not look whole."""
        self._request.registerProducer(self, True)
        pending, size = [HEAD], 0
        separator = b""
        try:
            async for chunk in texts:
                if not chunk:
                    continue
                joined = separator + b",".join(chunk)
                separator = b","
                pending.append(joined)
                size += len(joined)
                if size >= CHUNK_BYTES:
                    await self._write(b"".join(pending))
                    pending, size = [], 0
            await self._write(b"".join([*pending, answer.tail()]))
        except BaseException:
            if self.has_started:
                self.abort()
            raise
        finally:
            if not self._is_gone:
                self._request.unregisterProducer()
        self._end()

    async def _write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(STALL_TIME):
                await self._may_write.wait()
        except TimeoutError:
            raise Gone(f"read nothing for {STALL_TIME:.0f} s") from None
        if self._is_gone:
            raise Gone("closed its connection")
        self._request.write(data)

    def abort(self) -> None:
        """Cut the connection."""
        if not self._is_gone and self._request.channel is not None:
            self._is_finished = True
            self._request.channel.forceAbortClient()

    @property
    def has_started(self) -> bool:
        """Whether the client has got anything: then it is too late for another status."""
        return bool(self._request.startedWriting)

    @property
    def _is_gone(self) -> bool:
        return self._is_finished or bool(getattr(self._request, "_disconnected", False))

    def _end(self) -> None:
        if not self._is_gone:
            self._is_finished = True
            self._request.finish()
