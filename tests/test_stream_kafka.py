"""Streams to Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import defaultdict
from itertools import count

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest

from gateway.errors import ConfigError, ItemError, RemoteRefused, RemoteUnavailable
from gateway.stream.target import Outgoing, StreamInfo
from gateway.streams.kafka import Kafka
from tests.integration.processes import freeze
from tests.stream_conformance import Kit, StreamConformance
from tests.streaming import numbers
from tests.targets.kafka import PASSWORD, USER, KafkaServer

_topics = count(1)
SIZE_MOST = 20_000
# Numbers of Kafka's protocol: https://kafka.apache.org/protocol (ACL operations, permissions, types of resources)
TOPIC, LITERAL = 2, 3
ANY, ALL, WRITE, DESCRIBE = 1, 2, 4, 8
DENY, ALLOW = 2, 3


class Cluster:
    """What an operator does with a server, and what a consumer reads from it."""

    def __init__(self, server: KafkaServer) -> None:
        self.server = server

    async def _ask(self, ask):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.server.address, request_timeout_ms=10_000)
        try:
            await admin.start()
            return await ask(admin)
        finally:
            await admin.close()

    async def new_topic(self, partitions: int = 3, **settings) -> str:
        """Make one, with a name that no test had; names of settings have _ for dots."""
        topic = f"test-{next(_topics)}"
        configs = {name.replace("_", "."): str(value) for name, value in settings.items()}
        new = NewTopic(topic, partitions, 1, topic_configs=configs)
        await self._ask(lambda admin: admin.create_topics([new]))
        return topic

    async def forbid(self, topic: str, operation: int = WRITE) -> None:
        """That anybody does this with the topic; all else is allowed."""

        async def ask(admin):
            for one, permission in ((ALL, ALLOW), (operation, DENY)):
                await self._sent(
                    admin, CreateAclsRequest(TOPIC, topic, LITERAL, "User:ANONYMOUS", "*", one, permission)
                )
            await self._until(admin, topic, 2)

        await self._ask(ask)

    async def allow(self, topic: str) -> None:
        """All, to anybody."""

        async def ask(admin):
            await self._sent(admin, DeleteAclsRequest(TOPIC, topic, LITERAL, None, None, ANY, ANY))
            await self._until(admin, topic, 0)

        await self._ask(ask)

    async def _until(self, admin, topic: str, count: int) -> None:
        """The broker has heard of it from the controller."""
        async with asyncio.timeout(10):
            while True:
                answer = await self._sent(admin, DescribeAclsRequest(TOPIC, topic, LITERAL, None, None, ANY, ANY))
                if sum(len(acls) for *_, acls in answer.resources) == count:
                    return

    async def _sent(self, admin, request):
        return await admin._client.send(admin._client.get_random_node(), request)

    async def records(self, topic: str, partitions: int = 3):
        """All of the topic, each partition in its order."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.server.address, request_timeout_ms=10_000, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            there = [TopicPartition(topic, number) for number in range(partitions)]
            consumer.assign(there)
            ends = await consumer.end_offsets(there)
            found = []
            for partition in there:
                while await consumer.position(partition) < ends[partition]:
                    found += (await consumer.getmany(partition, timeout_ms=1000)).get(partition, [])
            return found
        finally:
            await consumer.stop()


class KafkaKit(Kit):
    """A topic of its own in a server that the tests share; it is killed and started again."""

    protocol = "kafka"

    def __init__(self, server: KafkaServer) -> None:
        self.server = server
        self.cluster = Cluster(server)
        self.topic = ""
        self.is_held = False

    async def start(self):
        self.topic = await self.cluster.new_topic(max_message_bytes=SIZE_MOST)

    async def close(self):
        await self.release()
        await self.come_up()

    def configuration(self):
        return {"brokers": [self.server.address], "topic": self.topic, "timeout": 2.0}

    def refused_message(self):
        return {"text": "x" * SIZE_MOST}

    async def received(self):
        if not self.server.is_running or self.is_held:
            return []
        return [json.loads(record.value) for record in await self.cluster.records(self.topic)]

    async def go_down(self):
        await asyncio.to_thread(self.server.kill)

    async def come_up(self):
        if not self.server.is_running:
            await asyncio.to_thread(self.server.start)

    async def hold(self):
        freeze(self.server.pid)
        self.is_held = True

    async def release(self):
        if self.is_held:
            os.kill(self.server.pid, signal.SIGCONT)
            self.is_held = False

    async def refuse_all(self):
        await self.cluster.forbid(self.topic)

    async def take_again(self):
        await self.cluster.allow(self.topic)


