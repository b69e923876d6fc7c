"""TLS on real sockets: who gets in, what is said of those who do not, and how long anything may take."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path

import attrs
import httpx
import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs

from gateway import aio, metrics
from gateway.channel.certificates import Certificates, TlsFiles, TlsOptions
from gateway.channel.connections import Limits
from gateway.channel.server import server_from_string
from gateway.channel.tls import ADVICE, CLOSE_TIME, FAILURES, HANDSHAKE_TIME, HandshakeFailed, kind_of, tls_factory
from gateway.channel.transport import socket_of
from gateway.errors import ConfigError
from tests.authority import Authority, Signed, rsa_key
from tests.listener import LOCAL, Listener, Tracker, listening

AUTHORITY = Authority("Test authority")
FLEET = Authority("Fleet")
SERVER = AUTHORITY.sign("gateway")
RSA_SERVER = AUTHORITY.sign("gateway", rsa_key)


@attrs.define
class Site:
    """Files of one gateway, and trackers that know it."""

    directory: Path

    def path(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path

    def spec(self, signed: Signed = SERVER, **options: object) -> str:
        key, certificate = self.directory / "key.pem", self.directory / "cert.pem"
        signed.write(certificate, key)
        more = "".join(f":{name}={value}" for name, value in options.items())
        return f"ssl:0:{LOCAL}:privateKey={key}:certKey={certificate}{more}"

    def trust(self, authority: Authority = AUTHORITY) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=authority.pem.decode())

    def with_certificate(self, signed: Signed) -> ssl.SSLContext:
        context = self.trust()
        pem = self.path(f"{signed.certificate.serial_number}.pem", signed.pem + signed.key_pem())
        context.load_cert_chain(pem)
        return context

    def only(self, version: ssl.TLSVersion, ciphers: str = "") -> ssl.SSLContext:
        context = self.trust()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that of TLS 1.0 and 1.1
            context.minimum_version = context.maximum_version = version
        if ciphers:
            context.set_ciphers(ciphers)
        return context


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def texts(events: list[dict]) -> list[str]:
    return [text for event in events if "handshake failed" in (text := event["log_format"].format(**event))]


async def refused(there: Listener, kind: str, attempt: Callable) -> str:
    """The line about a handshake that fails; ``attempt`` is made several times, counted each time, told once."""
    before = metrics.value("tls_handshakes_failed", reason=kind)
    with capturedLogs() as events:
        for _ in range(3):
            await attempt()
            await there.connected(0)
    assert metrics.value("tls_handshakes_failed", reason=kind) == before + 3
    [line] = texts(events)
    assert ADVICE[kind] in line
    return line


async def cannot(there: Listener, tls: ssl.SSLContext) -> None:
    """Connect and say something: with TLS 1.3 a client learns only then that it is not wanted."""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        tracker = await there.open(tls)
        await tracker.send(tracker.frames.login())
        assert await tracker.closed() == b""
        await tracker.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_tracker_on_tls_delivers_and_is_known_by_its_address(run, redis, site, version: ssl.TLSVersion):
    """As on TCP; the versions are counted, so that one can see when nobody needs the old one."""
    name = version.name.replace("_", ".")
    before = metrics.value("tls_handshakes", version=name)

    async def scenario() -> None:
        async with listening(redis, site.spec()) as there:
            tracker = await there.open(site.only(version))
            await tracker.log_in()
            await tracker.deliver()
            [message] = await there.messages()
            assert message["peer"] == tracker.address
            [connection] = there.channels.connections
            assert connection.transport_kind == "ssl"
            await tracker.close()

    run(scenario())
    assert metrics.value("tls_handshakes", version=name) == before + 1


def test_bytes_may_come_one_by_one_from_the_first_one_on(run, redis, site):
    """On GPRS they do."""

    async def scenario() -> None:
        async with listening(redis, site.spec()) as there:
            tracker = await there.open()
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = site.trust().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            while not await _step(tls.do_handshake, tracker, incoming, outgoing):
                pass
            tls.write(tracker.frames.login())
            await tracker.send(outgoing.read(), piece=1)
            while not (verdict := await _step(lambda: tls.read(1), tracker, incoming, outgoing)):
                pass
            assert verdict == b"\x01"
            await tracker.close()

    run(scenario())


async def _step(action: Callable, tracker: Tracker, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> object:
    """Try ``action``, send what TLS wants to send byte by byte, and read where it wants more."""
    try:
        result = action() or True
    except ssl.SSLWantReadError:
        result = None
    if outgoing.pending:
        await tracker.send(outgoing.read(), piece=1)
    if result is None:
        incoming.write(await asyncio.wait_for(tracker.reader.read(65536), 10))
    return result


OLD = "AES128-SHA"
"""Key exchange by RSA, AES-CBC, SHA-1: what the oldest firmware may have."""


def test_the_oldest_ciphers_of_tls_1_2_are_still_spoken(run, redis, site):
    """By a certificate with an RSA key; they come last in the order."""

    async def scenario() -> None:
        async with listening(redis, site.spec(RSA_SERVER)) as there:
            tracker = await there.open(site.only(ssl.TLSVersion.TLSv1_2, OLD))
            await tracker.log_in()
            assert tracker.writer.get_extra_info("cipher")[0] == OLD
            await tracker.close()

    run(scenario())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_what_is_older_than_tls_1_2_is_refused_unless_it_is_allowed(run, redis, site, version: ssl.TLSVersion):
    """And the line names the option."""
    old = site.only(version, "ALL:@SECLEVEL=0")

    async def scenario() -> None:
        async with listening(redis, site.spec(RSA_SERVER)) as there:
            line = await refused(there, "version", lambda: cannot(there, old))
            assert "minVersion=" in line
        async with listening(redis, site.spec(RSA_SERVER, minVersion="1.0")) as there:
            tracker = await there.open(old)
            await tracker.log_in()
            await tracker.close()

    run(scenario())


def test_the_least_version_can_be_raised(run, redis, site):
    """For a fleet that is known to be new."""

    async def scenario() -> None:
        async with listening(redis, site.spec(minVersion="1.3")) as there:
            await refused(there, "version", lambda: cannot(there, site.only(ssl.TLSVersion.TLSv1_2)))
            tracker = await there.open(site.trust())
            await tracker.log_in()
            await tracker.close()

    run(scenario())


def test_no_common_cipher_is_said(run, redis, site):
    """A certificate with an EC key cannot be used with a key exchange by RSA."""

    async def scenario() -> None:
        async with listening(redis, site.spec()) as there:
            await refused(there, "no common cipher", lambda: cannot(there, site.only(ssl.TLSVersion.TLSv1_2, OLD)))

    run(scenario())


def test_a_client_certificate_is_asked_for_where_an_authority_is_given(run, redis, site):
    """None, and one of somebody else, are refused, each with its own line; an intermediate authority counts."""
    intermediate = Authority("Half of the fleet", FLEET)
    authorities = site.path("fleet.pem", FLEET.pem * 2)  # twice does no harm

    async def scenario() -> None:
        async with listening(redis, site.spec(clientCA=authorities)) as there:
            await refused(there, "no client certificate", lambda: cannot(there, site.trust()))
            stranger = site.with_certificate(AUTHORITY.sign_client("stranger"))
            await refused(there, "client certificate", lambda: cannot(there, stranger))
            tracker = await there.open(site.with_certificate(FLEET.sign_client("tracker")))
            await tracker.log_in()
            await tracker.close()
        authorities.write_bytes(intermediate.pem)
        async with listening(redis, site.spec(clientCA=authorities)) as there:
            tracker = await there.open(site.with_certificate(intermediate.sign_client("tracker")))
            await tracker.log_in()
            await tracker.close()
            await there.connected(0)
            await refused(
                there,
                "client certificate",
                lambda: cannot(there, site.with_certificate(FLEET.sign_client("other half"))),
            )

    run(scenario())


def test_a_tracker_that_does_not_trust_us_is_told_apart(run, redis, site):
    """The most frequent mistake: the authority's certificate is missing in the tracker."""

    def connect(port: int) -> None:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as plain,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            site.trust(FLEET).wrap_socket(plain, server_hostname="127.0.0.1")  # asyncio's sends no alert

    async def scenario() -> None:
        async with listening(redis, site.spec()) as there:
            line = await refused(there, "our certificate is refused", lambda: asyncio.to_thread(connect, there.port))
            assert "unknown ca" in line

    run(scenario())


