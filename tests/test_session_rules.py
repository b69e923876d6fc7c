"""Tokens on the embedded broker: each gets what it may read and no more, for as long as it is good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import pytest
from brokers import Received, Subscriber
from test_broker import MASTER, broker, connect_packet, device_access, gateway_client, subscriber
from test_mqtt_client import running

from gateway import metrics
from gateway.mqtt.broker import EmbeddedBroker
from gateway.mqtt.link import Link
from gateway.mqtt.packets import packed_text
from gateway.store.access import Access
from gateway.store.failures import Failures
from gateway.store.tokens import Tokens

END = "flespi/message/gw/devices/1"
"""The last message of each test goes here: what has not come before it does not come."""


async def publish(link: Link, topics: Iterable[str], payload: bytes = b"1", *, retain: bool = False) -> None:
    """As the gateway, one after the other."""
    for topic in topics:
        acknowledged = asyncio.Event()
        link.publish(packed_text(topic), payload, acknowledged.set, retain=retain)
        await link.wait_for(acknowledged)


def topics_of(messages: list[Received]) -> list[str]:
    return [message.topic for message in messages]


def ended(messages: list[Received]) -> bool:
    return bool(messages) and messages[-1].payload == b"end"


async def token(tokens: Tokens, **values: Any) -> str:
    """The key of a new one."""
    return (await tokens.create(time.time(), **{"access": device_access(1), **values}))[1]


MIXED = [
    "flespi/message/gw/devices/2",
    "flespi/message/gw/devices/1",
    "flespi/message/gw/devices/11",
    "flespi/message/gw/channels/1/352093081452251",
    "flespi/state/gw/devices/1/telemetry/position.speed",
    "flespi/state/gw/devices/2/telemetry/position.speed",
    "flespi/state/gw/devices/1/name",
    "flespi/state/gw/channels/1/name",
    "flespi/log/gw/devices/1/updated",
    "flespi/log/platform/customer/token_created",
    "others/topic",
]
MINE = [MIXED[1], MIXED[4], MIXED[6]]


@pytest.mark.parametrize("topic_filter", ["flespi/#", "#", "+/+/gw/#"])
def test_a_wildcard_brings_only_what_the_token_may_read(run, redis, topic_filter: str):
    """While others get all of it."""

    async def scenario() -> None:
        tokens = Tokens(redis, MASTER)
        key = await token(tokens)
        async with broker(tokens=tokens) as server, running(gateway_client(server)) as gateway:
            limited = await subscriber(server, topic_filter, username=key).subscribed()
            everything = await subscriber(server).subscribed()
            await everything.until(len)  # that the gateway is connected
            assert limited.granted == everything.granted == [1]
            link = await gateway.next_link()
            await publish(link, MIXED)
            await publish(link, [END], b"end")
            assert topics_of(await limited.until(ended)) == [*MINE, END]
            assert topics_of(await everything.until(ended))[1:] == [*MIXED, END]
            await limited.close()
            await everything.close()

    run(scenario())


def test_what_is_retained_comes_only_to_those_who_may_read_it(run, redis):
    """When they subscribe."""

    async def scenario() -> None:
        tokens = Tokens(redis, MASTER)
        key = await token(tokens)
        async with broker(tokens=tokens) as server, running(gateway_client(server)) as gateway:
            link = await gateway.next_link()
            await publish(link, MIXED, retain=True)
            limited = await subscriber(server, username=key).subscribed()
            await limited.until(lambda messages: len(messages) == len(MINE))
            await publish(link, [END], b"end")
            messages = await limited.until(ended)
            assert topics_of(messages) == [*MINE, END]
            assert [message.is_retained for message in messages] == [True, True, True, False]
            everything = await subscriber(server).subscribed()
            messages = await everything.until(lambda messages: len(messages) == len(MIXED) + 1)
            assert set(MIXED) < set(topics_of(messages))
            await limited.close()
            await everything.close()

    run(scenario())


def test_many_retained_messages_come_in_a_window(run, redis):
    """More than a client may have unacknowledged at once, and each once."""

    async def scenario() -> None:
        names = [f"flespi/state/gw/devices/1/telemetry/p{n}" for n in range(2500)]
        async with broker() as server, running(gateway_client(server)) as gateway:
            link = await gateway.next_link()
            for name in names:
                await link.room()
                link.publish(packed_text(name), b"1", lambda: None, retain=True)
            await publish(link, ["flespi/message/last"])
            cut = metrics.value("mqtt_clients_cut")
            late = await subscriber(server, "flespi/state/gw/devices/#").subscribed()
            messages = await late.until(lambda messages: len(messages) >= len(names))
            assert sorted(topics_of(messages)) == sorted(names)
            assert metrics.value("mqtt_clients_cut") == cut
            await late.close()

    run(scenario())


@pytest.mark.parametrize(
    ("topic_filter", "granted"),
    [
        ("flespi/message/gw/devices/1", 1),
        ("flespi/message/gw/devices/+", 1),
        ("#", 1),
        ("flespi/message/gw/devices/2", 0x80),
        ("flespi/message/gw/channels/#", 0x80),
        ("others/#", 0x80),
    ],
)
def test_a_filter_with_nothing_in_it_for_the_token_is_refused(run, redis, topic_filter: str, granted: int):
    """Return code 0x80."""

    async def scenario() -> None:
        tokens = Tokens(redis)
        key = await token(tokens)
        async with broker(tokens=tokens) as server:
            client = await subscriber(server, topic_filter, username=key).subscribed()
            assert client.granted == [granted]
            await client.close()

    run(scenario())


async def is_cut(client: Subscriber, change: Any) -> str:
    """What the broker says when the client comes again after ``change``."""
    client.reason = ""
    await change
    return await client.answered()


@pytest.mark.parametrize("how", ["deleted", "disabled", "other addresses"])
def test_a_token_that_is_withdrawn_ends_its_connections_at_once(run, redis, monkeypatch, how: str):
    """Not only new connections are refused, and nobody waits for the next look at everybody."""
    monkeypatch.setattr("gateway.mqtt.broker.CHECK_INTERVAL", 3600)

    async def scenario() -> None:
        tokens = Tokens(redis, MASTER)
        key = await token(tokens)
        async with broker(tokens=tokens) as server:
            other = await subscriber(server).subscribed()
            client = await subscriber(server, username=key).subscribed()
            changes = {
                "deleted": tokens.delete,
                "disabled": lambda ids: tokens.update(*ids, enabled=False),
                "other addresses": lambda ids: tokens.update(*ids, ips=["192.0.2.1"]),
            }
            assert await is_cut(client, changes[how]([1])) == "Not authorized"
            assert other.client.is_connected()
            await client.close()
            await other.close()

    run(scenario())


def test_a_token_that_expires_ends_its_connections(run, redis, monkeypatch: pytest.MonkeyPatch):
    """Soon after; one with ``ttl`` goes on for as long as its client is connected."""
    monkeypatch.setattr("gateway.mqtt.broker.CHECK_INTERVAL", 0.05)

    async def scenario() -> None:
        tokens = Tokens(redis, MASTER)
        ends, stays = await token(tokens, expire=int(time.time()) + 1), await token(tokens, ttl=1)
        async with broker(tokens=tokens) as server:
            staying = await subscriber(server, username=stays).subscribed()
            client = await subscriber(server, username=ends).subscribed()
            client.reason = ""
            assert await client.answered() == "Not authorized"
            while time.time() < tokens.all[2].created + 2.5:
                await asyncio.sleep(0.05)
            assert staying.client.is_connected()
            await client.close()
            await staying.close()

    run(scenario())


def test_other_rights_hold_at_once(run, redis):
    """The client is cut, comes again, and gets what it may get now; another name changes nothing."""

    async def scenario() -> None:
        tokens = Tokens(redis, MASTER)
        key = await token(tokens)
        async with broker(tokens=tokens) as server, running(gateway_client(server)) as gateway:
            client = await subscriber(server, "flespi/message/#", username=key).subscribed()
            await tokens.update(1, info="another name")
            link = await gateway.next_link()
            await publish(link, MIXED)
            await client.until(len)
            client._is_subscribed.clear()
            assert await is_cut(client, tokens.update(1, access=device_access(2))) == "Success"
            await client.subscribed()
            await publish(link, MIXED)
            await publish(link, ["flespi/message/gw/devices/2"], b"end")
            assert topics_of(await client.until(ended)) == [MIXED[1], MIXED[0], MIXED[0]]
            await client.close()

    run(scenario())


def session_packet(client_id: str, key: str, topic: str = "", **options: Any) -> bytes:
    """A CONNECT for a persistent session, with another key than the master's."""
    data = connect_packet(client_id, topic=topic, **options).replace(b"\x04\x82", b"\x04\x80", 1)
    assert len(key) == len(MASTER)
    return data.replace(MASTER.encode(), key.encode(), 1)