class TestKafka(StreamConformance):
    @pytest.fixture
    def kit(self, kafka_server):
        return KafkaKit(kafka_server)


class Topic:
    """Deliveries to a topic, without a stream around them."""

    def __init__(self, server: KafkaServer, name: str) -> None:
        self.server, self.name = server, name
        self.cluster = Cluster(server)

    def target(self, **options) -> Kafka:
        config = Kafka.Config(**{"brokers": [self.server.address], "topic": self.name, "timeout": 5.0, **options})
        Kafka.check(config)
        return Kafka(config, StreamInfo(1, "records"))

    async def deliver(self, *messages, **options):
        """All as one batch, over a connection of its own; what was rejected."""
        target = self.target(**options)
        try:
            await target.open()
            return await target.deliver([outgoing(**message) for message in messages])
        finally:
            await target.close()

    async def numbers(self) -> list[int]:
        """What came, each partition in its order."""
        return numbers([json.loads(record.value) for record in await self.cluster.records(self.name)])


def outgoing(ident: str = "1", device_id: int = 0, **parameters) -> Outgoing:
    text = json.dumps({"ident": ident, "channel.id": 5, **parameters}).encode()
    return Outgoing(text, ident, device_id, 0 if device_id else 5)


@pytest.fixture
def topic(run, kafka_server) -> Topic:
    return Topic(kafka_server, run(Cluster(kafka_server).new_topic(max_message_bytes=SIZE_MOST)))


def test_the_records_of_an_ident_have_it_as_key_and_are_in_one_partition_in_order(run, topic):
    async def check() -> None:
        assert not await topic.deliver(*({"ident": f"tracker {n % 7}", "n": n} for n in range(100)))
        partitions = defaultdict(list)
        for record in await topic.cluster.records(topic.name):
            message = json.loads(record.value)
            assert record.key == message["ident"].encode()
            partitions[message["ident"]].append((record.partition, message["n"]))
        assert len(partitions) == 7
        for found in partitions.values():
            assert len({partition for partition, _ in found}) == 1
            assert [n for _, n in found] == sorted(n for _, n in found)
        assert len({found[0][0] for found in partitions.values()}) > 1

    run(check())


@pytest.mark.parametrize(
    ("key", "expected"), [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)]
)
def test_partitions_are_those_of_kafkas_own_clients(run, topic, key, expected):
    """The numbers are from Kafka's UtilsTest.testMurmur2."""

    async def check() -> None:
        assert not await topic.deliver({"ident": key.decode(), "n": 0})
        (record,) = await topic.cluster.records(topic.name)
        assert record.partition == (expected & 0x7FFFFFFF) % 3

    run(check())


def test_the_topic_has_what_its_masks_say(run, topic):
    async def check() -> None:
        template = topic.name + ".%ident%.%device.id%.%channel.id%"
        assert not await topic.deliver({"ident": "a/b", "n": 1}, {"ident": "c", "n": 2, "device_id": 7}, topic=template)
        for name, n in ((".a_b..5", 1), (".c.7.5", 2)):
            (record,) = await topic.cluster.records(topic.name + name)
            assert json.loads(record.value)["n"] == n

    run(check())


def test_an_ident_that_no_topic_can_be_called_is_in_another_one(run, topic):
    async def check() -> None:
        assert not await topic.deliver({"ident": "..", "n": 1}, topic="%ident%")
        (record,) = await topic.cluster.records("_")
        assert json.loads(record.value)["n"] == 1

    run(check())


def test_compressed_records_are_smaller_and_the_same(run, topic):
    async def check() -> None:
        messages = [{"n": n, "text": "abcdefgh" * 50} for n in range(200)]
        assert not await topic.deliver(*messages, compression="gzip")
        assert await topic.numbers() == list(range(200))
        logs = (topic.server.data / "log").glob(f"{topic.name}-?/*.log")
        assert sum(log.stat().st_size for log in logs) < 200 * 400 / 5

    run(check())


