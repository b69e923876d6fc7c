"""Record batches to Kafka: one for each partition at a time, each with its number, and what the broker says of each.

aiokafka has a producer, but it repeats by itself for as long as it lives, tells the reason only to a log, and gives a
later batch of a partition a chance after an earlier one was refused. So this takes aiokafka's client, which knows the
cluster and its connections, and sends the requests by itself: a batch has an outcome, or the connection is gone.

The batches of a partition are numbered (KIP-98): one whose outcome got lost is sent again as it was, with its number,
also over a new connection, and the broker takes it once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import BrokerResponseError, DuplicateSequenceNumber, KafkaError, NoError, for_code
from aiokafka.partitioner import murmur2
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from attrs import define, field, frozen

from gateway.errors import RemoteRefused, RemoteUnavailable
from gateway.stream.bounded_kafka import AIOKafkaClient

ACKS_ALL = -1
MAGIC = 2
TOPIC_WAIT = 5.0
"""Seconds until a topic that a broker makes by itself must be there."""
TOPIC_POLL = 0.1
SAID_MOST = 300
POSITIVE = NO_BOUND = 0x7FFFFFFF

LOADING = {14, 15, 16}
"""The coordinator is loading, not available, another one: a broker has just started."""
LOADING_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
UNSURE = {7, 20}
"""Request timed out, and not enough replicas after append: it may be in the log."""
NUMBER_LOST = {45, 47, 49, 59}
"""Out of order, epoch, mapping, unknown producer: the broker knows other numbers than we do."""
TOO_LARGE = {10, 18}
LOST = -2
"""Of ours, beside Kafka's numbers: the connection broke before the answer."""


@frozen
class Record:
    """``payload`` is what the caller knows it by: the same object when it is sent again."""

    key: bytes
    value: bytes
    payload: Any
    index: int = 0


@define
class Outcome:
    """Of the first ``count`` of a partition's records, ``size`` bytes as they were sent.

    ``error`` 0: they are in the log; otherwise Kafka's number for what went wrong.
    """

    count: int
    size: int
    error: int = 0
    reason: str = ""


@define
class Numbers:
    """Who we are to the broker, and which number the next record of each partition has. It outlives connections."""

    producer_id: int = -1
    epoch: int = -1
    next: dict[TopicPartition, int] = field(factory=dict)
    unsure: dict[TopicPartition, list[Any]] = field(factory=dict)
    """The payloads of batches whose outcome is not known."""

    def forget(self) -> None:
        """Be another one, from the next opening."""
        self.producer_id = self.epoch = -1
        self.next.clear()
        self.unsure.clear()


@lru_cache(maxsize=100_000)
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & POSITIVE


