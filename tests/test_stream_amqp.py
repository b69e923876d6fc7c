"""Streams to RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json

import aiormq
import pytest

from gateway.errors import ItemError, RemoteUnavailable
from gateway.store.event_codes import EventCode
from gateway.stream.target import StreamInfo
from gateway.streams.amqp import Amqp
from tests.brokers import Proxy
from tests.stream_conformance import Kit, StreamConformance
from tests.streaming import numbers, without_repetitions
from tests.targets.rabbit import RabbitServer

MESSAGE_MOST, FRAME_MOST = 20_000, 8192
_ordinals = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One for all tests of this module, which stop and start it: a start takes seconds."""
    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"))
    with (server.data / "rabbitmq.conf").open("a") as settings:
        settings.write(f"max_message_size = {MESSAGE_MOST}\nframe_max = {FRAME_MOST}\n")
    with server:
        yield server


class AmqpKit(Kit):
    """RabbitMQ behind a proxy, with an exchange and a queue of the kit's own, and a consumer."""

    protocol = "amqp"

    def __init__(self, server: RabbitServer) -> None:
        self.server = server
        self.proxy = Proxy(server.port)
        self.name = f"kit-{next(_ordinals)}"
        self.taken: list = []
        self.connection = self.channel = None

    async def start(self):
        if not self.server.is_running:
            await asyncio.to_thread(self.server.start)
        await self.proxy.start()
        await self._connect()

    async def _connect(self):
        """RabbitMQ may forget what was declared right before it was killed."""
        self.connection = await aiormq.connect(self.server.url)
        self.channel = await self.connection.channel()
        await self.channel.exchange_declare(self.name, exchange_type="topic", durable=True)
        await self.channel.queue_declare(self.name, durable=True)
        await self.take_again()
        await self._consume()

    async def _consume(self):
        async def take(message):
            self.taken.append(message)

        await self.channel.basic_consume(self.name, take, no_ack=True)

    async def close(self):
        if self.server.is_running:
            await self.connection.close()
        await self.proxy.stop()

    def configuration(self):
        return {"uri": f"amqp://127.0.0.1:{self.proxy.port}", "exchange": self.name, "timeout": 2.0}

    def refused_message(self):
        return {"text": "x" * MESSAGE_MOST}

    async def received(self):
        return [json.loads(message.body) for message in self.taken]

    async def go_down(self):
        if self.server.is_running:
            await self.connection.close()
            await asyncio.to_thread(self.server.kill)

    async def come_up(self):
        await asyncio.to_thread(self.server.start)
        await self._connect()

    async def hold(self):
        self.proxy.hold()

    async def release(self):
        self.proxy.release()

    async def refuse_all(self):
        await self.channel.queue_unbind(self.name, self.name, "#")

    async def take_again(self):
        await self.channel.queue_bind(self.name, self.name, "#")


