"""One channel's endpoints: opened before anybody is served on them, so that a change can still be taken back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorUDP
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger

from gateway import aio
from gateway.channel.connection import TrackerConnection
from gateway.channel.datagrams import TrackerDatagrams
from gateway.channel.endpoints import port_of
from gateway.channel.intake import Intake
from gateway.channel.server import HAPROXY, server_from_string
from gateway.channel.transport import peer_of
from gateway.errors import ConfigError, GatewayError, ListenError
from gateway.store.items import Channel

UDP = re.compile(r"udp:(?P<port>\d+)(?::interface=(?P<interface>[^:]+))?")
UDP_MOST = 65535


class _TooEarly(Protocol):
    """A tracker that comes before its channel is stored: it comes again."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class TrackerFactory(Factory):
    """Makes the protocol of each connection, once ``is_serving``."""

    noisy = False
    is_serving = False

    def __init__(self, make: Callable[[], TrackerConnection]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._make() if self.is_serving else _TooEarly()


@define(eq=False)
class Endpoint:
    """One that is listened on; ``taker`` where it is UDP, ``factory`` where it is not."""

    spec: str
    port: IListeningPort
    factory: TrackerFactory | None = None
    taker: TrackerDatagrams | None = None

    def serve(self) -> None:
        """Take what comes from now on."""
        if self.factory is not None:
            self.factory.is_serving = True
        if self.taker is not None:
            self.taker.start_taking()

    async def close(self) -> None:
        """Free the port."""
        stopping = self.port.stopListening()
        if stopping is not None:
            await aio.from_deferred(stopping)

    def __str__(self) -> str:
        """For people: "tcp 0.0.0.0:5027", "tls 0.0.0.0:5028", "proxied tcp [::1]:5030"."""
        address = self.port.getHost()
        inner = self.spec.removeprefix(HAPROXY)
        kind = "tls" if inner.startswith("ssl:") else getattr(address, "type", "unix").lower()
        return f"{'proxied ' if inner != self.spec else ''}{kind} {peer_of(address)}"


@define(eq=False)
class Listening:
    """A channel while it listens. ``connection`` makes the protocol of a TCP connection, ``datagrams`` that of UDP."""

    log = Logger()

    reactor: Any
    intake: Intake
    connection: Callable[[Intake], TrackerConnection]
    datagrams: Callable[[Intake], TrackerDatagrams]
    endpoints: dict[str, Endpoint] = field(factory=dict)

    @property
    def channel(self) -> Channel:
        """As it was when it was stored last."""
        return self.intake.channel

    async def open(self, specs: Iterable[str]) -> None:
        """Listen on all of ``specs``, or on none of them. Raises ListenError, ConfigError."""
        opened: list[str] = []
        try:
            for spec in dict.fromkeys(specs):
                self.endpoints[spec] = await self._listen(spec)
                opened.append(spec)
        except BaseException:
            await self.close(opened)
            raise

    async def close(self, specs: Iterable[str]) -> None:
        """Stop listening on them."""
        for spec in list(specs):
            endpoint = self.endpoints.pop(spec, None)
            if endpoint is not None:
                await endpoint.close()

    async def close_all(self) -> None:
        """Stop listening."""
        await self.close(list(self.endpoints))

    async def stop_taking(self) -> None:
        """Take nothing new. UDP's ports stay open, for the answers to what is being stored."""
        for endpoint in self.endpoints.values():
            if endpoint.taker is not None:
                endpoint.taker.stop_taking()
        await self.close([spec for spec, endpoint in self.endpoints.items() if endpoint.taker is None])

    def ports(self) -> dict[str, int]:
        """The port of each endpoint that has one: where 0 was asked for, the one that was given."""
        hosts = {spec: endpoint.port.getHost() for spec, endpoint in self.endpoints.items()}
        return {spec: host.port for spec, host in hosts.items() if hasattr(host, "port")}

    def serve(self) -> None:
        """Take what comes on all endpoints."""
        for endpoint in self.endpoints.values():
            endpoint.serve()

    async def replace(self, leaving: list[str], coming: list[str]) -> list[str]:
        """Listen on ``coming``; those of ``leaving`` that have the same port are in the way, and go first: which ones.

        Raises ListenError or ConfigError, and listens as before then.
        """
        wanted = {port for spec in coming if (port := port_of(spec)) is not None}
        in_the_way = [spec for spec in leaving if self._place(spec) in wanted]
        try:
            await self.close(in_the_way)
            await self.open(coming)
        except BaseException:
            await self.restore([spec for spec in in_the_way if spec not in self.endpoints])
            raise
        return in_the_way

    def _place(self, spec: str) -> tuple[str, int | None]:
        """What an endpoint occupies: where port 0 was asked for, the one that was given."""
        return "udp" if spec.startswith("udp:") else "tcp", self.ports().get(spec)

    async def restore(self, specs: list[str]) -> None:
        """Listen again on what was given up a moment ago; somebody else may have it now, which is only logged."""
        for spec in specs:
            try:
                await self.open([spec])
                self.endpoints[spec].serve()
            except GatewayError as error:
                self.log.error("no longer listening: {error}", error=str(error))

    async def _listen(self, spec: str) -> Endpoint:
        where = f"channel {self.channel.name or self.channel.id}: {spec}"
        try:
            if spec.startswith("udp:"):
                taker = self.datagrams(self.intake)
                taker.stop_taking()
                return Endpoint(spec, _listen_udp(self.reactor, spec, taker), taker=taker)
            factory = TrackerFactory(lambda: self.connection(self.intake))
            port = await aio.from_deferred(server_from_string(self.reactor, spec).listen(factory))
            return Endpoint(spec, port, factory=factory)
        except CannotListenError as error:
            raise ListenError(f"{where}: cannot listen: {error.socketError}") from error
        except GatewayError as error:
            raise ConfigError(f"{where}: {error}") from error
        except Exception as error:  # a key file, a port beyond 65535, a syntax: each raises something else
            raise ConfigError(f"{where}: not an endpoint that can be listened on: {error}") from error


def _listen_udp(reactor: IReactorUDP, spec: str, protocol: TrackerDatagrams) -> IListeningPort:
    match = UDP.fullmatch(spec)
    if match is None:
        raise ValueError("should be udp:PORT or udp:PORT:interface=ADDRESS")
    return reactor.listenUDP(int(match["port"]), protocol, interface=match["interface"] or "", maxPacketSize=UDP_MOST)
