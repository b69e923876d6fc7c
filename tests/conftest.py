"""What every test may use: one event loop that Twisted and asyncio share, and a real redis-server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from gateway import aio

aio.install_reactor()

from twisted.internet import reactor  # noqa: E402

from gateway.store.connection import Client, connect  # noqa: E402
from gateway.store.embedded import EmbeddedRedis  # noqa: E402
from tests.brokers import make_mosquitto, mosquitto, mosquitto_program  # noqa: E402, F401
from tests.plugin_run import make_plugin  # noqa: E402, F401
from tests.targets.http import http_target, make_http_target  # noqa: E402, F401
from tests.targets.kafka import kafka_server, make_kafka  # noqa: E402, F401
from tests.targets.postgres import make_postgres, postgres_server, postgres_url  # noqa: E402, F401
from tests.targets.rabbit import make_rabbit, rabbit_server  # noqa: E402, F401
from tests.targets.redis import make_redis_target, redis_target  # noqa: E402, F401

T = TypeVar("T")
LOOP: asyncio.AbstractEventLoop = reactor._asyncioEventloop  # type: ignore[attr-defined]


@pytest.fixture(scope="session", autouse=True)
def _reactor_runs() -> Iterator[None]:
    """``reactor.run`` would never return to pytest; the loop that it runs on is driven by ``run`` below instead."""
    asyncio.set_event_loop(LOOP)
    reactor.startRunning(installSignalHandlers=False)  # type: ignore[attr-defined]
    yield
    if reactor.threadpool is not None:  # type: ignore[attr-defined]
        reactor.threadpool.stop()  # type: ignore[attr-defined]  # its threads would keep the process alive


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run a coroutine to its end on the shared loop, ``timeout`` seconds at most."""

    def run_until_complete(coroutine: Coroutine[Any, Any, T], timeout: float = 30) -> T:
        return LOOP.run_until_complete(asyncio.wait_for(coroutine, timeout))

    return run_until_complete


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """One redis-server for all tests that only need a clean store."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis"), appendfsync="no")
    LOOP.run_until_complete(server.start())
    yield server
    LOOP.run_until_complete(server.stop())


@pytest.fixture
def redis(redis_server: EmbeddedRedis) -> Iterator[Client]:
    """A client of an empty Redis."""
    others = asyncio.all_tasks(LOOP)
    client = connect(redis_server.url)
    LOOP.run_until_complete(client.flushall())
    yield client
    LOOP.run_until_complete(_end(asyncio.all_tasks(LOOP) - others))
    LOOP.run_until_complete(client.aclose())


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    """What a test left under way would open another connection after the client is closed, and nobody closes that."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
