"""The embedded broker: a token opens it, only the gateway publishes below its prefix, and nobody exhausts it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from amqtt.broker import Broker
from brokers import Subscriber
from test_mqtt_client import TOPICS, numbers, publish_all, running, statuses
from twisted.internet import reactor

from gateway import metrics
from gateway.errors import ConfigError, ListenError
from gateway.mqtt.bounded_broker import BoundedBroker
from gateway.mqtt.broker import EmbeddedBroker
from gateway.mqtt.client import BrokerAddress, MqttClient
from gateway.mqtt.listen import ListenAddress
from gateway.mqtt.packets import packed_text, variable_length
from gateway.mqtt.rights import TokenDoor
from gateway.store.access import Access
from gateway.store.tokens import Tokens

MASTER = "m" * 64
ANY_TCP = "tcp:0:interface=127.0.0.1"


def device_access(*ids: int, **others: Any) -> Access:
    """May read messages and telemetry of these devices."""
    parts = [{"name": name, "methods": ["GET"]} for name in ("messages", "telemetry")]
    devices = {"uri": "gw/devices", "methods": ["GET"], "ids": list(ids), "submodules": parts}
    return Access.from_json({"type": 2, "acl": [devices, *others.get("acl", [])]})


def door(tokens: Tokens | None = None) -> TokenDoor:
    """With no tokens but the master's, unless some are given."""
    return TokenDoor(tokens or Tokens(None, MASTER), TOPICS.prefix)


@asynccontextmanager
async def broker(listen_ws: str = "", tokens: Tokens | None = None, **options: Any) -> AsyncIterator[EmbeddedBroker]:
    server = EmbeddedBroker(ANY_TCP, listen_ws, door(tokens), TOPICS, **options)
    if tokens is not None:
        tokens.on_change.append(server.check)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def gateway_client(server: EmbeddedBroker, **options: Any) -> MqttClient:
    address = BrokerAddress("127.0.0.1", server.ports[0], username=MASTER, password=server.gateway_secret)
    return MqttClient(address, "gateway-1", TOPICS, reactor=reactor, version=4, backoff_first=0.05, **options)


def subscriber(server: EmbeddedBroker, topic: str = "#", **options: Any) -> Subscriber:
    return Subscriber(server.ports[0], topic, version=4, **({"username": MASTER} | options))


@pytest.mark.parametrize(
    "credentials",
    [
        {"username": MASTER},
        {"username": f"FlespiToken {MASTER}"},
        {"username": "anything", "password": MASTER},
    ],
    ids=["token", "FlespiToken", "password"],
)
def test_a_token_opens_the_broker(run, credentials: dict[str, str]):
    """As user name, bare or with ``FlespiToken``, or as password: flespi's ways."""

    async def scenario() -> None:
        async with broker() as server:
            client = subscriber(server, "flespi/message/gw/devices/1", **credentials)
            await client.subscribed()
            assert client.granted == [1]
            await client.close()

    run(scenario())


@pytest.mark.parametrize(
    "credentials",
    [{"username": None}, {"username": "wrong"}, {"username": f"FlespiToken {MASTER}x"}, {"username": ""}],
    ids=["anonymous", "wrong", "almost", "empty"],
)
def test_without_a_token_nobody_comes_in(run, credentials: dict[str, Any]):
    """Return code 5, and not a trace of it in the broker."""

    async def scenario() -> None:
        async with broker() as server:
            client = subscriber(server, **credentials)
            assert await client.answered() == "Not authorized"
            await client.close()
            assert server._broker is not None
            assert not server._broker.sessions

    run(scenario())


def test_mqtt_5_is_refused_as_the_standard_says(run):
    """The client learns that the version is the reason; it may try 3.1.1."""

    async def scenario() -> None:
        async with broker() as server:
            client = Subscriber(server.ports[0], version=5, username=MASTER)
            assert await client.answered() == "Unsupported protocol version"
            await client.close()

    run(scenario())


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_subscribers_get_what_the_gateway_publishes(run, transport: str):
    """QoS 1, in order, over TCP and WebSocket; the gateway's client has a token as every client."""

    async def scenario() -> None:
        async with broker(ANY_TCP) as server:
            port = server.ports[transport == "websockets"]
            client = Subscriber(port, version=4, transport=transport, username=MASTER)
            await client.subscribed()
            async with running(gateway_client(server)) as gateway:
                await publish_all(await gateway.next_link(), 1500)
                messages = await client.until(lambda messages: len(numbers(messages)) == 1500)
                assert numbers(messages) == list(range(1500))
                assert {message.qos for message in messages} == {1}
                assert statuses(messages) == [True]
            await client.until(lambda messages: statuses(messages) == [True, False])
            await client.close()

    run(scenario())