@pytest.mark.parametrize("said", [b"\x00\x0f356307042441013", b"GET / HTTP/1.1\r\n\r\n"], ids=["a tracker", "HTTP"])
def test_who_does_not_speak_tls_is_closed_and_told(run, redis, site, said: bytes):
    """A tracker whose TLS is switched off would be the same riddle otherwise."""

    async def attempt(there: Listener) -> None:
        tracker = await there.open()
        await tracker.send(said)
        assert b"\x01" not in (await tracker.closed())[:1]
        await tracker.close()

    async def scenario() -> None:
        async with listening(redis, site.spec()) as there:
            line = await refused(there, "not TLS", lambda: attempt(there))
            assert re.match(r"127\.0\.0\.1:\d+ on ssl:0: the TLS handshake failed", line)
            [(_channel, address)] = there.channels.addresses()
            assert address == f"tls 127.0.0.1:{there.port}"

    run(scenario())


def test_who_hangs_up_in_the_middle_is_told_and_who_says_nothing_is_not(run, redis, site):
    """Health checks of load balancers connect and go."""

    async def hang_up(there: Listener) -> None:
        tracker = await there.open()
        hello = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            site.trust().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1").do_handshake()
        await tracker.send(hello.read())
        assert await asyncio.wait_for(tracker.reader.read(1), 10) == b"\x16"
        await tracker.close()

    async def scenario() -> None:
        async with listening(redis, site.spec()) as there:
            await refused(there, "hung up", lambda: hang_up(there))
            before = metrics.value("tls_handshakes_failed", reason="hung up")
            tracker = await there.open()
            await there.connected(1)
            await tracker.close()
            await there.connected(0)
            assert metrics.value("tls_handshakes_failed", reason="hung up") == before

    run(scenario())