async def answer_to(server: EmbeddedBroker, packet: bytes, size: int = 4) -> bytes:
    """So many bytes of the answer; the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
    writer.write(packet)
    answer = await asyncio.wait_for(reader.readexactly(size), 10)
    writer.close()
    return answer


async def absent(server: EmbeddedBroker, client_id: str) -> None:
    """Wait until its connection is gone."""
    while client_id in server._visitors:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("ids_afterwards", [(1,), (2,)])
def test_an_absent_client_is_kept_only_what_it_may_read(run, redis, ids_afterwards: tuple[int, ...]):
    """When it came, and when it is delivered."""

    async def scenario() -> None:
        tokens = Tokens(redis, MASTER)
        key = await token(tokens)
        async with broker(tokens=tokens) as server, running(gateway_client(server)) as gateway:
            packet = session_packet("sleeper", key, "flespi/message/#")
            assert (await answer_to(server, packet, 9))[:4] == b"\x20\x02\x00\x00"
            await absent(server, "sleeper")
            link = await gateway.next_link()
            await publish(link, MIXED)
            await publish(link, MIXED[:2], b"end")  # in order: what came before is kept by now
            await tokens.update(1, access=device_access(*ids_afterwards))
            client = subscriber(server, "flespi/message/#", username=key, client_id="sleeper", clean_session=False)
            await client.subscribed()
            await publish(link, ["flespi/message/gw/devices/1", "flespi/message/gw/devices/2"], b"now")
            messages = await client.until(lambda messages: any(message.payload == b"now" for message in messages))
            kept = [message.topic for message in messages if message.payload != b"now"]
            assert kept == ([MIXED[1], MIXED[1]] if ids_afterwards == (1,) else [])
            await client.close()

    run(scenario())


def test_a_session_goes_with_its_token(run, redis):
    """Nothing more is kept for it."""

    async def scenario() -> None:
        tokens = Tokens(redis, MASTER)
        key, other = await token(tokens), await token(tokens)
        async with broker(tokens=tokens) as server:
            assert server._broker is not None
            for client_id, its_key in (("first", key), ("second", other)):
                await answer_to(server, session_packet(client_id, its_key, "flespi/message/#"), 9)
                await absent(server, client_id)
            assert set(server._broker.sessions) == {"first", "second"}
            await tokens.delete([1])
            while "first" in server._broker.sessions:
                await asyncio.sleep(0.01)
            subscribed = server._broker.subscriptions["flespi/message/#"]
            assert [session.client_id for session, _qos in subscribed] == ["second"]

    run(scenario(), 10)


REFUSED, WELCOME = b"\x20\x02\x00\x05", b"\x20\x02\x00\x00"


def test_nobody_takes_what_is_kept_for_another_token(run, redis):
    """Neither a connection nor a session; the token itself may, and the master."""

    async def scenario() -> None:
        tokens = Tokens(redis, MASTER)
        key, thief = await token(tokens), await token(tokens)
        async with broker(tokens=tokens) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
            writer.write(session_packet("wanted", key, "flespi/#"))
            assert (await reader.readexactly(9))[:4] == WELCOME
            assert await answer_to(server, session_packet("wanted", thief)) == REFUSED
            writer.close()
            await absent(server, "wanted")
            assert await answer_to(server, session_packet("wanted", thief)) == REFUSED
            present = b"\x20\x02\x01\x00"
            assert await answer_to(server, session_packet("wanted", key)) == present
            assert await answer_to(server, session_packet("wanted", MASTER)) == present
            assert await answer_to(server, session_packet("own", thief)) == WELCOME

    run(scenario())


def will_packet(client_id: str, key: str, topic: str) -> bytes:
    """A CONNECT with a retained will."""
    head = packed_text("MQTT") + b"\x04\xa6\x00\x00"
    body = head + packed_text(client_id) + packed_text(topic) + packed_text("will") + packed_text(key)
    return b"\x10" + bytes([len(body) % 128 | 0x80, len(body) // 128]) + body


@pytest.mark.parametrize(
    ("topic", "arrives"), [("flespi/message/gw/devices/1", False), ("others/+", False), ("others/will", True)]
)
@pytest.mark.parametrize("who", ["master", "standard", "limited"])
def test_a_will_is_no_way_around(run, redis, topic: str, arrives: bool, who: str):
    """It is published as its author could publish it, or not at all."""

    async def scenario() -> None:
        tokens = Tokens(redis, MASTER)
        key = (
            MASTER
            if who == "master"
            else await token(tokens, access=Access() if who == "standard" else device_access(1))
        )
        async with broker(tokens=tokens) as server, running(gateway_client(server)) as gateway:
            link = await gateway.next_link()
            listener = await subscriber(server).subscribed()
            await listener.until(len)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
            writer.write(will_packet("dying", key, topic))
            assert await reader.readexactly(4) == WELCOME
            writer.transport.abort()
            await absent(server, "dying")
            await publish(link, [END], b"end")
            messages = await listener.until(ended)
            wills = [message.topic for message in messages if message.payload == b"will"]
            assert wills == ([topic] if arrives and who != "limited" else [])
            assert server._broker is not None
            assert (topic in server._broker.retained_messages) is bool(wills)
            await listener.close()

    run(scenario())


def test_a_limited_token_publishes_where_its_list_says(run, redis):
    """Elsewhere it is acknowledged and discarded."""
    entries = [{"uri": "mqtt", "topic": "fleet/+/orders", "actions": ["publish", "subscribe"]}]

    async def scenario() -> None:
        tokens = Tokens(redis, MASTER)
        key = await token(tokens, access=device_access(1, acl=entries))
        async with broker(tokens=tokens) as server:
            listener = await subscriber(server).subscribed()
            client = await subscriber(server, username=key).subscribed()
            for topic in ("fleet/orders", "others", END, "fleet/7/orders"):
                client.client.publish(topic, b"1", qos=1)
            assert topics_of(await client.until(len)) == ["fleet/7/orders"]
            assert topics_of(await listener.until(len)) == ["fleet/7/orders"]
            await client.close()
            await listener.close()

    run(scenario())


def test_who_guesses_keys_is_refused_for_a_while(run):
    """Also with a right one then; but not the gateway itself, which comes from the same machine."""

    async def scenario() -> None:
        failures = Failures()
        async with broker(failures=failures) as server:
            for n in range(20):
                assert await answer_to(server, session_packet("guess", f"{n:064}")) == REFUSED
            unavailable = b"\x20\x02\x00\x03"
            assert await answer_to(server, session_packet("guess", MASTER)) == unavailable
            assert failures.is_blocked("127.0.0.1", time.time())
            async with running(gateway_client(server)) as gateway:
                await gateway.next_link()

    run(scenario())


def test_without_a_key_nobody_guesses(run):
    """An anonymous client is refused, and blocks nobody."""

    async def scenario() -> None:
        failures = Failures()
        async with broker(failures=failures) as server:
            for _ in range(3):
                anonymous = subscriber(server, username=None)
                assert await anonymous.answered() == "Not authorized"
                await anonymous.close()
            assert len(failures) == 0

    run(scenario())


def test_subscriptions_of_a_client_are_bounded(run, monkeypatch: pytest.MonkeyPatch):
    """What it gives back it can take again, and nothing is left of it."""
    monkeypatch.setattr("gateway.mqtt.bounded_broker.FILTERS_MOST", 3)

    async def scenario() -> None:
        async with broker() as server:
            assert server._broker is not None
            client = await subscriber(server, "a/0").subscribed()

            async def subscribe(*filters: str) -> list[int]:
                client._is_subscribed.clear()
                client.client.subscribe([(topic_filter, 1) for topic_filter in filters])
                await client.subscribed()
                return client.granted

            assert await subscribe("a/1", "a/2", "a/3", "a/0") == [1, 1, 0x80, 1]
            client.client.unsubscribe(["a/1", "a/2"])
            assert await subscribe("a/4", "a/5", "a/6") == [1, 1, 0x80]
            assert set(server._broker.subscriptions) == {"a/0", "a/4", "a/5"}
            await client.close()
            while server._broker.sessions:
                await asyncio.sleep(0.01)
            assert server._broker.subscriptions == {}
            assert server._broker._filters == {}

    run(scenario())


def test_what_clients_retain_is_bounded(run, monkeypatch: pytest.MonkeyPatch):
    """The gateway's own is not concerned, nor is what replaces or removes."""
    monkeypatch.setattr("gateway.mqtt.bounded_broker.RETAINED_MOST", 2)

    async def scenario() -> None:
        async with broker() as server, running(gateway_client(server)) as gateway:
            assert server._broker is not None
            client = await subscriber(server, "end").subscribed()
            for topic, payload in (("a", b"1"), ("b", b"1"), ("c", b"1"), ("a", b""), ("b", b"2"), ("d", b"1")):
                client.client.publish(topic, payload, qos=1, retain=True)
            client.client.publish("end", b"end", qos=1)
            await client.until(len)
            await publish(await gateway.next_link(), MIXED, retain=True)
            retained = server._broker.retained_messages
            assert {topic for topic in retained if not topic.startswith("flespi/")} == {"b", "d"}
            assert {topic for topic in MIXED if topic.startswith("flespi/")} <= set(retained)
            assert retained["b"].data == b"2"
            await client.close()

    run(scenario())


def test_sessions_are_bounded(run, monkeypatch: pytest.MonkeyPatch):
    """A new persistent one is refused; one that exists may come back, and others may come without."""
    monkeypatch.setattr("gateway.mqtt.broker.MAX_SESSIONS", 2)

    async def scenario() -> None:
        async with broker() as server:
            for client_id in ("first", "second"):
                assert await answer_to(server, session_packet(client_id, MASTER)) == WELCOME
                await absent(server, client_id)
            assert await answer_to(server, session_packet("third", MASTER)) == b"\x20\x02\x00\x03"
            assert await answer_to(server, session_packet("first", MASTER)) == b"\x20\x02\x01\x00"
            client = await subscriber(server).subscribed()
            await client.close()

    run(scenario())
