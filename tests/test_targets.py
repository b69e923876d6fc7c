"""The servers that streams are tested against: each keeps what a real client stores, and can be started again."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aio_pika
import aiokafka
import asyncpg
import httpx
import pytest
import redis
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.helpers import create_ssl_context
from redis.asyncio import Redis

from tests.authority import Authority
from tests.targets import http, kafka
from tests.targets.http import Answer, HttpTarget
from tests.targets.kafka import KafkaServer
from tests.targets.postgres import PostgresServer
from tests.targets.process import ServerProcess, find_program
from tests.targets.rabbit import RabbitServer
from tests.targets.redis import RedisTarget

Run = Callable[..., Any]


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_a_missing_server_is_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: Any) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no-such-server is not installed"):
        find_program("no-such-server")


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    server = ServerProcess("false", ["sh", "-c", "echo because >&2; exit 1"], tmp_path)
    with pytest.raises(AssertionError, match="because"):
        server.start()


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


def test_rabbitmq_speaks_tls(run: Run, rabbit_server: RabbitServer) -> None:
    run(sent(rabbit_server.tls_url, "encrypted", b"forty-two"))
    assert run(taken(rabbit_server.url, "encrypted")) == b"forty-two"


def test_rabbitmq_is_started_again_with_its_data(run: Run, make_rabbit: Callable[[], RabbitServer]) -> None:
    server = make_rabbit()
    run(sent(server.url, "kept", b"forty-two"))
    server.kill()
    with pytest.raises(ConnectionError):
        run(taken(server.url, "kept"))
    server.start()
    assert run(taken(server.url, "kept")) == b"forty-two"
    server.stop()


async def produced(topic: str, *values: bytes, **options: Any) -> list[int]:
    """Have the broker acknowledge the values, with themselves as keys; the partitions."""
    producer = aiokafka.AIOKafkaProducer(acks="all", **options)
    try:  # "async with" would not stop it where it does not start
        await producer.start()
        return [(await producer.send_and_wait(topic, value, key=value)).partition for value in values]
    finally:
        await producer.stop()


async def consumed(topic: str, count: int, **options: Any) -> list[bytes]:
    """The first values of the topic."""
    async with aiokafka.AIOKafkaConsumer(topic, auto_offset_reset="earliest", **options) as consumer:
        return sorted([(await consumer.getone()).value for _ in range(count)])


VALUES = [b"%d" % number for number in range(20)]


def test_kafka_keeps_messages(run: Run, kafka_server: KafkaServer) -> None:
    partitions = run(produced("smoke", *VALUES, bootstrap_servers=kafka_server.address))
    assert set(partitions) == {0, 1, 2}
    assert run(consumed("smoke", 20, bootstrap_servers=kafka_server.address)) == sorted(VALUES)


def test_kafka_speaks_tls(run: Run, kafka_server: KafkaServer) -> None:
    tls = {"security_protocol": "SSL", "ssl_context": create_ssl_context(cafile=str(kafka_server.authority))}
    run(produced("encrypted", b"42", bootstrap_servers=kafka_server.tls_address, **tls))
    assert run(consumed("encrypted", 1, bootstrap_servers=kafka_server.address)) == [b"42"]


def test_kafka_asks_for_a_password(run: Run, kafka_server: KafkaServer) -> None:
    address = kafka_server.password_address
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": kafka.USER}
    run(produced("secret", b"42", bootstrap_servers=address, sasl_plain_password=kafka.PASSWORD, **login))
    assert run(consumed("secret", 1, bootstrap_servers=kafka_server.address)) == [b"42"]
    with pytest.raises(KafkaError):
        run(produced("secret", b"43", bootstrap_servers=address, sasl_plain_password="wrong", **login))


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_kafka_is_started_again_with_its_data(run: Run, make_kafka: Callable[..., KafkaServer], end: str) -> None:
    server = make_kafka(partitions=1)
    assert set(run(produced("kept", *VALUES, bootstrap_servers=server.address))) == {0}
    getattr(server, end)()
    with pytest.raises(KafkaConnectionError):
        run(produced("kept", b"lost", bootstrap_servers=server.address))
    server.start()
    run(produced("kept", b"more", bootstrap_servers=server.address))
    assert run(consumed("kept", 21, bootstrap_servers=server.address)) == sorted([*VALUES, b"more"])


async def appended(url: str) -> list[Any]:
    """Add an entry to a stream; all that it has."""
    async with Redis.from_url(url) as client:
        await client.xadd("smoke", {"value": "42"})
        return [fields for _, fields in await client.xrange("smoke") or ()]


@pytest.mark.parametrize("password", ["", "pass/word @1"])
def test_redis_is_started_again_with_its_data(
    run: Run, make_redis_target: Callable[..., RedisTarget], password: str
) -> None:
    server = make_redis_target(password)
    assert run(appended(server.url)) == [{b"value": b"42"}]
    server.kill()
    with pytest.raises(redis.exceptions.ConnectionError):
        run(appended(server.url))
    server.start()
    assert run(appended(server.url)) == [{b"value": b"42"}] * 2


def test_redis_asks_for_a_password(run: Run, make_redis_target: Callable[..., RedisTarget]) -> None:
    server = make_redis_target("secret")
    with pytest.raises(redis.exceptions.AuthenticationError):
        run(appended(f"redis://{server.address}"))


async def posted(url: str, **options: Any) -> httpx.Response:
    """The answer to a request within half a second."""
    async with httpx.AsyncClient(timeout=0.5, **options) as client:
        return await client.post(f"{url}/in?a=b", json={"value": 42}, headers={"X-Smoke": "yes"})


def test_http_notes_requests(run: Run, http_target: HttpTarget) -> None:
    assert run(posted(http_target.url)).status_code == 200
    [asked] = run(http_target.until(1))
    assert (asked.method, asked.path, asked.query, asked.json()) == ("POST", "/in", "a=b", {"value": 42})
    assert asked.headers["x-smoke"] == "yes"


def test_http_answers_as_told(run: Run, http_target: HttpTarget) -> None:
    http_target.default = Answer(204)
    http_target.next(Answer(503, b"busy", {"Retry-After": "7"}), Answer(201, b"late", delay=0.1))
    busy, late, default = (run(posted(http_target.url)) for _ in range(3))
    assert (busy.status_code, busy.content, busy.headers["retry-after"]) == (503, b"busy", "7")
    assert (late.status_code, late.content) == (201, b"late")
    assert late.elapsed.total_seconds() >= 0.1
    assert default.status_code == 204


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http.NEVER, httpx.ReadTimeout),
        (Answer(delay=60), httpx.ReadTimeout),
        (http.CLOSE, (httpx.ReadError, httpx.RemoteProtocolError)),
        (Answer(body=b"cu", is_cut=True), httpx.RemoteProtocolError),
    ],
)
def test_http_fails_as_told(run: Run, http_target: HttpTarget, answer: Answer, error: Any) -> None:
    http_target.next(answer)
    with pytest.raises(error):
        run(posted(http_target.url))
    assert len(http_target.requests) == 1
    assert run(posted(http_target.url)).status_code == 200


def test_http_refuses_until_it_is_started_again(run: Run, http_target: HttpTarget) -> None:
    async def restarted() -> None:
        async with httpx.AsyncClient(timeout=5) as client:
            await client.get(http_target.url)
            assert http_target.connections == 1
            await http_target.stop()
            assert http_target.connections == 0
            with pytest.raises(httpx.ConnectError):
                await client.get(http_target.url)
            http_target.start()
            await client.get(http_target.url)

    run(restarted())
    assert len(http_target.requests) == 2


def test_http_speaks_tls(run: Run, make_http_target: Callable[..., HttpTarget]) -> None:
    authority = Authority("authority")
    target = make_http_target(authority.sign("web"))
    trusting = ssl.create_default_context(cadata=authority.pem.decode())
    assert run(posted(target.url, verify=trusting)).status_code == 200
    with pytest.raises(httpx.ConnectError, match="certificate"):
        run(posted(target.url))
