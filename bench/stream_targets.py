"""The real targets of the streams that are measured: each a context that gives the stream's configuration."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from attrs import frozen

from bench.processes import free_port, running, running_mosquitto
from tests.targets.kafka import KafkaServer
from tests.targets.postgres import PostgresServer, postgres_directory
from tests.targets.rabbit import RabbitServer
from tests.targets.redis import RedisTarget

T = TypeVar("T", KafkaServer, PostgresServer, RabbitServer, RedisTarget)


@frozen
class Setup:
    """``limit``: messages in a batch, and ``count``: messages in all, where a type has other ones than the rest."""

    protocol: str
    configuration: dict[str, Any]
    limit: int = 0
    count: int = 0


@contextlib.contextmanager
def _web(directory: Path) -> Iterator[str]:
    port = free_port()
    with running([sys.executable, "-m", "bench.web_server", str(port)], "ready"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _http(directory: Path) -> Iterator[Setup]:
    with _web(directory) as url:
        yield Setup("http", {"uri": f"{url}/in"})


@contextlib.contextmanager
def _file(directory: Path) -> Iterator[Setup]:
    yield Setup("file", {"path": str(directory / "messages.jsonl")})


@contextlib.contextmanager
def _mqtt(directory: Path) -> Iterator[Setup]:
    with running_mosquitto() as (_, port):
        yield Setup("mqtt", {"uri": f"mqtt://127.0.0.1:{port}"})


@contextlib.contextmanager
def _kafka(directory: Path) -> Iterator[Setup]:
    with _server(KafkaServer, directory) as server:
        yield Setup("kafka", {"brokers": [server.address], "topic": "bench"})


@contextlib.contextmanager
def _amqp(directory: Path) -> Iterator[Setup]:
    with _server(RabbitServer, directory) as server:
        own = {"exchange": "bench", "exchange_type": "fanout", "queue": "bench"}
        yield Setup("amqp", {"uri": f"amqp://127.0.0.1:{server.port}", **own})


@contextlib.contextmanager
def _redis(directory: Path) -> Iterator[Setup]:
    with _server(RedisTarget, directory) as server:
        yield Setup("redis", {"uri": server.url})


@contextlib.contextmanager
def _postgresql(directory: Path) -> Iterator[Setup]:
    with postgres_directory() as place, _server(PostgresServer, place) as server:
        yield Setup("postgresql", {"uri": server.url})


@contextlib.contextmanager
def _flespi(directory: Path) -> Iterator[Setup]:
    with _web(directory) as url:
        yield Setup("flespi", {"uri": f"{url}/in"})


@contextlib.contextmanager
def _traccar(directory: Path) -> Iterator[Setup]:
    with _web(directory) as url:
        yield Setup("traccar", {"uri": url, "receiver": "flespi"})


@contextlib.contextmanager
def _osmand(directory: Path) -> Iterator[Setup]:
    with _web(directory) as url:
        yield Setup("traccar", {"uri": f"{url}/", "receiver": "osmand"}, limit=100, count=5000)


@contextlib.contextmanager
def _server(kind: Callable[[Path], T], directory: Path) -> Iterator[T]:
    """A server of the tests. What its start writes goes to standard error: standard output has the result."""
    with kind(directory) as server:
        yield server


TARGETS: dict[str, Callable[[Path], AbstractContextManager[Setup]]] = {
    "http": _http,
    "file": _file,
    "mqtt": _mqtt,
    "kafka": _kafka,
    "amqp": _amqp,
    "redis": _redis,
    "postgresql": _postgresql,
    "flespi": _flespi,
    "traccar": _traccar,
    "traccar, OsmAnd": _osmand,
}