def test_a_renewed_certificate_comes_without_a_restart_and_cuts_nobody_off(run, redis, site, monkeypatch):
    """Who is connected stays; a pair that does not fit changes nothing."""
    monkeypatch.setattr("gateway.channel.certificates.LOOK_EVERY", 0.0)

    async def scenario() -> None:
        async with listening(redis, site.spec()) as there:
            first = await there.open(site.trust())
            await first.log_in()
            AUTHORITY.sign("renewed").write(site.directory / "cert.pem", site.directory / "key.pem")
            assert await shown(there) == "renewed"
            (site.directory / "key.pem").write_bytes(SERVER.key_pem())
            assert await shown(there) == "renewed"
            await first.deliver()
            await first.close()

    async def shown(there: Listener) -> str:
        tracker = await there.open(site.trust())
        certificate = tracker.writer.get_extra_info("peercert")
        await tracker.close()
        return dict(pair for part in certificate["subject"] for pair in part)["commonName"]

    run(scenario())


def test_limits_on_connections_hold_during_the_handshake(run, redis, site):
    """It is the handshake that costs."""

    async def scenario() -> None:
        async with listening(redis, site.spec(), limits=Limits(connections_per_address=1)) as there:
            waiting = await there.open()
            await there.connected(1)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await there.open(site.trust())
            await waiting.close()

    before = metrics.value("tls_handshakes_failed", reason="hung up")
    run(scenario())
    assert metrics.value("tls_handshakes_failed", reason="hung up") == before  # it was we who closed


