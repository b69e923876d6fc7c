"""What can be learned of the transport below a connection, whatever endpoint made it."""

from __future__ import annotations

import socket

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, ISSLTransport

KEEPALIVE_PROBES = {"TCP_KEEPIDLE": 300, "TCP_KEEPINTVL": 60, "TCP_KEEPCNT": 5}
"""Seconds of silence before the first probe, between probes, and how many: a tracker that lost its network is noticed
after ten minutes, at the price of 40 bytes each five."""


def peer_of(address: IAddress) -> str:
    """``ip:port``."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return str(address)


def kind_of(transport: object) -> str:
    """flespi's ``transport`` of a connection: tcp, ssl or unix."""
    if ISSLTransport.providedBy(transport):
        return "ssl"
    peer = getattr(transport, "getPeer", lambda: None)()
    return "tcp" if isinstance(peer, IPv4Address | IPv6Address) else "unix"


def socket_of(transport: object) -> socket.socket | None:
    """The open socket, where there is a real one; that of TLS is below it."""
    while transport is not None:
        handle = getattr(transport, "getHandle", lambda: None)()
        if isinstance(handle, socket.socket):
            return handle if handle.fileno() >= 0 else None
        transport = getattr(transport, "transport", None)
    return None


def keep_alive(transport: object) -> None:
    """Where there is a real TCP socket below, have the kernel find out that the tracker is gone."""
    handle = socket_of(transport)
    if handle is None or handle.family not in (socket.AF_INET, socket.AF_INET6):
        return
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in KEEPALIVE_PROBES.items():
        if hasattr(socket, name):
            handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
