"""Where the server is, and how a device gets there: TCP, TLS or UDP, a bounded number of attempts at a time."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from asyncio import sslproto
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random

import attrs

from gateway.emulator.link import Link
from gateway.errors import ConfigError

CONNECT_TIMEOUT = 10.0
BACKOFF_FIRST, BACKOFF_LONGEST = 1.0, 30.0
ATTEMPTS_AT_ONCE = 100  # a server's queue of connections that wait to be accepted is often 128 long

# asyncio gives each TLS connection a buffer of 256 KiB to read into, filled with zeros at once: 2.5 GiB for a fleet of
# 10,000. A server says a few bytes at a time; what is longer is read in several turns.
sslproto.SSLProtocol.max_size = 4 * 1024


@attrs.frozen
class Endpoint:
    """A server. ``tls`` is used by groups whose transport is "tls"; times in seconds."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    connect_timeout: float = CONNECT_TIMEOUT
    backoff_first: float = BACKOFF_FIRST
    backoff_longest: float = BACKOFF_LONGEST

    def next_backoff(self, before: float) -> float:
        """How long to wait after so many seconds were waited the last time: twice as long, within limits."""
        return min(self.backoff_longest, max(self.backoff_first, 2 * before))

    async def connect(self, link: Link, transport: str) -> None:
        """Connect ``link``. Raises OSError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self.connect_timeout):
            if transport == "udp":
                await loop.create_datagram_endpoint(lambda: link, remote_addr=(self.host, self.port))
                return
            tls = self.tls if transport == "tls" else None
            await loop.create_connection(
                lambda: link, self.host, self.port, ssl=tls, server_hostname=self.host if tls else None
            )


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT; an IPv6 address stands in brackets. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:5027")
    return host.strip("[]"), int(port)


def tls_context(ca: Path | None = None, insecure: bool = False) -> ssl.SSLContext:
    """Trusts the system's authorities, or those in the file ``ca``, or with ``insecure`` all. Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{ca} cannot be used as certificates of authorities: {error}") from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def plain(error: OSError) -> str:
    """The reason without the numbers and tuples that asyncio puts around it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}".lower().replace("_", " ")
    if isinstance(error, socket.gaierror):
        return str(error.strerror).lower()
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return os.strerror(error.errno).lower() if error.errno else "no address of it accepts connections"


class Dialer:
    """Makes attempts to connect, so many at once; the others wait in line, without a task each."""

    def __init__(self, random: Random, at_once: int = ATTEMPTS_AT_ONCE) -> None:
        self._random = random
        self._free = at_once
        self._line: deque[tuple[Endpoint, str, Link, Callable[[OSError], None]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def dial(self, endpoint: Endpoint, transport: str, link: Link, on_error: Callable[[OSError], None]) -> None:
        """Connect ``link`` when it is its turn; ``on_error`` hears where that fails."""
        self._line.append((endpoint, transport, link, on_error))
        if self._free:
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._attempts())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is not connected yet."""
        self._line.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _attempts(self) -> None:
        try:
            while self._line:
                endpoint, transport, link, on_error = self._line.popleft()
                try:
                    if not link.ended:
                        await endpoint.connect(link, transport)
                except OSError as error:
                    on_error(error)
        finally:
            self._free += 1

    def spread(self, seconds: float) -> float:
        """About so many seconds: a fleet should not return in step."""
        return seconds * self._random.uniform(0.8, 1.2)
