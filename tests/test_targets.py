"""The servers that streams are tested against: each keeps what a real client stores, and can be started again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aio_pika
import asyncpg
import pytest

from tests.targets.postgres import PostgresServer
from tests.targets.rabbit import RabbitServer

Run = Callable[..., Any]


async def fetched(url: str, statement: str, **options: Any) -> Any:
    """The first value that the statement gives."""
    connection = await asyncpg.connect(url, timeout=10, **options)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def test_postgres_has_a_database_for_each_test(run: Run, postgres_server: PostgresServer, postgres_url: str) -> None:
    run(fetched(postgres_url, "CREATE TABLE kept AS SELECT 42 AS value"))
    assert run(fetched(postgres_url, "SELECT value FROM kept")) == 42
    assert postgres_server.sql("SELECT to_regclass('kept') IS NULL", postgres_server.new_database()) == "t\n"


def test_postgres_asks_for_a_password(run: Run, postgres_server: PostgresServer) -> None:
    assert run(fetched(postgres_server.password_url, "SELECT current_user::text")) == "keeper"
    with pytest.raises(asyncpg.InvalidPasswordError):
        run(fetched(postgres_server.url_of("keeper:wrong"), "SELECT 1"))


def test_postgres_asks_for_tls(run: Run, postgres_server: PostgresServer) -> None:
    encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert run(fetched(postgres_server.tls_url, encrypted)) is True
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        run(fetched(postgres_server.url_of("encrypted"), encrypted, ssl=False))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_postgres_is_started_again_with_its_data(
    run: Run, make_postgres: Callable[[], PostgresServer], end: str
) -> None:
    server = make_postgres()
    run(fetched(server.url, "CREATE TABLE kept AS SELECT 42 AS value"))
    getattr(server, end)()
    with pytest.raises(ConnectionError):
        run(fetched(server.url, "SELECT 1"))
    server.start()
    assert run(fetched(server.url, "SELECT value FROM kept")) == 42


async def sent(url: str, queue: str, body: bytes) -> None:
    """Have the broker confirm a message in a queue that outlives it."""
    async with await aio_pika.connect(url, timeout=10) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue(queue, durable=True)
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue, timeout=10)


async def taken(url: str, queue: str) -> bytes:
    """The next message of the queue."""
    async with await aio_pika.connect(url, timeout=10) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, durable=True)
        message = await declared.get(no_ack=True, timeout=10)
        assert message is not None
        return message.body


def test_rabbitmq_keeps_messages(run: Run, rabbit_server: RabbitServer) -> None:
    run(sent(rabbit_server.url, "smoke", b"forty-two"))
    assert run(taken(rabbit_server.url, "smoke")) == b"forty-two"


def test_rabbitmq_is_started_again_with_its_data(run: Run, make_rabbit: Callable[[], RabbitServer]) -> None:
    server = make_rabbit()
    run(sent(server.url, "kept", b"forty-two"))
    server.kill()
    with pytest.raises(ConnectionError):
        run(taken(server.url, "kept"))
    server.start()
    assert run(taken(server.url, "kept")) == b"forty-two"
    server.stop()
