"""Bounds on what HTTP lets a client do before anybody knows who it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec import Struct
from twisted.internet import reactor

from gateway.api import http
from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.operations import Operation, Right
from gateway.api.parts import Parts
from gateway.api.server import ApiServer
from gateway.store.failures import Failures
from gateway.store.tokens import Tokens
from tests.rest import LOCAL, MASTER


class Body(Struct):
    name: str


async def echo(call: Call) -> Answer:
    return Answer([entry.value for entry in call.entries])


OPERATIONS = [
    Operation("POST", "/echo", echo, "", access=Right("gw/devices"), body=list[Body], body_most=http.BODY_MOST_OF_ALL)
]


@pytest.fixture
def api(redis, monkeypatch: pytest.MonkeyPatch):
    """A context with the API listening."""
    monkeypatch.setattr("gateway.api.server.operations", lambda: OPERATIONS)

    @asynccontextmanager
    async def listening() -> AsyncIterator[ApiServer]:
        server = ApiServer(reactor, LOCAL, Parts(tokens=Tokens(redis, MASTER), failures=Failures()))
        await server.start()
        try:
            yield server
        finally:
            await server.stop()

    return listening


def head(length: int, key: str = MASTER) -> bytes:
    return f"POST /echo HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\nContent-Length: {length}\r\n\r\n".encode()


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def test_of_a_strangers_body_nothing_is_kept(run, api):
    """It is read so that the answer arrives, and cut where it is long; the refusal is the same as without a body."""

    async def scenario() -> None:
        async with api() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head(1000, "wrong") + b" " * 1000)
            assert (await reader.readline()).startswith(b"HTTP/1.1 401")
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head(10_000_000, "wrong") + b" " * (http.STRANGERS_BODY_MOST + 1))
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            writer.close()
            await until(lambda: server._site.connections == 0)
            assert server._site.bodies == 0

    run(scenario())


def test_all_bodies_under_way_have_a_bound_together(run, api, monkeypatch: pytest.MonkeyPatch):
    """They stand in temporary files; who comes too much is told to come later, and all is given back."""
    monkeypatch.setattr(http, "BODIES_MOST", 3000)

    async def scenario() -> None:
        async with api() as server:
            _, first = await asyncio.open_connection("127.0.0.1", server.port)
            first.write(head(5000) + b" " * 2500)
            await until(lambda: server._site.bodies == 2500)
            reader, second = await asyncio.open_connection("127.0.0.1", server.port)
            second.write(head(1000) + b" " * 1000)
            assert (await reader.readline()).startswith(b"HTTP/1.1 503")
            first.transport.abort()
            second.close()
            await until(lambda: server._site.connections == 0)
            assert server._site.bodies == 0

    run(scenario())


def test_connections_have_a_bound(run, api, monkeypatch: pytest.MonkeyPatch):
    """One more is closed at once; when one goes, there is room."""
    monkeypatch.setattr(http, "CONNECTIONS_MOST", 2)

    async def scenario() -> None:
        async with api() as server:
            connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
            await until(lambda: server._site.connections == 2)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            assert await reader.read() == b""
            writer.close()
            connections[0][1].close()
            await until(lambda: server._site.connections == 1)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head(17) + b'[{"name": "back"}]'[:17])
            assert (await reader.readline()).startswith(b"HTTP/1.1 400")
            writer.close()
            connections[1][1].close()

    run(scenario())


def test_a_request_that_comes_byte_by_byte_ends(run, api, monkeypatch: pytest.MonkeyPatch):
    """Each byte would give it more time otherwise."""
    monkeypatch.setattr(http, "IDLE_TIME", 0.3)
    monkeypatch.setattr(http, "REQUEST_TIME", 0.5)

    async def scenario() -> float:
        async with api() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            started = asyncio.get_running_loop().time()
            ended = asyncio.ensure_future(reader.read())
            while not ended.done() and asyncio.get_running_loop().time() < started + 5:
                writer.write(b"G")
                await asyncio.sleep(0.05)
            writer.close()
            assert ended.done()
            return asyncio.get_running_loop().time() - started

    assert 0.5 <= run(scenario()) < 4
