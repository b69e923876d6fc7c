"""TLS below a connection: a time limit for its handshake, and words for one that failed.

From below: TCP, Twisted's TLS, :class:`Handshake`, and the protocol that speaks to the tracker. That one exists from
the first byte on, so limits on connections hold while the handshake is under way.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IProtocol, IProtocolFactory, IReactorTime
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from gateway import metrics
from gateway.channel.certificates import Certificates, reason_of
from gateway.channel.repeats import Repeats
from gateway.channel.transport import peer_of
from gateway.errors import PeerError

HANDSHAKE_TIME = 20.0
"""Seconds from the connection to the end of the handshake: two or three round trips and some 4 KB, on GPRS."""
CLOSE_TIME = 10.0
"""Seconds that a tracker has to answer our closing of TLS; some never do."""

FAILURES = (
    ("our certificate is refused", ("alert unknown ca", "alert bad cert", "alert cert", "alert unsupported cert")),
    ("not TLS", ("wrong version number", "http request", "https proxy request", "unknown protocol", "packet length")),
    ("version", ("unsupported protocol", "version too low", "protocol version", "no protocols available")),
    ("no common cipher", ("no shared cipher", "no ciphers", "no suitable", "no common", "alert handshake failure")),
    ("no client certificate", ("peer did not return a certificate",)),
    ("client certificate", ("certificate",)),
)
"""Kinds of failures, each with words of OpenSSL's reason that tell it; the first row that fits holds."""
ADVICE = {
    "not TLS": "it does not speak TLS: switch TLS on in the tracker, or give it a tcp: endpoint",
    "version": "it speaks no TLS version that is allowed here; minVersion= names the lowest",
    "no common cipher": "it has no cipher in common with this endpoint",
    "no client certificate": "it shows no certificate, and clientCA= asks for one",
    "client certificate": "its certificate is not valid for the authorities of clientCA=",
    "our certificate is refused": "it does not trust this endpoint's certificate: it needs that of the authority",
    "hung up": "it hung up in the middle; some trackers do where they do not trust the certificate",
    "time": f"it was not done within {HANDSHAKE_TIME:.0f} s",
}


class HandshakeFailed(PeerError):
    """A connection that ended before TLS had begun. ``kind`` is one of a few fixed words."""

    def __init__(self, kind: str, detail: str) -> None:
        said = f" ({detail})" if detail else ""
        super().__init__(f"the TLS handshake failed: {ADVICE.get(kind, kind)}{said}")
        self.kind = kind


@implementer(IHandshakeListener)
class Handshake(ProtocolWrapper):
    """Between Twisted's TLS and the protocol above: bounds the beginning and the end, and says why there was none."""

    factory: HandshakeFactory
    transport: Any

    def __init__(self, factory: HandshakeFactory, wrappedProtocol: IProtocol) -> None:
        super().__init__(factory, wrappedProtocol)  # type: ignore[arg-type]
        self._is_done = False
        self._is_ours = False
        self._is_late = False
        self._timer: IDelayedCall | None = None

    def makeConnection(self, transport: Any) -> None:
        self._timer = self.factory.clock.callLater(HANDSHAKE_TIME, self._too_late)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def handshakeCompleted(self) -> None:
        """Twisted's TLS says so."""
        self._is_done = True
        self._stop_timer()
        metrics.count("tls_handshakes", version=self.transport.getHandle().get_protocol_version_name())
        if IHandshakeListener.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.handshakeCompleted()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._stop_timer()
        failure = self._failure(reason)
        if failure is not None:
            self.factory.failed(failure, self)
            reason = Failure(failure)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def loseConnection(self) -> None:
        self._is_ours = True
        super().loseConnection()  # type: ignore[no-untyped-call]
        if self.factory.close_time is not None and self.connected and self._is_done:
            self._stop_timer()
            self._timer = self.factory.clock.callLater(self.factory.close_time, self.transport.abortConnection)

    def abortConnection(self) -> None:
        """Close at once."""
        self._is_ours = True
        self.transport.abortConnection()

    def _too_late(self) -> None:
        self._is_late = True
        self.transport.abortConnection()

    def _failure(self, reason: Failure) -> HandshakeFailed | None:
        if self._is_late:
            return HandshakeFailed("time", "")
        if self._is_done or self._is_ours:
            return None
        if isinstance(reason.value, SSL.Error):
            words = reason_of(reason.value)
            return HandshakeFailed(kind_of(words), words)
        if reason.check(ConnectionDone, ConnectionLost) and self._said_nothing():
            return None  # a port scan, a load balancer's health check
        return HandshakeFailed("hung up", "")

    def _said_nothing(self) -> bool:
        """No whole message of TLS came; the state is an error by now, but the client's random number is not there."""
        return not any(self.transport.getHandle().client_random() or b"")

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class HandshakeFactory(WrappingFactory):
    """Puts a :class:`Handshake` below each protocol of ``factory``. ``where`` is the endpoint, for people.

    ``close_time`` (seconds): how long a client may take to answer the end of TLS; None: as long as it likes.
    """

    log = Logger()
    noisy = False
    protocol = Handshake

    def __init__(self, factory: IProtocolFactory, where: str, clock: IReactorTime, close_time: float | None) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self.clock = clock
        self.close_time = close_time
        self._where = where
        self._repeats = Repeats()

    def logPrefix(self) -> str:
        """Twisted's own would name both factories."""
        return str(type(self.wrappedFactory).__name__)

    def failed(self, failure: HandshakeFailed, connection: Handshake) -> None:
        """Count and tell it."""
        metrics.count("tls_handshakes_failed", reason=failure.kind)
        more = self._repeats.tell(failure.kind)
        if more is not None:
            self.log.info(
                "{peer} on {where}: {why}{more}",
                peer=peer_of(connection.transport.getPeer()), where=self._where, why=str(failure), more=more,
            )  # fmt: skip


def tls_factory(
    factory: IProtocolFactory,
    certificates: Certificates,
    where: str,
    clock: IReactorTime,
    close_time: float | None = CLOSE_TIME,
) -> TLSMemoryBIOFactory:
    """What makes TLS connections for the protocols of ``factory``."""
    return TLSMemoryBIOFactory(certificates, False, HandshakeFactory(factory, where, clock, close_time), clock)


def kind_of(words: str) -> str:
    """The kind of failure that OpenSSL's words tell."""
    return next((kind for kind, parts in FAILURES if any(part in words for part in parts)), "other")