def test_the_kernel_looks_after_sockets_below_tls_too(run, redis, site):
    """A tracker that lost its network never says so; one that hung up while we do not read does."""

    async def scenario() -> None:
        async with listening(redis, site.spec()) as there:
            tracker = await there.open(site.trust())
            await tracker.log_in()
            [connection] = there.channels.connections
            handle = socket_of(connection.transport)
            assert handle is not None
            assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            connection._read(False)
            await tracker.close()
            async with asyncio.timeout(5):
                while len(there.channels.connections):
                    there.channels.connections.sweep()
                    await asyncio.sleep(0.02)

    run(scenario())


def test_the_api_serves_https_and_reads_renewed_certificates(run, site, monkeypatch):
    """The same code, by the same endpoint string."""
    from twisted.internet import reactor
    from twisted.web.resource import Resource
    from twisted.web.server import Site as WebSite

    monkeypatch.setattr("gateway.channel.certificates.LOOK_EVERY", 0.0)
    page = Resource()
    page.render_GET = lambda request: b"secure" if request.isSecure() else b"plain"
    page.isLeaf = True

    async def scenario() -> None:
        server = server_from_string(reactor, site.spec(), close_time=None)
        port = await aio.from_deferred(server.listen(WebSite(page)))
        for _ in range(2):
            async with httpx.AsyncClient(verify=site.trust()) as client:
                answer = await client.get(f"https://127.0.0.1:{port.getHost().port}/")
                assert answer.text == "secure"
            AUTHORITY.sign("renewed").write(site.directory / "cert.pem", site.directory / "key.pem")
        await aio.from_deferred(port.stopListening())

    run(scenario())


# -- time, in memory


class Echo(Protocol):
    """Notes why it ended."""

    reason: BaseException | None = None

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def connectionLost(self, reason) -> None:
        self.reason = reason.value


class Pair:
    """A server's TLS connection and a client's, both in memory."""

    def __init__(self, site: Site) -> None:
        site.spec()
        files = TlsFiles(privateKey=str(site.directory / "key.pem"), certKey=str(site.directory / "cert.pem"))
        self.clock = Clock()
        self.echo = Echo()
        factory = Factory.forProtocol(lambda: self.echo)
        wrapped = tls_factory(factory, Certificates(TlsOptions(files), "ssl:5028"), "ssl:5028", self.clock)
        self.protocol = wrapped.buildProtocol(IPv4Address("TCP", "10.0.0.1", 5))
        self.transport = Transport(self.protocol, self.clock)
        self.protocol.makeConnection(self.transport)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = site.trust().wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")

    def handshake(self) -> None:
        for _ in range(3):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            self.exchange()

    def exchange(self) -> None:
        if self.outgoing.pending:
            self.protocol.dataReceived(self.outgoing.read())
        self.clock.advance(0)
        self.incoming.write(self.transport.value())
        self.transport.clear()


class Transport(StringTransport):
    """Closes when it is told to, a turn later."""

    def __init__(self, protocol, clock: Clock) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "10.0.0.1", 5))
        self.protocol = protocol
        self.clock = clock
        self.is_open = True

    def loseConnection(self) -> None:
        self.abortConnection()

    def abortConnection(self) -> None:
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        if self.is_open:
            self.is_open = False
            self.clock.callLater(0, self.protocol.connectionLost, Failure(ConnectionDone()))


def test_a_handshake_has_its_time(site):
    """Then the protocol above hears why."""
    pair = Pair(site)
    pair.clock.advance(HANDSHAKE_TIME - 1)
    assert pair.transport.is_open
    with capturedLogs() as events:
        pair.clock.advance(1)
    assert not pair.transport.is_open
    assert isinstance(pair.echo.reason, HandshakeFailed)
    assert str(pair.echo.reason) == "the TLS handshake failed: it was not done within 20 s"
    [line] = texts(events)
    assert line.startswith("10.0.0.1:5 on ssl:5028: the TLS handshake failed")
    assert pair.clock.getDelayedCalls() == []


