"""Messages to Kafka: a record each, with the ident as its key."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from aiokafka import TopicPartition
from msgspec import Meta

from gateway.errors import ItemError, RemoteRefused, RemoteUnavailable
from gateway.stream.record_batches import LOST, NUMBER_LOST, TOO_LARGE, Numbers, Outcome, Record, RecordBatches
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo, Target, Timeout
from gateway.stream.template import SHOWN, Template, check_template
from gateway.stream.tls import CaFile, tls_context

KiB = 1024
TOPIC_MOST = 249
"""Characters of a topic's name."""
BATCH_BYTES = 512 * KiB
"""Of a record batch at most; brokers take 1 MiB if they are not told otherwise."""
YIELD_AFTER = 200
"""Messages that are prepared until trackers have their turn, some 2 ms."""
BROKERS_MOST = 32
CLOSE_TIME = 2.0
GRACE = 5.0
"""Seconds that aiokafka waits longer than we do: it would say less of it."""
ACKS_SHARE = 0.8
"""Of the timeout: what a broker may wait for its replicas, so that its answer comes in time."""
GZIP = 1
ELECTION_PAUSES = (0.1, 0.3, 1.0)
"""Seconds between tries while another broker becomes the leader of a partition."""
ELECTION = {3, 5, 6}
"""Unknown topic or partition, leader not available, not the leader."""

Broker = Annotated[
    str, Meta(max_length=270, pattern=r"^([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$", description="HOST:PORT")
]


