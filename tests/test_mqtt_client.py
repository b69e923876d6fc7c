"""The client against a real Mosquitto: connects, says so, keeps the window, comes back, and blocks nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from twisted.internet import reactor

from gateway.errors import BrokerUnavailable, ConfigError
from gateway.mqtt.client import BrokerAddress, MqttClient
from gateway.mqtt.link import Link
from gateway.mqtt.packets import packed_text
from gateway.mqtt.topics import Topics
from tests.brokers import Mosquitto, Proxy, Received, Subscriber, free_port

TOPICS = Topics()
STATUS = TOPICS.status("gateway-1")

versions = pytest.mark.parametrize("version", [4, 5], ids=["MQTT 3.1.1", "MQTT 5"])


def make_client(url: str, **options: Any) -> MqttClient:
    """A client that does not wait long between its attempts."""
    defaults = {"reactor": reactor, "backoff_first": 0.05}
    return MqttClient(BrokerAddress.from_url(url), "gateway-1", TOPICS, **(defaults | options))


@asynccontextmanager
async def running(client: MqttClient) -> AsyncIterator[MqttClient]:
    """The client at work; its connection is cut in the end, unless it was stopped before."""
    task = asyncio.ensure_future(client.run())
    try:
        yield client
    finally:
        task.cancel()
        await asyncio.wait([task])
        while client.is_connected:
            await asyncio.sleep(0.01)


def statuses(messages: list[Received]) -> list[bool]:
    """What the status topic said, in order."""
    return [json.loads(message.payload)["connected"] for message in messages if message.topic == STATUS]


async def publish_all(link: Link, count: int, size: int = 0) -> int:
    """Publish so many numbered messages of ``size`` bytes and wait for their PUBACKs; the most that were in flight."""
    done = asyncio.Event()
    left, most = count, 0

    def acknowledged() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    for n in range(count):
        if not link.has_room:
            await link.room()
        link.publish(packed_text("numbers"), (b"%d" % n).ljust(size), acknowledged, link.stamp(b"12.5"))
        most = max(most, link.in_flight)
    await link.wait_for(done)
    return most


def numbers(messages: list[Received]) -> list[int]:
    return [int(message.payload) for message in messages if message.topic == "numbers"]


@versions
def test_birth_and_goodbye_are_on_the_status_topic(run, mosquitto: Mosquitto, version: int):
    """Retained: connected with the time of it, and not connected after an orderly stop."""

    async def scenario() -> None:
        subscriber = await Subscriber(mosquitto.port).subscribed()
        client = make_client(mosquitto.url, version=version)
        async with running(client):
            await subscriber.until(lambda messages: statuses(messages) == [True])
            await client.stop()
            await subscriber.until(lambda messages: statuses(messages) == [True, False])
        late = await Subscriber(mosquitto.port).subscribed()
        (last,) = await late.until(len)
        assert last.is_retained
        assert json.loads(last.payload)["connected"] is False
        await late.close()
        await subscriber.close()

    run(scenario())


@versions
def test_the_will_tells_a_lost_connection(run, mosquitto: Mosquitto, version: int):
    """Nobody has to guess from silence: the broker says it, and the next connection says the contrary."""

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        subscriber = await Subscriber(mosquitto.port).subscribed()
        async with running(make_client(proxy.url, version=version)):
            await subscriber.until(lambda messages: statuses(messages) == [True])
            proxy.cut()
            await subscriber.until(lambda messages: statuses(messages) == [True, False, True])
        await subscriber.close()
        await proxy.stop()

    run(scenario())


@versions
def test_messages_arrive_in_order_with_their_properties(run, mosquitto: Mosquitto, version: int):
    """QoS 1; with MQTT 5 the user properties ``timestamp`` and ``cid``."""

    async def scenario() -> None:
        subscriber = await Subscriber(mosquitto.port, "numbers").subscribed()
        client = make_client(mosquitto.url, version=version)
        async with running(client):
            await publish_all(await client.next_link(), 3000)
            messages = await subscriber.until(lambda messages: len(messages) == 3000)
        assert numbers(messages) == list(range(3000))
        assert {message.qos for message in messages} == {1}
        expected = {"timestamp": "12.5", "cid": "1"} if version == 5 else {}
        assert messages[0].properties == messages[-1].properties == expected
        await subscriber.close()

    run(scenario())


def test_the_window_is_never_exceeded(run, mosquitto: Mosquitto):
    """No more messages are in flight than asked for, and every slot is used."""

    async def scenario() -> None:
        client = make_client(mosquitto.url, window=10)
        async with running(client):
            assert await publish_all(await client.next_link(), 1000) == 10

    run(scenario())


def test_the_brokers_receive_maximum_bounds_the_window(run, make_mosquitto: Callable[..., Mosquitto]):
    """MQTT 5: a client that exceeds it is disconnected."""

    async def scenario() -> None:
        server = make_mosquitto("allow_anonymous true", "max_inflight_messages 7")
        client = make_client(server.url)
        async with running(client):
            link = await client.next_link()
            assert link.window == 7
            assert await publish_all(link, 500) == 7
            assert link.is_alive

    run(scenario())


def test_waiters_have_their_turn(run, mosquitto: Mosquitto):
    """Several publishers share a link: none starves, and one that is cancelled holds up nobody."""

    async def scenario() -> None:
        client = make_client(mosquitto.url, window=5)
        async with running(client):
            link = await client.next_link()
            work = [asyncio.ensure_future(publish_all(link, 300)) for _ in range(4)]
            await asyncio.sleep(0)
            work.pop(0).cancel()
            await asyncio.gather(*work)

    run(scenario())


def test_a_message_too_large_for_the_broker_is_skipped(run, make_mosquitto: Callable[..., Mosquitto]):
    """MQTT 5's Maximum Packet Size: such a message would end each connection; those after it arrive."""

    async def scenario() -> None:
        server = make_mosquitto("allow_anonymous true", "max_packet_size 2000")
        subscriber = await Subscriber(server.port, "numbers").subscribed()
        client = make_client(server.url)
        async with running(client):
            link = await client.next_link()
            skipped = asyncio.Event()
            link.publish(packed_text("numbers"), b"1" * 3000, skipped.set)
            assert skipped.is_set()
            await publish_all(link, 1)
            assert numbers(await subscriber.until(len)) == [0]
        await subscriber.close()

    run(scenario())