def test_what_is_too_large_is_rejected_and_batches_become_smaller(run, topic):
    """A batch has up to 512 KiB, the topic takes 20,000 bytes of it, and 400 of the messages have some 180,000."""

    async def check() -> None:
        messages = [{"n": n, "text": "x" * 400} for n in range(400)]
        for n in (0, 17, 399):
            messages[n]["text"] = "x" * SIZE_MOST
        rejections = await topic.deliver(*messages)
        assert sorted(rejection.index for rejection in rejections) == [0, 17, 399]
        for rejection in rejections:
            assert f"topic {topic.name} does not take 20" in rejection.reason
            assert (
                "MessageSizeTooLargeError (10): The server has a configurable maximum message size" in rejection.reason
            )
        assert await topic.numbers() == [n for n in range(400) if n not in (0, 17, 399)]

    run(check())


@pytest.mark.parametrize("operation", [WRITE, DESCRIBE])
def test_a_topic_that_is_forbidden_is_told_and_the_connection_kept(run, topic, operation):
    async def check() -> None:
        await topic.cluster.forbid(topic.name, operation)
        target = topic.target()
        await target.open()
        for _ in range(2):
            with pytest.raises(RemoteRefused, match=r"TopicAuthorizationFailedError \(29\)") as caught:
                await target.deliver([outgoing(n=0)])
            assert topic.name in str(caught.value)
            assert caught.value.status == 29
        await topic.cluster.allow(topic.name)
        assert not await target.deliver([outgoing(n=0)])
        await target.close()
        assert await topic.numbers() == [0]

    run(check())


def test_a_topic_that_nobody_makes_is_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.stream.record_batches.TOPIC_WAIT", 0.5)

    async def check() -> None:
        server = KafkaServer(tmp_path)
        with (server.data / "server.properties").open("a") as settings:
            settings.write("auto.create.topics.enable=false\n")
        with server, pytest.raises(RemoteRefused, match="there is no topic nowhere, and the brokers make none"):
            await Topic(server, "nowhere").deliver({"n": 0})

    run(check())


@pytest.mark.parametrize(("is_number_kept", "expected"), [(True, list(range(20))), (False, [*range(10), *range(20)])])
def test_a_batch_whose_outcome_got_lost_is_in_the_log_once(run, topic, is_number_kept, expected):
    """The broker knows its number; without it, it would be there twice. The next batch may have grown meanwhile."""

    async def check() -> None:
        target = topic.target(timeout=1.0)
        await target.open()
        first = [outgoing(n=n) for n in range(10)]
        assert not await target.deliver([outgoing(n=-1)])
        freeze(topic.server.pid)
        try:
            with pytest.raises(RemoteUnavailable, match="did not answer within 1 s"):
                await target.deliver(first)
            await target.close()
        finally:
            os.kill(topic.server.pid, signal.SIGCONT)
        async with asyncio.timeout(10):
            while len(await topic.numbers()) < 11:
                pass
        if not is_number_kept:
            target._numbers.forget()
        await target.open()
        assert not await target.deliver([*first, *(outgoing(n=n) for n in range(10, 20))])
        await target.close()
        assert await topic.numbers() == [-1, *expected]

    run(check())


def test_something_else_than_what_got_lost_is_sent_with_new_numbers(run, topic):
    """As after queue_ttl, which has given up what was under way."""

    async def check() -> None:
        target = topic.target(timeout=1.0)
        await target.open()
        freeze(topic.server.pid)
        try:
            with pytest.raises(RemoteUnavailable):
                await target.deliver([outgoing(n=0), outgoing(n=1)])
            await target.close()
        finally:
            os.kill(topic.server.pid, signal.SIGCONT)
        await target.open()
        assert not await target.deliver([outgoing(n=2)])
        assert not await target.deliver([outgoing(n=3)])
        await target.close()
        found = await topic.numbers()
        assert [n for n in found if n > 1] == [2, 3]

    run(check())