def test_retained_messages_come_to_late_subscribers(run):
    """And are removed by an empty one."""

    async def scenario() -> None:
        async with broker() as server, running(gateway_client(server)) as gateway:
            link = await gateway.next_link()
            acknowledged = asyncio.Event()
            link.publish(packed_text("flespi/state/x"), b"12.5", acknowledged.set, retain=True)
            await link.wait_for(acknowledged)
            client = await subscriber(server, "flespi/state/x").subscribed()
            (message,) = await client.until(len)
            assert (message.payload, message.is_retained) == (b"12.5", True)
            link.publish(packed_text("flespi/state/x"), b"", lambda: None, retain=True)
            await client.until(lambda messages: len(messages) == 2)
            late = await subscriber(server).subscribed()
            link.publish(packed_text("flespi/state/y"), b"1", lambda: None)
            messages = await late.until(lambda messages: any(m.topic == "flespi/state/y" for m in messages))
            assert "flespi/state/x" not in {message.topic for message in messages}
            await client.close()
            await late.close()

    run(scenario())


def test_nobody_gets_what_is_retained_for_others(run):
    """Somebody else's subscription to everything is none of a new client's business."""

    async def scenario() -> None:
        async with broker() as server:
            everything = await subscriber(server).subscribed()
            everything.client.publish("secret", b"1", qos=1, retain=True)
            await everything.until(len)
            other = await subscriber(server, "other").subscribed()
            everything.client.publish("other", b"2", qos=1)
            messages = await other.until(len)
            assert [message.topic for message in messages] == ["other"]
            await everything.close()
            await other.close()

    run(scenario())


OURS = ("__init__", "_hand_over", "end_session", "_is_subscribed", "_count_filters")


def test_amqtt_still_has_what_is_overridden():
    """The overrides do nothing in a version of amqtt that calls other methods."""
    for name, value in vars(BoundedBroker).items():
        if callable(value) and name not in OURS:
            assert hasattr(Broker, name), name


def test_others_publish_what_they_like_but_not_below_the_prefix(run):
    """Such a message is acknowledged and discarded, as flespi does; also when its author has the master token."""

    async def scenario() -> None:
        async with broker() as server:
            listener = await subscriber(server).subscribed()
            other = await subscriber(server, "other/#").subscribed()
            for topic in ("flespi/message/gw/devices/1", "flespi/state/forged", "own/topic"):
                other.client.publish(topic, b"1", qos=1, retain=True)
            messages = await listener.until(len)
            assert [message.topic for message in messages] == ["own/topic"]
            late = await subscriber(server).subscribed()
            assert [message.topic for message in await late.until(len)] == ["own/topic"]
            for client in (listener, other, late):
                await client.close()

    run(scenario())


def test_one_client_id_is_one_connection(run):
    """A second connection ends the first; but nobody takes the gateway's."""

    async def scenario() -> None:
        async with broker() as server, running(gateway_client(server)) as gateway:
            link = await gateway.next_link()
            thief = subscriber(server, client_id="gateway-1")
            assert await thief.answered() == "Not authorized"
            assert link.is_alive
            await thief.close()
            first = await subscriber(server, client_id="twin").subscribed()
            gone = asyncio.Event()
            loop = asyncio.get_running_loop()
            first.client.on_disconnect = lambda *_: loop.call_soon_threadsafe(gone.set)
            second = await subscriber(server, client_id="twin").subscribed()
            await gone.wait()
            await first.close()
            await second.close()

    run(scenario())


