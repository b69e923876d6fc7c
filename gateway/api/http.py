"""HTTP as a client may use it: how many connections, how long and how large a request, and what is kept of it."""

from __future__ import annotations

import time

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from gateway import metrics
from gateway.api.answers import failed
from gateway.api.errors import ApiError
from gateway.api.operations import KiB, MiB
from gateway.api.parts import Parts

PREFIXES = ("FlespiToken", "Bearer")
HEAD_MOST = 128 * KiB
"""Of a request's first line and headers: selectors and ``data`` stand in the path. Twisted's own limit is 16 KiB."""
BODY_MOST_OF_ALL = 16 * MiB
"""What is kept of a request's body; each operation has a limit of its own, and none above this."""
BODIES_MOST = 256 * MiB
"""Of all requests under way together: long bodies are kept in temporary files."""
STRANGERS_BODY_MOST = 64 * KiB
"""What is read, and thrown away, of the body of somebody without a token, before the connection is cut."""
CONNECTIONS_MOST = 2000
IDLE_TIME = 75.0
"""Seconds that a kept-alive connection may be silent: above what clients and proxies use, so that they close first."""
REQUEST_TIME = 120.0
"""Seconds that a request may take to arrive; a byte now and then would otherwise hold a connection for ever."""
LOG_EVERY = 1000

log = Logger()


class ApiChannel(HTTPChannel):
    """One connection of a client."""

    MAX_LENGTH = HEAD_MOST
    totalHeadersSize = HEAD_MOST
    site: ApiSite
    _began: float | None = None

    def connectionMade(self) -> None:
        self.site.connections += 1
        super().connectionMade()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.site.connections -= 1
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        if self._began is None:
            self._began = time.monotonic()
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def allContentReceived(self) -> None:
        self._began = None
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def resetTimeout(self) -> None:
        """What Twisted calls for each byte: a request that takes too long is let run into the idle time."""
        if self._began is None or time.monotonic() - self._began < REQUEST_TIME:
            super().resetTimeout()  # type: ignore[no-untyped-call]

    def lineLengthExceeded(self, line: bytes) -> None:
        """Twisted would hang up without a word."""
        error = ApiError.too_large(f"the request's first line or a header is longer than {HEAD_MOST} bytes")
        body = failed(error).whole()
        head = (
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
        )
        assert self.transport is not None
        self.transport.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.loseConnection()  # type: ignore[no-untyped-call]


class ApiRequest(Request):
    """A request whose body has a bound: more is neither kept nor waited for, and of a stranger's nothing is kept."""

    is_too_large = False
    is_one_too_many = False
    _is_kept = True
    _received = 0

    def set_header(self, name: str, value: str) -> None:
        """Of the answer."""
        self.responseHeaders.setRawHeaders(name, [value])

    @property
    def _site(self) -> ApiSite:
        site: ApiSite = self.channel.site  # type: ignore[attr-defined]
        return site

    def gotLength(self, length: int | None) -> None:
        site = self._site
        self.is_too_large = length is not None and length > BODY_MOST_OF_ALL
        self._is_kept = length == 0 or site.is_known(self)
        super().gotLength(length if self._is_kept and not self.is_too_large else 0)  # type: ignore[no-untyped-call]
        self.notifyFinish().addBoth(lambda _: site.forget_body(self._received))

    def handleContentChunk(self, data: bytes) -> None:
        site = self._site
        self._received += len(data)
        site.bodies += len(data)
        self.is_too_large = self.is_too_large or self._received > BODY_MOST_OF_ALL
        self.is_one_too_many = self.is_one_too_many or site.bodies > BODIES_MOST
        if self._is_kept and not self.is_too_large and not self.is_one_too_many:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]
        elif self._received > (4 * BODY_MOST_OF_ALL if self._is_kept else STRANGERS_BODY_MOST):
            self.channel.forceAbortClient()


class ApiSite(Site):
    """Makes the connections and requests of the API, as many as there may be."""

    requestFactory = ApiRequest
    protocol = ApiChannel  # type: ignore[assignment]
    noisy = False

    def __init__(self, root: IResource, parts: Parts) -> None:
        super().__init__(root, timeout=IDLE_TIME)  # type: ignore[no-untyped-call]
        self._parts = parts
        self.connections = 0
        self.bodies = 0
        """Bytes of bodies of requests under way."""

    def buildProtocol(self, addr: IAddress | None) -> ApiChannel | None:  # type: ignore[override]
        if self.connections >= CONNECTIONS_MOST:
            n = metrics.count("api_connections_refused")
            if n % LOG_EVERY == 1:
                log.warn("refused an API client ({n}.): there are {most} already", n=n, most=CONNECTIONS_MOST)
            return None
        return super().buildProtocol(addr)  # type: ignore[no-any-return, no-untyped-call]

    def is_known(self, request: Request) -> bool:
        """Whether it has a valid token; who has none is told so later."""
        key = key_of(request)
        return bool(key) and self._parts.tokens.authenticate(key, time.time(), address_of(request)) is not None

    def forget_body(self, size: int) -> None:
        """A request is over."""
        self.bodies -= size


def key_of(request: Request) -> str:
    """The key in the header ``Authorization``, with flespi's word before it, Bearer, or bare; "" without one."""
    headers = request.requestHeaders.getRawHeaders(b"authorization")
    if not headers:
        return ""
    header = headers[0].decode("latin-1").strip()
    word, _, rest = header.partition(" ")
    return rest.strip() if word in PREFIXES else header


def address_of(request: Request) -> str:
    """The client's address without its port; limits on failures hold for it."""
    return str(getattr(request.getClientAddress(), "host", "") or "local")