def test_after_the_handshake_there_is_no_such_limit(site):
    """A tracker may be silent for days."""
    pair = Pair(site)
    pair.handshake()
    pair.clock.advance(100 * HANDSHAKE_TIME)
    pair.client.write(b"still here")
    pair.exchange()
    assert pair.client.read(100) == b"still here"
    assert pair.clock.getDelayedCalls() == []


def test_who_does_not_answer_the_end_of_tls_is_cut(site):
    """Otherwise a connection that we closed would stay until the tracker goes by itself."""
    pair = Pair(site)
    pair.handshake()
    pair.echo.transport.loseConnection()
    assert pair.transport.is_open
    pair.clock.advance(CLOSE_TIME)
    assert not pair.transport.is_open
    assert not isinstance(pair.echo.reason, HandshakeFailed)
    assert pair.clock.getDelayedCalls() == []


def test_who_answers_it_is_closed_at_once(site):
    """In order."""
    pair = Pair(site)
    pair.handshake()
    pair.echo.transport.loseConnection()
    pair.exchange()
    with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
        pair.client.unwrap()
    pair.exchange()
    assert not pair.transport.is_open
    assert pair.clock.getDelayedCalls() == []


# -- endpoint strings


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("minVersion=1.4", r"minVersion=1\.4 is none of 1\.0, 1\.1, 1\.2, 1\.3"),
        ("sslmethod=SSLv3_METHOD", "sslmethod= is not known here: right is minVersion=1.2"),
        ("clientCa=x.pem", r"clientCa= is no option of ssl: there are privateKey, .*clientCA, minVersion"),
        ("backlog=many", "backlog 'many' should be a number"),
    ],
)
def test_a_wrong_option_is_named(site, options: str, said: str):
    """With what would be right."""
    from twisted.internet import reactor

    with pytest.raises(ConfigError, match=said):
        server_from_string(reactor, f"{site.spec()}:{options}")


def test_a_file_that_is_missing_is_one_line_at_the_start(run, redis, site):
    """Channel, endpoint, file."""

    async def scenario() -> None:
        async with listening(redis, f"ssl:0:privateKey={site.directory}/none.pem"):
            pass

    with pytest.raises(ConfigError, match=r"channel test: ssl:0:\S+: privateKey=\S+/none.pem: No such file"):
        run(scenario())


def test_arguments_without_a_name_are_in_twisteds_order(run, redis, site):
    """``ssl:PORT:privateKey:certKey``; a colon in a path has a backslash."""
    odd = site.directory / "a:b"
    odd.mkdir()
    SERVER.write(odd / "cert.pem", odd / "key.pem")
    path = str(odd).replace(":", r"\:")

    async def scenario() -> None:
        async with listening(redis, f"ssl:0:{path}/key.pem:{path}/cert.pem:{LOCAL}") as there:
            tracker = await there.open(site.trust())
            await tracker.log_in()
            await tracker.close()

    run(scenario())


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("wrong version number", "not TLS"),
        ("http request", "not TLS"),
        ("unsupported protocol", "version"),
        ("no shared cipher", "no common cipher"),
        ("peer did not return a certificate", "no client certificate"),
        ("certificate verify failed", "client certificate"),
        ("tlsv1 alert unknown ca", "our certificate is refused"),
        ("ssl/tls alert bad certificate", "our certificate is refused"),
        ("sslv3 alert certificate unknown", "our certificate is refused"),
        ("ssl/tls alert certificate expired", "our certificate is refused"),
        ("", "other"),
        ("something new in OpenSSL 7", "other"),
    ],
)
def test_openssls_words_become_a_few_kinds(words: str, kind: str):
    """Labels are bounded, and each has an advice."""
    assert kind_of(words) == kind
    assert {kind for kind, _words in FAILURES} <= ADVICE.keys()