def test_numbers_that_the_broker_does_not_know_are_given_up(run, topic):
    async def check() -> None:
        target = topic.target()
        await target.open()
        assert not await target.deliver([outgoing(n=0)])
        (partition,) = target._numbers.next
        target._numbers.next[partition] += 5
        batch = [outgoing(n=1)]
        with pytest.raises(RemoteUnavailable, match=r"OutOfOrderSequenceNumber \(45\)"):
            await target.deliver(batch)
        await target.close()
        await target.open()
        assert not await target.deliver(batch)
        await target.close()
        assert await topic.numbers() == [0, 1]

    run(check())


# -- the connection


@pytest.mark.parametrize("sasl", ["plain", "scram-sha-256", "scram-sha-512"])
def test_the_password_is_sent_and_not_told(run, topic, sasl):
    async def check() -> None:
        login = {"brokers": [topic.server.password_address], "sasl": sasl, "username": USER}
        assert not await topic.deliver({"n": 0}, **login, password=PASSWORD)
        with pytest.raises(RemoteUnavailable, match="SaslAuthenticationFailed") as caught:
            await topic.deliver({"n": 1}, **login, password="5ecret")
        assert "5ecret" not in str(caught.value)
        with pytest.raises(RemoteUnavailable):
            await topic.deliver({"n": 1}, brokers=[topic.server.password_address], timeout=1.0)
        assert await topic.numbers() == [0]

    run(check())


def test_the_connection_is_encrypted_and_the_broker_known(run, topic, tmp_path):
    async def check() -> None:
        tls = {"brokers": [topic.server.tls_address], "tls": True}
        assert not await topic.deliver({"n": 0}, **tls, ca_file=str(topic.server.authority))
        with pytest.raises(RemoteUnavailable, match="certificate verify failed"):
            await topic.deliver({"n": 1}, **tls)
        with pytest.raises(ConfigError, match="should be a file of certificates"):
            await topic.deliver({"n": 1}, **tls, ca_file=str(tmp_path / "none.pem"))

    run(check())


def test_one_broker_of_the_list_is_enough(run, topic):
    async def check() -> None:
        assert not await topic.deliver({"n": 0}, brokers=["127.0.0.1:1", topic.server.address])
        with pytest.raises(RemoteUnavailable, match=r'Unable connect to "127.0.0.1:1": .*refused|failed'):
            await topic.deliver({"n": 0}, brokers=["127.0.0.1:1"])

    run(check())


def test_nothing_is_left_of_a_target_that_is_closed(run, topic):
    """After what it was cancelled in, what it failed in, and nothing at all."""

    async def check() -> None:
        before = asyncio.all_tasks()
        target = topic.target(brokers=["127.0.0.1:1"])
        await target.close()
        with pytest.raises(RemoteUnavailable):
            await target.open()
        await target.close()
        target = topic.target()
        await target.open()
        freeze(topic.server.pid)
        try:
            delivering = asyncio.ensure_future(target.deliver([outgoing(n=n, text="x" * 300_000) for n in range(50)]))
            await asyncio.wait([delivering], timeout=0.3)
            delivering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await delivering
            async with asyncio.timeout(1):
                await target.close()
                await target.close()
            opening = asyncio.ensure_future(target.open())
            await asyncio.wait([opening], timeout=0.3)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await target.close()
        finally:
            os.kill(topic.server.pid, signal.SIGCONT)
        with pytest.raises(RemoteUnavailable, match="not connected"):
            await target.deliver([outgoing(n=0)])
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    run(check())


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("brokers", {"brokers": ["host:99999"]}),
        ("topic", {"topic": "a/b"}),
        ("topic", {"topic": "a.%imei%"}),
        ("topic", {"topic": ".."}),
        ("username", {"sasl": "plain"}),
        ("username", {"username": "a", "password": "b"}),
        ("ca_file", {"ca_file": "/etc/ca.pem"}),
    ],
)
def test_configurations_that_cannot_be_are_refused(field, options):
    with pytest.raises(ItemError) as caught:
        Kafka.check(Kafka.Config(**{"brokers": ["host:9092"], "topic": "messages", **options}))
    assert caught.value.field == f"configuration.{field}"


@pytest.mark.parametrize(
    "broker", ["host", "host:", ":9092", "http://host:9092", "a b:9092", "[::1:9092", "host:9092,other:9092"]
)
def test_brokers_are_hosts_with_ports(broker):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"brokers": [broker], "topic": "messages"}, Kafka.Config)
