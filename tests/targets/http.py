"""An HTTP server on the reactor of the tests that notes what it is asked, and answers as it is told."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import attrs
import pytest
from OpenSSL import SSL
from twisted.internet import reactor, ssl
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from gateway import aio
from tests.authority import Signed
from tests.targets.process import free_port


@attrs.frozen
class Asked:
    """A request as it came; names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@attrs.frozen
class Answer:
    """What the server does with a request, ``delay`` seconds after it came.

    :param is_cut: the body ends before the length that its header says, and so does the connection
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    delay: float = 0
    is_cut: bool = False


CLOSE = Answer(status=0)
"""The connection is closed without an answer."""
NEVER = Answer(status=0, delay=float("inf"))
"""There is no answer, and the connection stays."""


class HttpTarget:
    """An HTTP server on ``port`` of 127.0.0.1, over TLS if it is given a certificate. It runs while the loop does.

    :ivar default: what it answers when nothing else was said with :meth:`next`; a function is given the request
    :ivar requests: all that came, in order, also those that got no answer
    """

    def __init__(self, signed: Signed | None = None) -> None:
        self.port = free_port()
        self.default: Answer | Callable[[Asked], Answer] = Answer()
        self.requests: list[Asked] = []
        self._signed = signed
        self._next: deque[Answer] = deque()
        self._news = asyncio.Event()
        self._site: Any = WrappingFactory(Site(_Page(self)))
        self._listening: IListeningPort | None = None

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"{'https' if self._signed else 'http'}://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._site.protocols)

    def next(self, *answers: Answer) -> None:
        """What to do with the next requests, one each."""
        self._next.extend(answers)

    def start(self) -> None:
        """Listen, again on the same port if it was stopped."""
        assert self._listening is None, "it listens already"
        local = {"interface": "127.0.0.1"}
        net: Any = reactor
        if self._signed is None:
            self._listening = net.listenTCP(self.port, self._site, **local)
        else:
            self._listening = net.listenSSL(self.port, self._site, _Contexts(self._signed), **local)

    async def stop(self) -> None:
        """Refuse connections, and end those that are open without a word."""
        if self._listening is not None:
            listening, self._listening = self._listening, None
            await aio.from_deferred(maybeDeferred(listening.stopListening))
        for protocol in list(self._site.protocols):
            protocol.transport.abortConnection()
        async with asyncio.timeout(10):
            while self._site.protocols:  # each is told in a later turn of the loop
                await asyncio.sleep(0)

    async def until(self, is_done: int | Callable[[list[Asked]], Any], timeout: float = 15) -> list[Asked]:
        """Wait for a number of requests, or until ``is_done`` holds for them; they are all given."""
        try:
            async with asyncio.timeout(timeout):
                while not (len(self.requests) >= is_done if isinstance(is_done, int) else is_done(self.requests)):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{len(self.requests)} requests, the last {self.requests[-3:]}") from None
        return self.requests

    def asked(self, request: Asked) -> Answer:
        """Note it; what to do with it."""
        self.requests.append(request)
        self._news.set()
        if self._next:
            return self._next.popleft()
        return self.default if isinstance(self.default, Answer) else self.default(request)


class _Contexts(ssl.ContextFactory):
    """The one TLS context. Twisted's own hands pyOpenSSL what it warns of, and a warning is an error here."""

    def __init__(self, signed: Signed) -> None:
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate(signed.certificate)
        self._context.use_privatekey(signed.key)

    def getContext(self) -> SSL.Context:
        return self._context


class _Page(Resource):
    """Every path."""

    isLeaf = True

    def __init__(self, target: HttpTarget) -> None:
        super().__init__()
        self._target = target

    def render(self, request: Request) -> int:
        answer = self._target.asked(_asked(request))
        waiting = None
        if answer.delay == 0:
            _give(request, answer)
        elif answer.delay != float("inf"):
            waiting = reactor.callLater(answer.delay, _give, request, answer)

        def gone(_: Any) -> None:
            if waiting is not None and waiting.active():
                waiting.cancel()

        if not request.finished:
            request.notifyFinish().addErrback(gone)
        return int(NOT_DONE_YET)


def _asked(request: Request) -> Asked:
    path, _, query = request.uri.decode().partition("?")
    headers = {
        name.decode().lower(): ", ".join(value.decode() for value in values)
        for name, values in request.requestHeaders.getAllRawHeaders()
    }
    assert request.content is not None
    return Asked(request.method.decode(), path, query, headers, request.content.read())


def _give(request: Request, answer: Answer) -> None:
    transport: Any = request.channel.transport
    if answer.status == 0:
        transport.abortConnection()
        return
    request.setResponseCode(answer.status)
    for name, value in answer.headers.items():
        request.setHeader(name, value)
    request.setHeader("content-length", str(len(answer.body) + answer.is_cut))
    request.write(answer.body)
    if answer.is_cut:
        transport.loseConnection()
    else:
        request.finish()


@pytest.fixture
def make_http_target(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> Iterator[Callable[..., HttpTarget]]:
    """Makes and starts HTTP servers; they end with the test."""
    made: list[HttpTarget] = []

    def make(signed: Signed | None = None) -> HttpTarget:
        made.append(HttpTarget(signed))
        made[-1].start()
        return made[-1]

    yield make
    for target in made:
        run(target.stop())


@pytest.fixture
def http_target(make_http_target: Callable[..., HttpTarget]) -> HttpTarget:
    """A running HTTP server that answers 200 to all."""
    return make_http_target()
