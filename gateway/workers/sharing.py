"""Ports that several processes listen on: the kernel gives each connection to one of them."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterable
from typing import Any

from twisted.internet.tcp import Port

from gateway.errors import ListenError

SHARED = re.compile(r"(?:haproxy:)?(?:tcp6?|ssl):(?P<port>\d+)")
"""Endpoints that can be shared. What systemd opened, sockets of the file system and UDP stay with the first process."""


INTERFACE = re.compile(r":interface=((?:\\:|[^:])+)")
PATIENCE = 5.0


class SharedPort(Port):
    """A TCP port with SO_REUSEPORT, which each process must set that shares it."""

    def createInternetSocket(self) -> socket.socket:
        made: socket.socket = super().createInternetSocket()  # type: ignore[no-untyped-call]
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return made


class SharingReactor:
    """A reactor whose TCP ports are shared."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> SharedPort:
        """As the reactor's."""
        made = SharedPort(port, factory, backlog, interface, self._reactor)
        made.startListening()
        return made


async def check_free(specs: Iterable[str], patience: float = PATIENCE) -> None:
    """Whether nobody listens on the ports of these endpoints: the system would let another gateway of the same user
    share them. Those of a gateway that is just ending get some time. Raises ListenError."""
    deadline = time.monotonic() + patience
    for spec in specs:
        match = SHARED.match(spec)
        if match is None or not int(match["port"]):
            continue
        while (reason := _taken(spec, int(match["port"]))) is not None:
            if time.monotonic() > deadline:
                raise ListenError(f"{spec}: cannot listen: {reason}")
            await asyncio.sleep(0.1)


def _taken(spec: str, port: int) -> str | None:
    interface = INTERFACE.search(spec)
    host = interface[1].replace("\\", "") if interface is not None else ""
    family = socket.AF_INET6 if ":" in host or "tcp6:" in spec else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            return str(error)
    return None


def shared_spec(spec: str, port: int | None) -> str | None:
    """The endpoint for another process, with the port that it was given where it asked for any; None: it has none."""
    match = SHARED.match(spec)
    if match is None:
        return None
    if int(match["port"]) or port is None:
        return spec
    return f"{spec[: match.start('port')]}{port}{spec[match.end('port') :]}"
