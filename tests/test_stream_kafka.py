"""Streams to Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from itertools import count

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest

from tests.stream_conformance import Kit, StreamConformance
from tests.targets.kafka import KafkaServer

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
        consumer = AIOKafkaConsumer(bootstrap_servers=self.server.address, request_timeout_ms=10_000)
        await consumer.start()
        try:
            there = [TopicPartition(topic, number) for number in range(partitions)]
            consumer.assign(there)
            ends = await consumer.end_offsets(there)
            await consumer.seek_to_beginning(*there)
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
        os.kill(self.server.pid, signal.SIGSTOP)
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