def connect_packet(client_id: str, keep_alive: int = 0, topic: str = "", qos: int = 1) -> bytes:
    """A CONNECT with the master token and, if there is a topic, a SUBSCRIBE."""
    body = b"".join(
        (packed_text("MQTT"), b"\x04\x82", keep_alive.to_bytes(2, "big"), packed_text(client_id), packed_text(MASTER))
    )
    packet = b"\x10" + variable_length(len(body)) + body
    if topic:
        subscription = b"\x00\x01" + packed_text(topic) + qos.to_bytes(1, "big")
        packet += b"\x82" + variable_length(len(subscription)) + subscription
    return packet


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the other side ends the connection soon."""
    try:
        async with asyncio.timeout(5):
            while await reader.read(65536):
                pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x30\x03\x00\x01a",
        b"\x10\xff\xff\xff\xff\xff",
        b"\x10\xff\xff\xff\x7f",
        b"\x10\x02\x00\x04",
        b"\x10\x0c\x00\x04MQTT\x04\xff\x00\x00\x00\x00",
        connect_packet("x")[:-1] + b"\xff",
    ],
    ids=["HTTP", "PUBLISH", "length", "too long", "short", "flags", "token"],
)
def test_noise_is_turned_away(run, data: bytes):
    """Whatever comes in place of a CONNECT, the connection ends and the broker goes on."""

    async def scenario() -> None:
        async with broker() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
            writer.write(data)
            writer.write_eof()
            assert await closed(reader)
            writer.close()
            client = await subscriber(server).subscribed()
            await client.close()

    run(scenario())


def test_a_connection_that_says_nothing_is_closed(run, monkeypatch: pytest.MonkeyPatch):
    """It has some seconds for its CONNECT."""
    monkeypatch.setattr("gateway.mqtt.broker.CONNECT_TIMEOUT", 0.1)

    async def scenario() -> None:
        async with broker() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
            assert await closed(reader)
            writer.close()

    run(scenario())


def test_a_client_that_falls_silent_is_closed(run, monkeypatch: pytest.MonkeyPatch):
    """After one and a half times the keep-alive interval that it announced itself."""
    monkeypatch.setattr("gateway.mqtt.broker.CHECK_INTERVAL", 0.1)

    async def scenario() -> None:
        async with broker() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
            writer.write(connect_packet("silent", keep_alive=1))
            assert await closed(reader)
            writer.close()

    run(scenario())


def test_a_packet_that_is_too_large_ends_the_connection(run):
    """Before its bytes are awaited."""

    async def scenario() -> None:
        async with broker() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
            writer.write(connect_packet("large") + b"\x30" + variable_length(100_000_000) + b"\x00\x01a")
            assert await closed(reader)
            writer.close()

    run(scenario())


@pytest.mark.parametrize("qos", [1, 0], ids=["never acknowledges", "never reads"])
def test_a_subscriber_that_takes_nothing_is_cut(run, monkeypatch: pytest.MonkeyPatch, qos: int):
    """It is waited for a little; then the others get on, and all they should get."""
    monkeypatch.setattr("gateway.mqtt.session_rules.PATIENCE", 0.2)

    async def scenario() -> None:
        async with broker() as server, running(gateway_client(server)) as gateway:
            before = metrics.value("mqtt_clients_cut")
            _, writer = await asyncio.open_connection("127.0.0.1", server.ports[0], limit=2 ** (1 + 24 * qos))
            writer.write(connect_packet("stuck", topic="numbers", qos=qos))
            good = await subscriber(server, "numbers").subscribed()
            await publish_all(await gateway.next_link(), 2000, size=10 if qos else 5000)
            messages = await good.until(lambda messages: len(messages) == 2000)
            assert numbers(messages) == list(range(2000))
            assert metrics.value("mqtt_clients_cut") == before + 1
            assert "stuck" not in server._visitors
            writer.close()
            await good.close()

    run(scenario())


def test_messages_for_those_who_are_away_are_bounded(run, monkeypatch: pytest.MonkeyPatch):
    """A persistent session gets what came while its client was away, up to a number."""
    monkeypatch.setattr("gateway.mqtt.bounded_broker.OFFLINE_MESSAGES", 50)

    async def scenario() -> None:
        async with broker() as server, running(gateway_client(server)) as gateway:
            before = metrics.value("mqtt_offline_messages_dropped")
            reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
            persistent = connect_packet("sleeper", topic="numbers").replace(b"\x04\x82", b"\x04\x80", 1)
            writer.write(persistent)
            await reader.readexactly(9)  # CONNACK and SUBACK
            writer.close()
            while "sleeper" in server._visitors:
                await asyncio.sleep(0.01)
            await publish_all(await gateway.next_link(), 80)
            while metrics.value("mqtt_offline_messages_dropped") < before + 30:
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.ports[0])
            writer.write(persistent)
            data = b""
            while data.count(b"numbers") < 50:
                data += await reader.read(65536)
            writer.close()

    run(scenario())


def test_the_port_is_named_when_it_is_taken(run):
    """One line tells the operator which key and which port."""

    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            listen = f"tcp:{port}:interface=127.0.0.1"
            with pytest.raises(ListenError, match=rf"mqtt\.listen: cannot listen on 127\.0\.0\.1:{port}: .*in use"):
                await EmbeddedBroker(listen, "", door(), TOPICS).start()
            with pytest.raises(ListenError, match=rf"mqtt\.listen_ws: cannot listen on 127\.0\.0\.1:{port}"):
                await EmbeddedBroker(ANY_TCP, listen, door(), TOPICS).start()

    run(scenario())


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("tcp:1883", "", 1883), ("tcp:1883:interface=127.0.0.1", "127.0.0.1", 1883), (r"tcp:0:interface=\:\:1", "::1", 0)],
)
def test_listen_addresses_are_endpoint_strings(text: str, host: str, port: int):
    """As Twisted writes them, colons escaped."""
    assert ListenAddress.parse(text, "mqtt.listen") == ListenAddress(host, port)


@pytest.mark.parametrize("text", ["1883", "ssl:8883", "tcp:", "tcp:x", "tcp:99999", "tcp:1883:backlog=5", "tcp"])
def test_other_endpoints_are_refused(text: str):
    """With the key, and what would be right."""
    with pytest.raises(ConfigError, match=r"mqtt\.listen_ws.*tcp:1883:interface=127\.0\.0\.1"):
        ListenAddress.parse(text, "mqtt.listen_ws")


def test_it_starts_again_after_a_stop(run):
    """On the same port, without what it held before."""

    async def scenario() -> None:
        async with broker() as server:
            port = server.ports[0]
            await (client := await subscriber(server).subscribed()).close()
        again = EmbeddedBroker(f"tcp:{port}:interface=127.0.0.1", "", door(), TOPICS)
        await again.start()
        await (client := await subscriber(again).subscribed()).close()
        assert client.granted == [1]
        await again.stop()

    run(scenario())