def test_a_broker_that_is_down_is_tried_again(run, make_mosquitto: Callable[..., Mosquitto]):
    """Killed and started again: the client is back without help, and says between what is wrong."""

    async def scenario() -> None:
        server = make_mosquitto()
        client = make_client(server.url)
        async with running(client):
            first = await client.next_link()
            server.kill()
            with pytest.raises(BrokerUnavailable):
                await first.wait_for(asyncio.Event())
            assert not client.is_connected
            while not client.last_error.startswith("cannot connect"):
                await asyncio.sleep(0.01)
            server.start()
            second = await client.next_link(after=first)
            await publish_all(second, 10)

    run(scenario())


def test_waiting_for_room_ends_with_the_connection(run, mosquitto: Mosquitto):
    """What was in flight is forgotten, not acknowledged."""

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        client = make_client(proxy.url, window=10)
        async with running(client):
            link = await client.next_link()
            proxy.hold()
            work = asyncio.ensure_future(publish_all(link, 100))
            while link.in_flight < 10:
                await asyncio.sleep(0.01)
            proxy.cut()
            with pytest.raises(BrokerUnavailable):
                await work
            proxy.release()
            assert link.in_flight == 0
            assert await client.next_link(after=link) is not link
        await proxy.stop()

    run(scenario())


@versions
def test_a_refusal_is_told_without_the_password(run, make_mosquitto: Callable[..., Mosquitto], version: int):
    """The operator sees who was refused where, and why."""

    async def scenario() -> None:
        server = make_mosquitto("allow_anonymous false")
        client = make_client(f"mqtt://me:s3cret@127.0.0.1:{server.port}", version=version)
        async with running(client):
            while not client.last_error:
                await asyncio.sleep(0.01)
        assert client.last_error == "the broker refused the connection: Not authorized"
        assert str(client.address) == f"mqtt://127.0.0.1:{server.port}"
        assert "s3cret" not in repr(client.address)

    run(scenario())


