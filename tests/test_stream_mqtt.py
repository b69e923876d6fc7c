"""Streams to another MQTT broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.errors import ItemError
from gateway.mqtt.flight import name_of, words_of
from gateway.store.event_codes import EventCode
from gateway.streams.mqtt import Mqtt
from tests.authority import Authority
from tests.brokers import Mosquitto, Proxy, Received, Subscriber
from tests.stream_conformance import Kit, StreamConformance
from tests.streaming import numbers, without_repetitions

MAY_WRITE, MAY_READ = "topic readwrite #\n", "topic read #\n"
MESSAGE_MOST = 20_000


class MqttKit(Kit):
    """Mosquitto behind a proxy; a subscriber that is there before the stream can be."""

    protocol = "mqtt"

    def __init__(self, program: str, directory) -> None:
        self.acl = directory / "acl"
        self.acl.write_text(MAY_WRITE)
        self.broker = Mosquitto(
            program, directory, "allow_anonymous true", f"acl_file {self.acl}", f"message_size_limit {MESSAGE_MOST}"
        )
        self.proxy = Proxy(self.broker.port)
        self.taken: list[Received] = []
        self.subscriber: Subscriber | None = None

    async def start(self):
        self.broker.start()
        await self.proxy.start()
        await self._subscribe()

    async def _subscribe(self):
        self.subscriber = await Subscriber(self.broker.port, "message/#").subscribed()

    async def close(self):
        await self.go_down()
        await self.proxy.stop()

    def configuration(self):
        return {"uri": self.proxy.url, "timeout": 1.0}

    def refused_message(self):
        return {"text": "x" * MESSAGE_MOST}

    def messages(self):
        """As they came."""
        return [*self.taken, *(self.subscriber.messages if self.subscriber is not None else ())]

    async def received(self):
        return [json.loads(message.payload) for message in self.messages()]

    async def go_down(self):
        self.proxy.is_open = False
        self.proxy.cut()
        if self.subscriber is not None:
            subscriber, self.subscriber = self.subscriber, None
            await subscriber.close()
            self.taken += subscriber.messages
        self.broker.kill()

    async def come_up(self):
        self.broker.start()
        await self._subscribe()
        self.proxy.is_open = True

    async def hold(self):
        self.proxy.hold()

    async def release(self):
        self.proxy.release()

    async def refuse_all(self):
        await self.allow(MAY_READ, is_refused=True)

    async def take_again(self):
        await self.allow(MAY_WRITE, is_refused=False)

    async def allow(self, rules: str, is_refused: bool):
        """Other rights from now on; Mosquitto does not say when it has read them."""
        self.acl.write_text(rules)
        os.kill(self.broker.pid, signal.SIGHUP)
        async with asyncio.timeout(10):
            while await self._is_refused() is not is_refused:
                await asyncio.sleep(0.02)

    async def _is_refused(self) -> bool:
        """By a client of its own, for Mosquitto ends the connection after a refusal."""
        probe = await Subscriber(self.broker.port, "probe").subscribed()
        loop = asyncio.get_running_loop()
        answered = loop.create_future()

        def on_publish(client, userdata, mid, reason, properties):
            loop.call_soon_threadsafe(answered.set_result, reason.is_failure)

        probe.client.on_publish = on_publish
        probe.client.publish("probe", b"", qos=1)
        try:
            return await asyncio.wait_for(answered, 5)
        finally:
            await probe.close()


class TestMqtt(StreamConformance):
    @pytest.fixture
    def kit(self, mosquitto_program, tmp_path):
        return MqttKit(mosquitto_program, tmp_path)

    def test_connections_that_are_cut_again_and_again_lose_nothing(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream("mqtt", {**kit.configuration(), "limit_messages": 20, "window": 5})
            for n in range(0, 400, 4):
                await carrier.receive(*({"n": n + m} for m in range(4)), ident="ab"[n % 8 // 4])
            for goal in range(50, 400, 50):
                await carrier.until(lambda goal=goal: len(kit.messages()) >= goal, f"{goal} are there")
                kit.proxy.cut()
            messages = await self.arrived(kit, carrier, 400)
            for ident in "ab":
                order = without_repetitions(numbers(messages, ident))
                assert order == sorted(order)
            assert kit.proxy.accepted > 2
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 400, "all are counted")

        run(check(), 60)

    def test_each_message_goes_to_its_topic_with_qos_1_and_properties(self, run, kit, carrier):
        async def check() -> None:
            topic = "message/%stream.id%/of %channel.id%/%device.id%-%device.name%/%ident%"
            stream = await carrier.stream("mqtt", {**kit.configuration(), "topic": topic})
            device = await carrier.device("a")
            await carrier.link(stream, "devices", device.id)
            await carrier.register({"n": 0, "device.name": "Van 1"}, device_id=device.id, ident="a")
            await carrier.receive({"n": 1}, ident="b")
            await self.arrived(kit, carrier, 2)
            first, second = sorted(kit.messages(), key=lambda message: json.loads(message.payload)["n"])
            assert first.topic == f"message/{stream.id}/of 1/{device.id}-Van 1/a"
            assert second.topic == f"message/{stream.id}/of 1/0--/b"
            assert (second.qos, second.is_retained) == (1, False)
            timestamp = json.loads(second.payload)["timestamp"]
            assert second.properties == {"cid": "1", "timestamp": str(timestamp)}

        run(check())

    @pytest.mark.parametrize("version", [4, 5], ids=["MQTT 3.1.1", "MQTT 5"])
    def test_retained_messages_are_there_for_who_comes_later(self, run, kit, carrier, version):
        async def check() -> None:
            await carrier.stream("mqtt", {**kit.configuration(), "retain": True, "version": version})
            await carrier.receive({"n": 0}, {"n": 1})
            await self.arrived(kit, carrier, 2)
            late = await Subscriber(kit.broker.port, "message/#").subscribed()
            (message,) = await late.until(lambda messages: messages)
            assert (json.loads(message.payload)["n"], message.is_retained) == (1, True)
            await late.close()

        run(check())

    def test_what_has_expired_is_not_handed_on(self, run, kit, carrier):
        """The broker counts down what the stream gave each message."""

        async def check() -> None:
            await carrier.stream("mqtt", {**kit.configuration(), "retain": True, "message_expiry": 1000})
            await carrier.receive({"n": 0})
            await self.arrived(kit, carrier, 1)
            late = Subscriber(kit.broker.port, "message/#")
            expiries = []
            late.client.on_message = lambda client, userdata, message: (
                expiries.append(message.properties.MessageExpiryInterval), late._on_message(client, userdata, message)
            )  # fmt: skip
            await late.until(lambda messages: messages)
            assert 900 < expiries[0] <= 1000
            await late.close()

        run(check())

    def test_an_ident_that_cannot_be_in_a_topic_is_rejected(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream("mqtt", {**kit.configuration(), "topic": "message/%device.name%"})
            await carrier.receive({"n": 0, "device.name": "a/#"}, {"n": 1, "device.name": "b"})
            assert numbers(await self.arrived(kit, carrier, 1)) == [1]
            await carrier.until(lambda: carrier.told(EventCode.STREAM_REJECTED, stream), "it is told")
            (entry,) = carrier.told(EventCode.STREAM_REJECTED, stream)
            assert "device.name 'a/#' cannot be in a topic" in entry["reason"]

        run(check())

    def test_the_topics_of_one_ident_may_be_forbidden_and_hold_up_no_others(self, run, kit, carrier):
        async def check() -> None:
            await kit.allow("topic read #\ntopic write message/gw/streams/1/a\n", is_refused=True)
            stream = await carrier.stream("mqtt", {**kit.configuration(), "refused": "skip"})
            for n in range(10):
                await carrier.receive({"n": n}, ident="ab"[n % 2])
            await carrier.until(lambda: carrier.state(stream).counters.rejected == 5, "five are rejected")
            assert numbers(await self.arrived(kit, carrier, 5)) == [0, 2, 4, 6, 8]
            entry = carrier.told(EventCode.STREAM_REJECTED, stream)[0]
            assert "Not authorized (0x87)" in entry["reason"]
            assert not carrier.told(EventCode.STREAM_FAILED, stream)

        run(check())

    def test_what_was_acknowledged_before_a_refusal_is_not_sent_again(self, run, kit, carrier):
        async def check() -> None:
            await kit.allow("topic read #\ntopic write message/gw/streams/1/a\n", is_refused=True)
            stream = await carrier.stream("mqtt", {**kit.configuration(), "window": 1})
            await carrier.receive({"n": 0}, {"n": 1}, ident="a")
            await carrier.receive({"n": 2}, ident="b")
            await carrier.until(lambda: len(carrier.told(EventCode.STREAM_FAILED, stream)) > 3, "b fails and fails")
            entry = carrier.told(EventCode.STREAM_FAILED, stream)[-1]
            assert "on 'message/gw/streams/1/b': Not authorized (0x87)" in entry["reason"]
            assert entry["status"] == 0x87
            await kit.take_again()
            assert numbers(await self.arrived(kit, carrier, 3)) == [0, 1, 2]

        run(check())

    def test_a_large_batch_keeps_to_the_window_of_the_broker(self, run, kit, carrier):
        """Mosquitto takes 20 messages at once, and would end a connection that sends more."""

        async def check() -> None:
            await carrier.stream("mqtt", {**kit.configuration(), "limit_messages": 1000})
            await carrier.receive(*({"n": n} for n in range(500)))
            await carrier.receive(*({"n": n} for n in range(500, 1000)))
            assert numbers(await self.arrived(kit, carrier, 1000)) == list(range(1000))
            assert kit.proxy.accepted == 1

        run(check())

    def test_who_may_not_connect_is_told_why(self, run, kit, carrier, make_mosquitto, tmp_path):
        async def check() -> None:
            passwords = tmp_path / "passwords"
            passwords.write_text("")
            closed = make_mosquitto("allow_anonymous false", f"password_file {passwords}")
            configuration = {"uri": closed.url, "username": "me", "password": "s3cret"}
            stream = await carrier.stream("mqtt", configuration)
            await carrier.until(lambda: carrier.state(stream).error, "it says why")
            error = carrier.state(stream).error
            assert "refused the connection: Not authorized" in error
            assert "s3cret" not in error

        run(check())

    def test_tls_with_an_authority_and_a_certificate_of_ones_own(self, run, kit, carrier, make_mosquitto, tmp_path):
        async def check() -> None:
            authority = Authority("brokers")
            (tmp_path / "ca.pem").write_bytes(authority.pem)
            authority.sign("broker").write(tmp_path / "server.pem", tmp_path / "server.key")
            authority.sign("gateway", usage=ExtendedKeyUsageOID.CLIENT_AUTH).write(
                tmp_path / "own.pem", tmp_path / "own.key"
            )
            server = make_mosquitto(
                "allow_anonymous true", "require_certificate true", f"cafile {tmp_path}/ca.pem",
                f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key",
            )  # fmt: skip
            trusting = {"uri": f"mqtts://127.0.0.1:{server.port}", "ca_file": f"{tmp_path}/ca.pem"}
            nameless = await carrier.stream("mqtt", trusting)
            await carrier.until(lambda: carrier.state(nameless).error, "without a certificate it is not let in")
            own = {"cert_file": f"{tmp_path}/own.pem", "key_file": f"{tmp_path}/own.key"}
            stream = await carrier.stream("mqtt", {**trusting, **own})
            distrustful = await carrier.stream("mqtt", {"uri": trusting["uri"], **own})
            keyless = await carrier.stream("mqtt", {**trusting, "cert_file": own["cert_file"]})
            await carrier.receive({"n": 0})
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "it arrives")
            await carrier.until(lambda: "certificate verify failed" in carrier.state(distrustful).error, "no trust")
            await carrier.until(lambda: "key_file" in carrier.state(keyless).error, "no key")

        run(check())


def test_a_broker_that_says_why_is_quoted():
    properties = Properties(PacketTypes.PUBACK)
    properties.ReasonString = "tenant 7 is\nover its quota"
    body = struct.pack("!HB", 5, 0x97) + properties.pack()
    assert words_of(bytes([0x40, len(body)]) + body) == "tenant 7 is\ufffdover its quota"
    assert words_of(b"\x40\x03\x00\x05\x97") == ""
    assert words_of(b"\x40\x05\x00\x05\x97\x01\xff") == ""
    assert name_of(0x97) == "Quota exceeded"
    assert name_of(0xEE) == "unknown reason code"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"uri": "http://host"}, "mqtts://host:port"),
        ({"uri": "mqtt://me:pw@host"}, "username and password are options"),
        ({"uri": "mqtt://host/path"}, "mqtts://host:port"),
        ({"topic": "a/#"}, "levels of a topic"),
        ({"topic": "a//b"}, "levels of a topic"),
        ({"topic": "a/%imei%"}, "%imei%; what is replaced are %ident%"),
        ({"topic": "%ident%" * 11}, "at most 10"),
        ({"ca_file": "/ca.pem"}, "no effect without mqtts"),
        ({"uri": "mqtts://host", "key_file": "/key.pem"}, "needs a cert_file"),
        ({"version": 4, "message_expiry": 5}, "MQTT 5"),
        ({"version": 4, "password": "x"}, "needs a username"),
        ({"client_id": "a\n"}, "printable"),
    ],
)
def test_configurations_that_cannot_work_are_refused(changed, said):
    with pytest.raises(ItemError, match=said) as caught:
        Mqtt.check(Mqtt.Config(**{"uri": "mqtt://host", **changed}))
    assert caught.value.field.startswith("configuration.")
