"""Connections that a load balancer passes on: its PROXY header first, then as if the tracker had come by itself.

The protocol of the connection is made when the header is there: for it, and for whatever counts connections by
address, the peer was the tracker from the beginning. Until then a connection is nothing but a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from gateway import metrics
from gateway.channel.proxy_header import Header, read_header, unmapped
from gateway.channel.repeats import Repeats
from gateway.channel.transport import peer_of
from gateway.errors import ConfigError, ProtocolViolation

HEADER_TIME = 10.0
"""Seconds from the connection to the header's last byte. A proxy sends it at once; the document of the protocol asks
receivers to wait for 3 s at least, which is one retransmission."""
WAITING_MOST = 2000
"""Connections without a header, of each endpoint: no more than a proxy has under way when it starts again."""

Network = IPv4Network | IPv6Network
CallLater = Callable[[float, Callable[[], None]], IDelayedCall]


def parse_proxies(text: str) -> list[Network]:
    """The networks of ``10.0.0.0/8,192.0.2.7``; empty: none was given. Raises ConfigError."""
    try:
        return [ip_network(part.strip()) for part in text.split(",")] if text else []
    except ValueError as error:
        raise ConfigError(f"proxies={text}: {error}; right is like proxies=192.0.2.7,10.0.0.0/8") from error


class ProxiedConnection(ProtocolWrapper):
    """The transport of a protocol that is made when the header has come."""

    factory: ProxyFactory
    transport: Any
    wrappedProtocol: Any

    def __init__(self, factory: ProxyFactory) -> None:
        super().__init__(factory, None)  # type: ignore[arg-type]  # it is made later
        self._unread = bytearray()
        self._header = Header()
        self._deadline: IDelayedCall | None = None

    def makeConnection(self, transport: Any) -> None:
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)  # ProtocolWrapper's would connect the protocol that is not made yet
        self.factory.registerProtocol(self)  # type: ignore[no-untyped-call]
        self.factory.waiting.add(self)
        self._deadline = self.factory.call_later(HEADER_TIME, self._too_late)

    def dataReceived(self, data: bytes) -> None:
        if self._deadline is None:
            if self.wrappedProtocol is not None:
                self.wrappedProtocol.dataReceived(data)
            return
        self._unread += data
        try:
            found = read_header(self._unread)
        except ProtocolViolation as violation:
            self._refuse(violation)
            return
        if found is not None:
            self._take(*found)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._stop_waiting()
        if self.wrappedProtocol is not None:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]
        else:
            self.factory.unregisterProtocol(self)  # type: ignore[no-untyped-call]

    def getPeer(self) -> IAddress:
        peer: IAddress = self._header.source or self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        host: IAddress = self._header.destination or self.transport.getHost()
        return host

    def _take(self, header: Header, size: int) -> None:
        rest = bytes(self._unread[size:])
        if header.source is None and not rest:
            return  # a proxy's health check sends nothing else: it is no connection of a tracker
        self._stop_waiting()
        self._unread.clear()
        self._header = header
        inner = self.factory.wrappedFactory.buildProtocol(self.getPeer())
        if inner is None:
            self.transport.abortConnection()
            return
        self.wrappedProtocol = inner
        inner.makeConnection(self)
        if rest:
            inner.dataReceived(rest)

    def _too_late(self) -> None:
        what = f"{len(self._unread)} bytes of it" if self._unread else "nothing"
        self._refuse(ProtocolViolation("no PROXY header in time", f"{what} within {HEADER_TIME:.0f} s"))

    def _refuse(self, violation: ProtocolViolation) -> None:
        self._stop_waiting()
        self.factory.refused(violation, self.transport.getPeer())
        self.transport.abortConnection()

    def _stop_waiting(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        self.factory.waiting.discard(self)


class ProxyFactory(WrappingFactory):
    """Makes connections for ``factory`` behind a proxy. ``waiting`` are those whose header has not come.

    ``proxies``: who may send a header; empty: everybody who can connect. ``where`` is the endpoint, for people.
    """

    log = Logger()
    noisy = False
    protocol = ProxiedConnection

    def __init__(
        self, factory: IProtocolFactory, where: str, proxies: Sequence[Network], call_later: CallLater
    ) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self.call_later = call_later
        self._where = where
        self._proxies = proxies
        self._repeats = Repeats()
        self.waiting: set[ProxiedConnection] = set()

    def buildProtocol(self, addr: IAddress | None) -> ProxiedConnection | None:  # type: ignore[override]
        if not self._may_connect(addr):
            self.refused(ProtocolViolation("not among the proxies", "who may connect is named by proxies="), addr)
            return None
        if len(self.waiting) >= WAITING_MOST:
            self.refused(ProtocolViolation("too many without a PROXY header", f"the limit is {WAITING_MOST}"), addr)
            return None
        return ProxiedConnection(self)

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        for connection in list(self.waiting):
            connection.transport.abortConnection()

    def refused(self, violation: ProtocolViolation, addr: IAddress | None) -> None:
        """Count and tell it."""
        metrics.count("proxy_connections_refused", reason=violation.reason)
        more = self._repeats.tell(violation.reason)
        if more is not None:
            peer = peer_of(addr) if addr is not None else "?"
            self.log.info(
                "closed {peer} on {where}: {why}{more}", peer=peer, where=self._where, why=str(violation), more=more
            )

    def _may_connect(self, addr: object) -> bool:
        if not self._proxies or not isinstance(addr, IPv4Address | IPv6Address):
            return True  # a unix socket: who may reach it is a matter of the file system
        ip = unmapped(ip_address(addr.host))
        return any(ip in network for network in self._proxies)
