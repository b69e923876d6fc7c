"""Behind a load balancer: the peer is the tracker from the first moment on, and nobody can stay without a header."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.logger import capturedLogs

from gateway import metrics
from gateway.channel.connections import Limits
from gateway.channel.proxy import HEADER_TIME, WAITING_MOST, ProxiedConnection, ProxyFactory, parse_proxies
from gateway.channel.server import server_from_string
from gateway.errors import ConfigError
from tests.authority import Authority
from tests.listener import LOCAL, Tracker, listening
from tests.test_proxy_header import IPV4, IPV6, v2

V1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 50123 5027\r\n"
V1_UNKNOWN = b"PROXY UNKNOWN\r\n"
V2_LOCAL = v2(b"", family=0, command=0x20)
PROXY = IPv4Address("TCP", "10.0.0.1", 5)
TRACKER = "203.0.113.7:50123"
HAPROXY = f"haproxy:tcp:0:{LOCAL}"


def from_host(number: int) -> bytes:
    return b"PROXY TCP4 203.0.113.%d 192.0.2.1 50123 5027\r\n" % number


@pytest.mark.parametrize("piece", [0, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(
    ("header", "peer"),
    [(V1, TRACKER), (v2(IPV4), TRACKER), (v2(IPV6, family=0x21), "[2001:db8::7]:50123")],
    ids=["v1", "v2", "v2 IPv6"],
)
def test_the_peer_is_the_tracker(run, redis, header: bytes, peer: str, piece: int):
    """In its messages, and wherever connections are shown; the header may come with the login in one segment."""

    async def scenario() -> None:
        async with listening(redis, HAPROXY) as there:
            tracker = await there.open()
            await tracker.log_in(header, piece)
            await tracker.deliver()
            assert [message["peer"] for message in await there.messages()] == [peer]
            [connection] = there.channels.connections
            assert (connection.peer, connection.transport_kind) == (peer, "tcp")
            assert there.channels.connections.describe(connection)["source"] == peer
            await tracker.close()

    run(scenario())


@pytest.mark.parametrize("header", [V1_UNKNOWN, V2_LOCAL], ids=["UNKNOWN", "LOCAL"])
def test_where_the_header_names_nobody_the_peer_is_the_proxy(run, redis, header: bytes):
    """So the document of the protocol wants it."""

    async def scenario() -> None:
        async with listening(redis, HAPROXY) as there:
            tracker = await there.open()
            await tracker.log_in(header)
            await tracker.deliver()
            assert [message["peer"] for message in await there.messages()] == [tracker.address]
            await tracker.close()

    run(scenario())


def test_a_health_check_is_no_connection_of_a_tracker(run, redis):
    """A header that names nobody, and the end: every two seconds, all day."""
    accepted = metrics.value("connections_accepted")

    async def scenario() -> None:
        async with listening(redis, HAPROXY) as there:
            check = await there.open()
            await check.send(V2_LOCAL)
            tracker = await there.open()
            await tracker.log_in(V1)
            assert len(there.channels.connections) == 1
            await check.close()
            await tracker.close()

    run(scenario())
    assert metrics.value("connections_accepted") == accepted + 1


def test_limits_count_trackers_and_not_the_proxy(run, redis):
    """limits.connections_per_address needs no other value behind a proxy."""

    async def scenario() -> None:
        async with listening(redis, HAPROXY, limits=Limits(connections_per_address=1)) as there:
            trackers = [await there.open() for _ in range(3)]
            for number, tracker in enumerate(trackers):
                tracker.frames.imei = str(int(tracker.frames.imei) + number)
                await tracker.log_in(from_host(number))
            assert len(there.channels.connections) == 3
            one_more = await there.open()
            await one_more.send(from_host(2) + one_more.frames.login())
            assert await one_more.closed() == b""
            for tracker in [*trackers, one_more]:
                await tracker.close()

    run(scenario())


@pytest.mark.parametrize("piece", [0, 1], ids=["whole", "byte by byte"])
def test_tls_begins_behind_the_header(run, redis, tmp_path: Path, piece: int):
    """A proxy that passes TLS on, or makes it new, sends its header before it."""
    authority = Authority("Test authority")
    authority.sign("gateway").write(tmp_path / "cert.pem", tmp_path / "key.pem")
    context = ssl.create_default_context(cadata=authority.pem.decode())
    spec = f"haproxy:ssl:0:{LOCAL}:privateKey={tmp_path}/key.pem:certKey={tmp_path}/cert.pem"

    async def scenario() -> None:
        async with listening(redis, spec) as there:
            tracker = await there.open()
            await tracker.send(V1, piece)
            await tracker.start_tls(context)
            await tracker.log_in()
            await tracker.deliver()
            assert [message["peer"] for message in await there.messages()] == [TRACKER]
            [connection] = there.channels.connections
            assert connection.transport_kind == "ssl"
            await tracker.close()

    run(scenario())


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\x00\x0f352093081452251", "no PROXY header"),
        (b"PROXY TCP4 somebody 192.0.2.1 1 2\r\n", "malformed PROXY header"),
        (b"PROXY TCP4 " + b"1" * 200, "PROXY header too long"),
    ],
)
def test_without_a_header_nobody_gets_in(run, redis, said: bytes, reason: str):
    """Each is counted, and told once in a while, with what it said."""
    before = metrics.value("proxy_connections_refused", reason=reason)

    async def scenario() -> None:
        async with listening(redis, HAPROXY) as there:
            for _ in range(3):
                tracker = await there.open()
                await tracker.send(said)
                assert await tracker.closed() == b""
                await tracker.close()

    with capturedLogs() as events:
        run(scenario())
    assert metrics.value("proxy_connections_refused", reason=reason) == before + 3
    [line] = [text for event in events if reason in (text := event["log_format"].format(**event))]
    assert line.startswith("closed 127.0.0.1:")


def test_only_named_proxies_may_connect(run, redis):
    """Whoever else connects could claim any address."""
    before = metrics.value("proxy_connections_refused", reason="not among the proxies")

    async def scenario() -> None:
        async with listening(redis, f"{HAPROXY}:proxies=192.0.2.7,10.0.0.0/8") as there:
            tracker = await there.open()
            with contextlib.suppress(ConnectionError):
                await tracker.send(V1)
            assert await tracker.closed() == b""
            await tracker.close()
        async with listening(redis, rf"haproxy:tcp:0:proxies=2001\:db8\:\:/32,127.0.0.0/8:{LOCAL}") as there:
            tracker = await there.open()
            await tracker.log_in(V1)
            await tracker.close()

    run(scenario())
    assert metrics.value("proxy_connections_refused", reason="not among the proxies") == before + 1


def test_at_a_stop_those_without_a_header_are_closed_too(run, redis):
    """They are connections of nobody."""

    async def scenario() -> None:
        async with listening(redis, HAPROXY) as there:
            waiting, tracker = await there.open(), await there.open()
            await tracker.log_in(V1)
        assert await waiting.closed() == await tracker.closed() == b""
        await waiting.close()
        await tracker.close()

    run(scenario())


# -- in memory


class Greeter(Protocol):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.peer = ""
        self.is_lost = False

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.peer = str(self.transport.getPeer())

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)

    def connectionLost(self, reason) -> None:
        self.is_lost = True


class Endpoint:
    """An endpoint without sockets, and its clock."""

    def __init__(self, proxies: str = "") -> None:
        self.clock = Clock()
        self.made: list[Greeter] = []
        factory = Factory.forProtocol(self._make)
        self.factory = ProxyFactory(factory, "haproxy:tcp:5028", parse_proxies(proxies), self.clock.callLater)

    def _make(self) -> Greeter:
        self.made.append(Greeter())
        return self.made[-1]

    def connect(self, address=PROXY) -> ProxiedConnection | None:
        connection = self.factory.buildProtocol(address)
        if connection is not None:
            transport = StringTransportWithDisconnection(peerAddress=address)
            transport.abortConnection = transport.loseConnection
            transport.protocol = connection
            connection.makeConnection(transport)
        return connection


@pytest.mark.parametrize("said", [b"", V1[:-1], V2_LOCAL])
def test_a_header_that_does_not_come_in_time_ends_the_connection(said: bytes):
    """The protocol above never knew of it; nothing is left of it."""
    there = Endpoint()
    connection = there.connect()
    there.clock.advance(HEADER_TIME - 1)
    if said:
        connection.dataReceived(said)
    there.clock.advance(1)
    assert not connection.transport.connected
    assert there.made == []
    assert there.factory.protocols == {}
    assert there.factory.waiting == set()


def test_with_its_header_it_may_be_silent(run):
    """From there on other limits hold: login_time, idle_time."""
    there = Endpoint()
    connection = there.connect()
    connection.dataReceived(V1)
    there.clock.advance(HEADER_TIME * 10)
    assert connection.transport.connected
    assert there.clock.getDelayedCalls() == []
    connection.dataReceived(b"one")
    connection.dataReceived(b"two")
    [greeter] = there.made
    assert greeter.heard == [b"one", b"two"]
    assert "203.0.113.7" in greeter.peer
    connection.transport.loseConnection()
    assert greeter.is_lost
    assert there.factory.protocols == {}


def test_there_is_a_most_of_those_that_wait():
    """A flood finds an end; those with a header are not concerned."""
    there = Endpoint()
    ready = there.connect()
    ready.dataReceived(V1)
    waiting = [there.connect() for _ in range(WAITING_MOST)]
    assert there.connect() is None
    waiting[0].dataReceived(V1)
    assert there.connect() is not None
    assert there.connect() is None
    waiting[1].transport.loseConnection()
    assert there.connect() is not None
    there.factory.numPorts = 1
    there.factory.doStop()
    assert there.factory.waiting == set()
    assert ready.transport.connected


@pytest.mark.parametrize(
    ("address", "may"),
    [
        (IPv4Address("TCP", "192.0.2.7", 5), True),
        (IPv4Address("TCP", "192.0.2.8", 5), False),
        (IPv4Address("TCP", "10.200.0.1", 5), True),
        (IPv6Address("TCP", "::ffff:192.0.2.7", 5), True),
        (IPv6Address("TCP", "2001:db8:1::1", 5), True),
        (IPv6Address("TCP", "2001:db9::1", 5), False),
        (UNIXAddress("/run/proxy.sock"), True),
    ],
)
def test_proxies_are_addresses_and_networks(address, may: bool):
    """An IPv4 proxy on an IPv6 socket is itself; a unix socket has its own protection."""
    assert (Endpoint("192.0.2.7, 10.0.0.0/8,2001:db8::/32").connect(address) is not None) == may


@pytest.mark.parametrize("text", ["10.0.0.5/8", "proxy.example", "10.0.0.0/8;10.0.0.1", ","])
def test_a_list_of_proxies_that_is_none(text: str):
    """With what would be right."""
    with pytest.raises(ConfigError, match=r"proxies=.*right is like proxies=192\.0\.2\.7,10\.0\.0\.0/8"):
        parse_proxies(text)


def test_haproxy_stands_once():
    """What is behind it is what the proxy connects to."""
    from twisted.internet import reactor

    with pytest.raises(ConfigError, match="haproxy: stands once"):
        server_from_string(reactor, "haproxy:haproxy:tcp:5027")


@pytest.mark.parametrize(
    ("spec", "is_open"),
    [
        ("haproxy:tcp:5028", True),
        ("haproxy:tcp:5028:interface=10.0.0.1", True),
        ("haproxy:tcp:5028:interface=127.0.0.1", False),
        (r"haproxy:tcp6:5028:interface=\:\:1", False),
        ("haproxy:tcp:5028:proxies=10.0.0.1", False),
        ("haproxy:unix:/run/trackers.sock", False),
    ],
)
def test_an_endpoint_that_everybody_can_reach_is_warned_of(spec: str, is_open: bool):
    """Not refused: a firewall may do the same."""
    from twisted.internet import reactor

    with capturedLogs() as events:
        server_from_string(reactor, spec)
    assert any("may claim any address" in event["log_format"] for event in events) == is_open


# -- with a real one


PROGRAM = os.environ.get("HAPROXY") or shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
SAMPLE = Path(__file__).parent.parent / "conf" / "haproxy.cfg"
CONF = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen v1
    bind 127.0.0.1:{v1}
    server gateway 127.0.0.1:{plain} send-proxy check inter 200ms
listen v2
    bind 127.0.0.1:{v2}
    server gateway 127.0.0.1:{plain} send-proxy-v2
listen tls_through
    bind 127.0.0.1:{through}
    server gateway 127.0.0.1:{tls} send-proxy-v2
listen tls_anew
    bind 127.0.0.1:{anew}
    server gateway 127.0.0.1:{tls} send-proxy-v2 ssl verify none
"""


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Starts HAProxy; its arguments are ports."""
    started: list[subprocess.Popen] = []

    def start(**ports: int) -> None:
        conf = tmp_path / "haproxy.cfg"
        conf.write_text(CONF.format(**ports))
        started.append(
            subprocess.Popen([PROGRAM, "-db", "-f", conf], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


@pytest.mark.skipif(PROGRAM is None, reason="there is no haproxy")
def test_with_a_real_haproxy(run, redis, haproxy, tmp_path: Path):
    """Both versions, TLS passed through, and TLS that HAProxy itself makes; its health checks disturb nobody."""
    authority = Authority("Test authority")
    authority.sign("gateway").write(tmp_path / "cert.pem", tmp_path / "key.pem")
    context = ssl.create_default_context(cadata=authority.pem.decode())
    tls_spec = f"haproxy:ssl:0:{LOCAL}:privateKey={tmp_path}/key.pem:certKey={tmp_path}/cert.pem"

    async def scenario() -> None:
        async with listening(redis, HAPROXY, tls_spec) as there:
            plain, tls = (there.channels._listening[1].ports()[spec] for spec in (HAPROXY, tls_spec))
            ports = dict(zip(("v1", "v2", "through", "anew"), _free_ports(4), strict=True))
            haproxy(plain=plain, tls=tls, **ports)
            peers = []
            for name, port in ports.items():
                tracker = await _through(port, context if name == "through" else None)
                await tracker.log_in()
                await tracker.deliver()
                peers.append(tracker.address)
                await tracker.close()
            assert [message["peer"] for message in await there.messages()] == peers

    run(scenario())


@pytest.mark.skipif(PROGRAM is None, reason="there is no haproxy")
def test_the_sample_of_a_configuration_is_right():
    """As HAProxy itself sees it."""
    subprocess.run([PROGRAM, "-c", "-f", SAMPLE], check=True, capture_output=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


async def _through(port: int, tls: ssl.SSLContext | None) -> Tracker:
    """Connect as soon as HAProxy listens."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(ConnectionError):
                return await Tracker.open(port, tls)
            await asyncio.sleep(0.05)