def test_a_server_that_says_nothing_is_given_up(run, monkeypatch: pytest.MonkeyPatch):
    """It took the connection and sends no CONNACK."""
    monkeypatch.setattr("gateway.mqtt.client.CONNACK_TIMEOUT", 0.1)

    async def scenario() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        client = make_client(f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with running(client):
            while not client.last_error:
                await asyncio.sleep(0.01)
        assert client.last_error.startswith("the broker sent no CONNACK")
        server.close()

    run(scenario())


def test_a_broker_that_stops_acknowledging_is_left(run, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch):
    """It may answer pings: what counts is the oldest message."""
    monkeypatch.setattr("gateway.mqtt.link.ACK_TIMEOUT", 0.0)

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        client = make_client(proxy.url)
        async with running(client):
            link = await client.next_link()
            await publish_all(link, 1)
            proxy.hold()
            with pytest.raises(BrokerUnavailable):
                await publish_all(link, 1)
            assert "has not acknowledged" in await link.ended()
            proxy.release()
        await proxy.stop()

    run(scenario())


def test_silence_is_filled_with_pings_and_a_dead_network_is_noticed(run, mosquitto: Mosquitto, monkeypatch):
    """An idle connection stays; one on which nothing comes back is given up after two keep-alive intervals."""
    monkeypatch.setattr("gateway.mqtt.connection.KEEPALIVE", 1)

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        client = make_client(proxy.url)
        async with running(client):
            link = await client.next_link()
            await asyncio.sleep(2.5)  # Mosquitto cuts whoever is silent for one and a half intervals
            assert link.is_alive
            proxy.hold()
            assert await link.ended() == "the connection failed: Keep alive timeout"
            proxy.release()
        await proxy.stop()

    run(scenario())


def test_a_callback_that_raises_harms_nobody(run, mosquitto: Mosquitto):
    """It is logged; the messages after it are acknowledged all the same."""

    async def scenario() -> None:
        def fails() -> None:
            raise RuntimeError("a callback of this test")

        client = make_client(mosquitto.url)
        async with running(client):
            link = await client.next_link()
            link.publish(packed_text("numbers"), b"0", fails)
            await publish_all(link, 10)
            assert link.is_alive

    run(scenario())


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mqtt://broker", "mqtt://broker:1883"),
        ("mqtts://broker", "mqtts://broker:8883"),
        ("mqtt://me:pa%2Fss@broker:2000", "mqtt://broker:2000"),
        ("mqtt://TOKEN@broker", "mqtt://broker:1883"),
        ("mqtt://[::1]:2000", "mqtt://[::1]:2000"),
    ],
)
def test_an_address_is_told_without_secrets(url: str, told: str):
    """Neither password nor user name are for the log: a user name may be a token."""
    assert str(BrokerAddress.from_url(url)) == told


def test_user_and_password_are_decoded():
    """They are percent-encoded in a URL."""
    address = BrokerAddress.from_url("mqtt://a%40b:pa%2Fss@broker")
    assert (address.username, address.password) == ("a@b", "pa/ss")


@pytest.mark.parametrize("url", ["http://broker", "mqtt://", "broker:1883", "mqtt://broker:x", "mqtt://b/topic", ""])
def test_a_wrong_url_is_refused(url: str):
    """With the key and what would be right."""
    with pytest.raises(ConfigError, match=r"mqtt\.url.*mqtt://user:password@host:1883"):
        BrokerAddress.from_url(url)


def test_a_wrong_version_client_id_or_ca_file_is_refused(tmp_path):
    """Each at the start, not at the first connection."""
    with pytest.raises(ConfigError, match=r"mqtt\.version"):
        make_client("mqtt://broker", version=3)
    with pytest.raises(ConfigError, match=r"mqtt\.client_id"):
        MqttClient(BrokerAddress.from_url("mqtt://broker"), "a/b", TOPICS, reactor=reactor)
    no_certificates = tmp_path / "ca.pem"
    no_certificates.write_text("nothing")
    with pytest.raises(ConfigError, match=r"mqtt\.ca_file.*certificates in PEM"):
        make_tls_client(free_port(), str(no_certificates))


def make_tls_client(port: int, ca_file: str) -> MqttClient:
    address = BrokerAddress.from_url(f"mqtts://localhost:{port}", ca_file=ca_file)
    return MqttClient(address, "gateway-1", TOPICS, reactor=reactor, backoff_first=0.05)


def test_tls_is_checked_against_the_given_authority(run, make_mosquitto: Callable[..., Mosquitto], certificate):
    """With the certificate's issuer messages flow; without it there is no connection."""

    async def scenario() -> None:
        pem, key = certificate
        server = make_mosquitto("allow_anonymous true", f"certfile {pem}", f"keyfile {key}")
        client = make_tls_client(server.port, str(pem))
        async with running(client):
            await publish_all(await client.next_link(), 2000)
        distrustful = make_tls_client(server.port, "")
        async with running(distrustful):
            while not distrustful.last_error:
                await asyncio.sleep(0.01)
            assert "certificate" in distrustful.last_error

    run(scenario())


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory):
    """A certificate for ``localhost`` that signed itself, and its key."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory = tmp_path_factory.mktemp("tls")
    pem, key_pem = directory / "cert.pem", directory / "key.pem"
    pem.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    directory.chmod(0o755)
    key_pem.chmod(0o644)
    return pem, key_pem