class RecordBatches:
    """A connection to a cluster. Raises RemoteUnavailable and RemoteRefused; who calls it limits the time."""

    def __init__(self, numbers: Numbers, *, codec: int, batch_most: int, acks_ms: int, **options: Any) -> None:
        """``options`` are those of AIOKafkaClient. ``acks_ms``: how long a broker may wait for its replicas."""
        self._client = AIOKafkaClient(**options)
        self._numbers = numbers
        self._codec = codec
        self.batch_most = batch_most
        """Bytes of a batch, before it is compressed; a single record may have more."""
        self._acks_ms = acks_ms
        self._said: list[str] = []

    async def open(self) -> None:
        """Find the cluster, and become known to it."""
        _listening.set(self._said)
        with self._errors():
            await self._client.bootstrap()
        if self._numbers.producer_id < 0:
            await self.become_known()

    async def close(self) -> None:
        """At once, whatever is under way."""
        for connection in list(self._client._conns.values()):
            writer = connection._writer
            if writer is not None:  # what a broker does not read would hold up the end
                writer.transport.abort()
        with contextlib.suppress(Exception):
            await self._client.close()
        await asyncio.sleep(0)

    async def become_known(self) -> None:
        """Be a new producer, whose numbers begin at 0."""
        self._numbers.forget()
        for pause in (*LOADING_PAUSES, 0):
            with self._errors():
                answer = await self._client.send(self._client.get_random_node(), InitProducerIdRequest(None, 0))
            if answer.error_code not in LOADING or not pause:
                break
            await asyncio.sleep(pause)
        if answer.error_code:
            raise RemoteRefused(_words(answer.error_code), status=answer.error_code)
        self._numbers.producer_id, self._numbers.epoch = answer.producer_id, answer.producer_epoch

    # -- where to

    async def partition(self, topic: str, key: bytes) -> TopicPartition:
        """The one of a key, as Kafka's own clients choose it."""
        count = len(await self._partitions(topic))
        return TopicPartition(topic, _hash(key) % count)

    async def _partitions(self, topic: str) -> set[int]:
        cluster = self._client.cluster
        found: set[int] = cluster.partitions_for_topic(topic) or set()
        if found:
            return found
        deadline = asyncio.get_running_loop().time() + TOPIC_WAIT
        with self._errors():
            self._client.add_topic(topic)
            while True:
                await self._client.force_metadata_update()
                if found := cluster.partitions_for_topic(topic) or set():
                    return found
                if topic in cluster.unauthorized_topics:
                    raise RemoteRefused(f"topic {topic}: {_words(29)}", status=29)
                if asyncio.get_running_loop().time() > deadline:
                    raise RemoteRefused(f"there is no topic {topic}, and the brokers make none{self._because()}")
                await asyncio.sleep(TOPIC_POLL)

    async def refresh(self) -> None:
        """Ask again who leads which partition."""
        with self._errors():
            await self._client.force_metadata_update()

    # -- batches

    def is_number_lost(self, queues: Mapping[TopicPartition, Sequence[Record]]) -> bool:
        """Whether something else would be sent now than what may be in the log already, with the same numbers."""
        unsure = self._numbers.unsure
        return any(not _begins(queues[partition], unsure[partition]) for partition in queues.keys() & unsure.keys())

    async def send(self, queues: Mapping[TopicPartition, Sequence[Record]]) -> dict[TopicPartition, Outcome]:
        """Send what fits into one batch from the beginning of each partition's records; the outcome of each."""
        nodes: dict[int, dict[TopicPartition, tuple[int, bytes]]] = defaultdict(dict)
        outcomes: dict[TopicPartition, Outcome] = {}
        for partition, records in queues.items():
            leader = self._client.cluster.leader_for_partition(partition)
            if leader is None or leader < 0:
                outcomes[partition] = Outcome(0, 0, 5, _words(5))
            else:
                nodes[leader][partition] = await self._built(partition, records)
        done = await asyncio.gather(*(self._send(node, batches) for node, batches in nodes.items()))
        for part in done:
            outcomes.update(part)
        return outcomes

    async def _built(self, partition: TopicPartition, records: Sequence[Record]) -> tuple[int, bytes]:
        numbers = self._numbers
        unsure = numbers.unsure.get(partition)
        most, size = (len(unsure), NO_BOUND) if unsure else (len(records), self.batch_most)
        number = numbers.next.get(partition, 0)
        builder = DefaultRecordBatchBuilder(MAGIC, self._codec, 0, numbers.producer_id, numbers.epoch, number, size)
        count = 0
        for record in records[:most]:
            if builder.append(count, None, record.key, record.value, []) is None:
                break
            count += 1
        numbers.unsure[partition] = [record.payload for record in records[:count]]
        return count, bytes(await asyncio.to_thread(builder.build) if self._codec else builder.build())

    async def _send(
        self, node: int, batches: Mapping[TopicPartition, tuple[int, bytes]]
    ) -> dict[TopicPartition, Outcome]:
        topics: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        for partition, (_, data) in batches.items():
            topics[partition.topic].append((partition.partition, data))
        request = ProduceRequest(None, ACKS_ALL, self._acks_ms, list(topics.items()))
        try:
            with self._errors():
                answer = await self._client.send(node, request)
        except RemoteUnavailable as error:  # other brokers may have confirmed what they got
            return {partition: Outcome(count, 0, LOST, str(error)) for partition, (count, _) in batches.items()}
        outcomes = {}
        for topic, partitions in answer.topics:
            for number, code, *_ in partitions:
                partition = TopicPartition(topic, number)
                count, data = batches[partition]
                outcomes[partition] = self._outcome(partition, count, len(data), code)
        return outcomes

    def _outcome(self, partition: TopicPartition, count: int, size: int, error: int) -> Outcome:
        numbers = self._numbers
        if error == DuplicateSequenceNumber.errno:
            error = NoError.errno
        if error not in UNSURE:
            numbers.unsure.pop(partition, None)
        if error:
            return Outcome(count, size, error, _words(error))
        numbers.next[partition] = (numbers.next.get(partition, 0) + count) & POSITIVE
        return Outcome(count, size)

    # -- what goes wrong

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """The border where aiokafka's errors become ours."""
        self._said.clear()
        try:
            yield
        except BrokerResponseError as error:
            raise RemoteUnavailable(f"{_words(error.errno)}{self._because()}") from None
        except (KafkaError, OSError, TimeoutError) as error:
            reason = self._said[-1][:SAID_MOST] if self._said else str(error) or type(error).__name__
            raise RemoteUnavailable(reason) from None

    def _because(self) -> str:
        """aiokafka tells its log why it reached no broker, and nobody else."""
        return f": {self._said[-1][:SAID_MOST]}" if self._said else ""


def _begins(records: Sequence[Record], payloads: Sequence[Any]) -> bool:
    """Whether the records begin with these very payloads."""
    begin = records[: len(payloads)]
    return len(begin) == len(payloads) and all(a.payload is b for a, b in zip(begin, payloads, strict=True))


def _words(code: int) -> str:
    error = for_code(code)
    words = " ".join((getattr(error, "description", None) or "").split())[:SAID_MOST]
    return f"{error.__name__} ({code})" + (f": {words}" if words else "")


class _Listener(logging.Handler):
    """Gives what aiokafka says to the connection in whose name it was said."""

    def emit(self, record: logging.LogRecord) -> None:
        said = _listening.get()
        if said is not None:
            said[:] = [" ".join(record.getMessage().split())]


_listening: ContextVar[list[str] | None] = ContextVar("listening", default=None)
_library = logging.getLogger("aiokafka")
_library.addHandler(_Listener(logging.WARNING))
_library.propagate = False  # a line for each attempt; what comes of it is told once, as the stream's error
