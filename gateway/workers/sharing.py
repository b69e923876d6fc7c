"""Ports that several processes listen on: the kernel gives each connection to one of them."""

from __future__ import annotations

import re
import socket
from typing import Any

from twisted.internet.tcp import Port

SHARED = re.compile(r"(?:haproxy:)?(?:tcp6?|ssl):(?P<port>\d+)")
"""Endpoints that can be shared. What systemd opened, sockets of the file system and UDP stay with the first process."""


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


def shared_spec(spec: str, port: int | None) -> str | None:
    """The endpoint for another process, with the port that it was given where it asked for any; None: it has none."""
    match = SHARED.match(spec)
    if match is None:
        return None
    if int(match["port"]) or port is None:
        return spec
    return f"{spec[: match.start('port')]}{port}{spec[match.end('port') :]}"