class Kafka(Target):
    """Records in topics of a Kafka cluster: the key is the ident, the value the message as JSON.

    All records of an ident are in one partition, in order. A batch is delivered when the leaders of its partitions and
    all their replicas in sync have it (acks=all).
    """

    class Config(Options):
        """Which cluster, and which topic."""

        brokers: Annotated[
            list[Broker],
            Meta(min_length=1, max_length=BROKERS_MOST, description="HOST:PORT of some; they tell of the others"),
        ]
        topic: Annotated[
            str,
            Meta(
                min_length=1,
                max_length=TOPIC_MOST,
                description=f"{SHOWN} in it are replaced; characters that a topic cannot have become _",
            ),
        ]
        compression: Annotated[Literal["none", "gzip"], Meta(description="of what is sent and stored")] = "none"
        tls: Annotated[bool, Meta(description="whether the connections are encrypted")] = False
        ca_file: CaFile = ""
        sasl: Annotated[
            Literal["none", "plain", "scram-sha-256", "scram-sha-512"],
            Meta(description="how to log in; plain shows the password where there is no TLS"),
        ] = "none"
        username: Annotated[str, Meta(max_length=256, description="with sasl")] = ""
        password: Annotated[str, Meta(max_length=1024, description="with sasl")] = ""
        timeout: Annotated[Timeout, Meta(description="seconds that a batch may take")] = 30.0

    id = 3
    title = "Kafka"

    @classmethod
    def check(cls, config: Any) -> None:
        """Ports, the topic, and what belongs to the login."""
        for broker in config.brokers:
            if not 0 < int(broker.rpartition(":")[2]) < 65536:
                raise ItemError(f"should be like host:9092, not {broker}", "configuration.brokers")
        check_template(config.topic, "configuration.topic")
        example = Template(config.topic, StreamInfo(1, "")).of(PROBE)
        if _cleaned(example) != example:
            reason = f"should have letters, digits, dots, _ and - only, and {SHOWN}"
            raise ItemError(reason, "configuration.topic")
        if (config.sasl == "none") != (not config.username and not config.password):
            raise ItemError("should be given with sasl, and only then, as should password", "configuration.username")
        if config.ca_file and not config.tls:
            raise ItemError("is used with tls only", "configuration.ca_file")

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream)
        self._template = Template(config.topic, stream)
        self._numbers = Numbers()
        self._batches: RecordBatches | None = None

    # -- the connection

    async def open(self) -> None:
        config = self.config
        context = await tls_context(config.ca_file) if config.tls else None
        self._batches = RecordBatches(
            self._numbers,
            codec=GZIP if config.compression == "gzip" else 0,
            batch_most=BATCH_BYTES,
            acks_ms=int(config.timeout * ACKS_SHARE * 1000),
            bootstrap_servers=list(config.brokers),
            client_id="avl-gateway",
            request_timeout_ms=int((config.timeout + GRACE) * 1000),
            security_protocol=("SASL_" if config.sasl != "none" else "") + ("SSL" if config.tls else "PLAINTEXT"),
            ssl_context=context,
            sasl_mechanism=config.sasl.upper(),
            sasl_plain_username=config.username or None,
            sasl_plain_password=config.password or None,
        )
        async with self._in_time():
            await self._batches.open()

    async def close(self) -> None:
        batches, self._batches = self._batches, None
        if batches is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIME):
                    await batches.close()

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.config.timeout):
                yield
        except TimeoutError:
            raise RemoteUnavailable(f"Kafka did not answer within {self.config.timeout:g} s") from None

    # -- a batch

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        if self._batches is None:
            raise RemoteUnavailable("not connected")
        async with self._in_time():
            return await self._deliver(self._batches, batch)

    async def _deliver(self, batches: RecordBatches, batch: Sequence[Outgoing]) -> list[Rejection]:
        queues = await self._queues(batches, batch)
        if batches.is_number_lost(queues):
            await batches.become_known()
        rejections: list[Rejection] = []
        pauses = iter(ELECTION_PAUSES)
        while queues:
            failures = self._settle(batches, queues, await batches.send(queues), rejections)
            if failures:
                await self._wait_for_election(batches, failures, pauses)
        return rejections

    async def _queues(self, batches: RecordBatches, batch: Sequence[Outgoing]) -> dict[TopicPartition, list[Record]]:
        queues: dict[TopicPartition, list[Record]] = {}
        for index, outgoing in enumerate(batch):
            if index % YIELD_AFTER == YIELD_AFTER - 1:
                await asyncio.sleep(0)
            topic = self._template.of(outgoing)
            topic = topic if self._template.is_fixed else _cleaned(topic)
            key = outgoing.ident.encode()
            partition = await batches.partition(topic, key)
            queues.setdefault(partition, []).append(Record(key, outgoing.text, outgoing, index))
        return queues

    def _settle(
        self,
        batches: RecordBatches,
        queues: dict[TopicPartition, list[Record]],
        outcomes: Mapping[TopicPartition, Outcome],
        rejections: list[Rejection],
    ) -> dict[TopicPartition, Outcome]:
        """Take from the queues what is done with; what failed and is to be repeated."""
        failures = {}
        is_too_large = False
        for partition, outcome in outcomes.items():
            records = queues[partition]
            if outcome.error in TOO_LARGE and outcome.count == 1:
                reason = f"topic {partition.topic} does not take {outcome.size} bytes: {outcome.reason}"
                rejections.append(Rejection(records.pop(0).index, reason))
            elif outcome.error in TOO_LARGE:
                is_too_large = True
            elif outcome.error:
                failures[partition] = outcome
            else:
                for record in records[: outcome.count]:
                    record.payload.is_done = True
                del records[: outcome.count]
            if not records:
                del queues[partition]
        if is_too_large:
            batches.batch_most //= 2
        return failures

    async def _wait_for_election(
        self, batches: RecordBatches, failures: Mapping[TopicPartition, Outcome], pauses: Iterator[float]
    ) -> None:
        partition, outcome = next(iter(failures.items()))
        reason = f"partition {partition.partition} of topic {partition.topic}: {outcome.reason}"
        errors = {failure.error for failure in failures.values()}
        if errors & NUMBER_LOST:
            self._numbers.forget()
            raise RemoteUnavailable(reason)
        if LOST in errors:
            raise RemoteUnavailable(next(failure.reason for failure in failures.values() if failure.error == LOST))
        pause = next(pauses, None)
        if pause is None or errors - ELECTION:
            raise RemoteRefused(reason, status=outcome.error)
        await asyncio.sleep(pause)
        await batches.refresh()


PROBE = Outgoing(b'{"device.name":"name"}', "ident", 1, 1)
_FORBIDDEN = re.compile(r"[^A-Za-z0-9._-]")


def _cleaned(topic: str) -> str:
    cleaned = _FORBIDDEN.sub("_", topic)[:TOPIC_MOST]
    return "_" if cleaned in ("", ".", "..") else cleaned