class TestAmqp(StreamConformance):
    @pytest.fixture
    def kit(self, server):
        return AmqpKit(server)

    def test_connections_that_are_cut_again_and_again_lose_nothing(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream("amqp", {**kit.configuration(), "limit_messages": 20, "window": 5})
            for n in range(0, 400, 4):
                await carrier.receive(*({"n": n + m} for m in range(4)), ident="ab"[n % 8 // 4])
            for goal in range(50, 400, 50):
                await carrier.until(lambda goal=goal: len(kit.taken) >= goal, f"{goal} are there")
                kit.proxy.cut()
            messages = await self.arrived(kit, carrier, 400)
            for ident in "ab":
                order = without_repetitions(numbers(messages, ident))
                assert order == sorted(order)
            assert kit.proxy.accepted > 2
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 400, "all are counted")

        run(check(), 60)

    def test_a_message_has_its_key_and_properties_and_is_persistent(self, run, kit, carrier):
        async def check() -> None:
            key = "%stream.id%.%channel.id%.%device.id%.%device.name%.%ident%"
            stream = await carrier.stream("amqp", {**kit.configuration(), "routing_key": key, "message_expiry": 60})
            device = await carrier.device("a")
            await carrier.link(stream, "devices", device.id)
            await carrier.register({"n": 0, "device.name": "Van 1"}, device_id=device.id, ident="a")
            await self.arrived(kit, carrier, 1)
            (message,) = kit.taken
            assert message.delivery.routing_key == f"{stream.id}.1.{device.id}.Van 1.a"
            properties = message.header.properties
            assert properties.content_type == "application/json"
            assert properties.delivery_mode == 2
            assert properties.expiration == "60000"
            assert properties.app_id == "avl-gateway"
            assert properties.headers == {"ident": "a", "device.id": device.id}
            assert properties.timestamp.timestamp() == int(carrier.time)

        run(check())

    def test_messages_of_any_size_arrive_each_with_an_id(self, run, kit, carrier):
        """Those of two and three frames as well."""

        async def check() -> None:
            await carrier.stream("amqp", {**kit.configuration(), "limit_messages": 1000, "window": 70})
            texts = ["y" * (100 * n) for n in range(180)]
            for n in range(0, 180, 10):
                await carrier.receive(*({"n": m, "text": texts[m]} for m in range(n, n + 10)))
            messages = await self.arrived(kit, carrier, 180)
            assert [message["text"] for message in messages] == texts
            assert len({message.header.properties.message_id for message in kit.taken}) == 180

        run(check())

    @pytest.mark.parametrize("kind", ["classic", "quorum"])
    def test_exchange_and_queue_are_declared_and_bound(self, run, kit, carrier, kind):
        async def check() -> None:
            name = f"{kit.name}-{kind}"
            declared = {"exchange": name, "exchange_type": "topic", "queue": name, "queue_type": kind}
            stream = await carrier.stream("amqp", {**kit.configuration(), **declared, "binding_key": "message.#"})
            await carrier.receive({"n": 0}, {"n": 1})
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 2, "they are confirmed")
            first = await kit.channel.basic_get(name, no_ack=True)
            assert json.loads(first.body)["n"] == 0
            assert (await kit.channel.queue_declare(name, passive=True)).message_count == 1

        run(check())

    def test_without_an_exchange_the_routing_key_is_the_queue(self, run, kit, carrier):
        async def check() -> None:
            await carrier.stream("amqp", {**kit.configuration(), "exchange": "", "routing_key": kit.name})
            await carrier.receive({"n": 0})
            assert numbers(await self.arrived(kit, carrier, 1)) == [0]

        run(check())

    def test_what_no_queue_is_bound_for_is_told_and_waits(self, run, kit, carrier):
        async def check() -> None:
            await kit.refuse_all()
            await kit.channel.queue_bind(kit.name, kit.name, "a")
            stream = await carrier.stream("amqp", {**kit.configuration(), "routing_key": "%ident%"})
            await carrier.receive({"n": 0}, {"n": 1}, ident="a")
            await carrier.receive({"n": 2}, ident="b")
            await carrier.until(lambda: len(carrier.told(EventCode.STREAM_FAILED, stream)) > 3, "b fails and fails")
            entry = carrier.told(EventCode.STREAM_FAILED, stream)[-1]
            assert "312 NO_ROUTE" in entry["reason"]
            assert "for the routing key 'b'" in entry["reason"]
            assert numbers(await kit.received()) == [0, 1]
            await kit.take_again()
            assert numbers(await self.arrived(kit, carrier, 3)) == [0, 1, 2]

        run(check())

    def test_what_no_queue_is_bound_for_may_be_rejected(self, run, kit, carrier):
        async def check() -> None:
            await kit.refuse_all()
            await kit.channel.queue_bind(kit.name, kit.name, "a")
            configuration = {**kit.configuration(), "routing_key": "%ident%", "refused": "skip"}
            stream = await carrier.stream("amqp", configuration)
            for n in range(10):
                await carrier.receive({"n": n}, ident="ab"[n % 2])
            await carrier.until(lambda: carrier.state(stream).counters.rejected == 5, "five are rejected")
            assert numbers(await self.arrived(kit, carrier, 5)) == [0, 2, 4, 6, 8]
            assert not carrier.told(EventCode.STREAM_FAILED, stream)

        run(check())

    def test_a_full_queue_is_waited_for_in_order(self, run, kit, carrier):
        """It refuses with basic.nack what comes while it is full."""

        async def check() -> None:
            name = f"{kit.name}-full"
            arguments = {"x-max-length": 3, "x-overflow": "reject-publish"}
            await kit.channel.queue_declare(name, durable=True, arguments=arguments)
            configuration = {**kit.configuration(), "exchange": "", "routing_key": name, "window": 1}
            stream = await carrier.stream("amqp", configuration)
            for n in range(10):
                await carrier.receive({"n": n})
            await carrier.until(lambda: carrier.told(EventCode.STREAM_FAILED, stream), "it is told")
            assert "basic.nack" in carrier.told(EventCode.STREAM_FAILED, stream)[0]["reason"]
            got = []
            async with asyncio.timeout(20):
                while len(got) < 10:
                    message = await kit.channel.basic_get(name, no_ack=True)
                    if message.body:
                        got.append(json.loads(message.body)["n"])
            assert got == list(range(10))

        run(check(), 40)

    def test_the_order_of_an_ident_is_there_again_after_a_refusal_in_the_middle(self, run, kit, carrier):
        """With many under way later ones may be taken, and are sent again behind what was refused."""

        async def check() -> None:
            name = f"{kit.name}-full"
            arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
            await kit.channel.queue_declare(name, durable=True, arguments=arguments)

            async def take(message):
                got.append(json.loads(message.body)["n"])

            got: list[int] = []
            stream = await carrier.stream("amqp", {**kit.configuration(), "exchange": "", "routing_key": name})
            for n in range(20):
                await carrier.receive({"n": n})
            await carrier.until(lambda: carrier.told(EventCode.STREAM_FAILED, stream), "it is full")
            await kit.channel.basic_consume(name, take, no_ack=True)
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 20, "all are confirmed", 20)
            await carrier.until(lambda: len(without_repetitions(got)) == 20, "all are there")
            last_places = {n: place for place, n in enumerate(got)}
            assert sorted(last_places, key=last_places.__getitem__) == list(range(20))

        run(check(), 60)

    def test_an_exchange_that_is_not_there_is_told_and_waited_for(self, run, kit, carrier):
        async def check() -> None:
            name = f"{kit.name}-later"
            stream = await carrier.stream("amqp", {**kit.configuration(), "exchange": name})
            await carrier.receive({"n": 0})
            await carrier.until(lambda: carrier.told(EventCode.STREAM_FAILED, stream), "it is told")
            entry = carrier.told(EventCode.STREAM_FAILED, stream)[0]
            assert f"NOT_FOUND - no exchange '{name}'" in entry["reason"]
            assert entry["status"] == 404
            await kit.channel.exchange_declare(name, exchange_type="fanout", durable=True)
            await kit.channel.queue_bind(kit.name, name, "")
            assert numbers(await self.arrived(kit, carrier, 1)) == [0]

        run(check())

    def test_a_routing_key_that_is_too_long_is_rejected(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream("amqp", {**kit.configuration(), "routing_key": "%device.name%"})
            await carrier.receive({"n": 0, "device.name": "ž" * 128}, {"n": 1})
            assert numbers(await self.arrived(kit, carrier, 1)) == [1]
            await carrier.until(lambda: carrier.told(EventCode.STREAM_REJECTED, stream), "it is told")
            assert "more than 255 bytes" in carrier.told(EventCode.STREAM_REJECTED, stream)[0]["reason"]

        run(check())

    @pytest.mark.parametrize(
        ("changed", "said"),
        [({"password": "s3cret"}, "ACCESS_REFUSED"), ({"vhost": "/nowhere"}, "virtual host 'nowhere'")],
    )
    def test_who_is_not_let_in_is_told_why(self, run, kit, carrier, changed, said):
        async def check() -> None:
            configuration = {**kit.configuration(), **changed}
            configuration["uri"] += configuration.pop("vhost", "")
            stream = await carrier.stream("amqp", configuration)
            await carrier.until(lambda: carrier.state(stream).error, "it says why")
            assert said in carrier.state(stream).error
            assert "s3cret" not in str(carrier.events)

        run(check())

    def test_tls_is_checked_against_the_given_authority(self, run, kit, carrier):
        async def check() -> None:
            uri = kit.server.tls_url.partition("?")[0].replace("guest:guest@", "")
            trusting = {**kit.configuration(), "uri": uri, "ca_file": str(kit.server.authority)}
            await carrier.stream("amqp", trusting)
            distrustful = await carrier.stream("amqp", {**trusting, "ca_file": ""})
            lost = await carrier.stream("amqp", {**trusting, "ca_file": "/nowhere.pem"})
            await carrier.receive({"n": 0})
            assert numbers(await self.arrived(kit, carrier, 1)) == [0]
            await carrier.until(lambda: "CERTIFICATE_VERIFY_FAILED" in carrier.state(distrustful).error, "no trust")
            await carrier.until(lambda: "/nowhere.pem" in carrier.state(lost).error, "no file")

        run(check())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"uri": "http://host"}, "amqps://host:port"),
        ({"uri": "amqp://me:pw@host"}, "username and password are options"),
        ({"uri": "amqp://host/?heartbeat=1"}, "amqps://host:port/vhost"),
        ({"routing_key": "a.%imei%"}, "%imei%; what is replaced are %ident%"),
        ({"routing_key": "a\n"}, "printable"),
        ({"exchange_type": "topic"}, "needs an exchange"),
        ({"ca_file": "/ca.pem"}, "no effect without amqps"),
        ({"uri": "amqps://host", "key_file": "/key.pem"}, "needs a cert_file"),
    ],
)
def test_configurations_that_cannot_work_are_refused(changed, said):
    with pytest.raises(ItemError, match=said) as caught:
        Amqp.check(Amqp.Config(**{"uri": "amqp://host", **changed}))
    assert caught.value.field.startswith("configuration.")


def test_no_frame_of_any_length_is_waited_for(run):
    """Other software on the port says what is taken for the length of a frame."""

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"\x01\x00\x00\x7f\xff\xff\xf0" + bytes(1000))
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def check() -> None:
        async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            target = Amqp(Amqp.Config(uri=f"amqp://127.0.0.1:{port}"), StreamInfo(1, "stream"))
            async with asyncio.timeout(5):
                with pytest.raises(RemoteUnavailable, match="2147483633 bytes were announced, 4194304 is the most"):
                    await target.open()
                await target.close()

    run(check())
