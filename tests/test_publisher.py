"""The publisher between a real Redis and a real Mosquitto: nothing lost, order kept, the cursor moving on PUBACK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from test_mqtt_client import TOPICS, make_client

from gateway import metrics
from gateway.errors import StoreUnavailable
from gateway.mqtt.client import MqttClient
from gateway.mqtt.publisher import Cursor, Publisher, channel_topic, device_topic
from gateway.store.keys import ShardKeys
from gateway.store.reader import LogEntry, LogReader
from tests.brokers import Mosquitto, Proxy, Received, Subscriber

KEYS = ShardKeys()
CHANNEL_LOG = KEYS.channel_log(1)
PER_ENTRY = 2

versions = pytest.mark.parametrize("version", [4, 5], ids=["MQTT 3.1.1", "MQTT 5"])


def log_reader(redis) -> LogReader:
    return LogReader(redis, KEYS, "mqtt", lambda: {CHANNEL_LOG: 1})


class Log:
    """A channel's log: packets of several trackers, each of two numbered messages."""

    def __init__(self, redis, idents: int = 3) -> None:
        self._redis = redis
        self._idents = idents
        self.entries = 0

    async def add(self, entries: int) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for n in range(self.entries, self.entries + entries):
                messages = "\n".join(f'{{"n":{n * PER_ENTRY + k},"timestamp":{n}.5}}' for k in range(PER_ENTRY))
                pipe.xadd(CHANNEL_LOG, {"ident": f"ident{n % self._idents}", "messages": messages}, id=f"{n + 1}-0")
            await pipe.execute()
        self.entries += entries

    @property
    def last_id(self) -> bytes:
        return b"%d-0" % self.entries

    def is_complete_in(self, messages: list[Received]) -> bool:
        return len({message.payload for message in messages}) == self.entries * PER_ENTRY

    def check(self, messages: list[Received]) -> None:
        """Every message has come, and those of an ident first came in their order."""
        assert self.is_complete_in(messages)
        first: dict[str, dict[bytes, None]] = {}
        for message in messages:
            first.setdefault(message.topic, {})[message.payload] = None
        assert set(first) == {TOPICS.channel_message(1, f"ident{k}") for k in range(self._idents)}
        for payloads in first.values():
            numbers = [int(payload[5 : payload.index(b",")]) for payload in payloads]
            assert numbers == sorted(numbers)


async def cursor(redis) -> bytes | None:
    value: bytes | None = await redis.hget(KEYS.cursors, f"mqtt|{CHANNEL_LOG}")
    return value


async def until_confirmed(redis, id: bytes) -> None:
    while await cursor(redis) != id:
        await asyncio.sleep(0.02)


@asynccontextmanager
async def publishing(client: MqttClient, redis) -> AsyncIterator[Publisher]:
    publisher = Publisher(client, log_reader(redis), channel_topic(TOPICS), "channels")
    tasks = [asyncio.ensure_future(client.run()), asyncio.ensure_future(publisher.run())]
    try:
        yield publisher
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@versions
def test_the_log_is_published_and_the_cursor_follows(run, redis, mosquitto: Mosquitto, version: int):
    """What was there before and what comes later, each message on its ident's topic, with its own timestamp."""

    async def scenario() -> None:
        log = Log(redis)
        await log.add(500)
        subscriber = await Subscriber(mosquitto.port, "flespi/message/#").subscribed()
        async with publishing(make_client(mosquitto.url, version=version), redis):
            await until_confirmed(redis, log.last_id)
            await log.add(500)
            await until_confirmed(redis, log.last_id)
        messages = await subscriber.until(log.is_complete_in)
        log.check(messages)
        assert len(messages) == log.entries * PER_ENTRY
        assert messages[-1].properties == ({"timestamp": "999.5", "cid": "1"} if version == 5 else {})
        await subscriber.close()

    run(scenario())


@versions
def test_nothing_is_lost_when_connections_break_while_messages_flow(run, redis, mosquitto: Mosquitto, version: int):
    """Cut again and again, with messages in flight: all arrive, in order, some twice."""

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        log = Log(redis)
        subscriber = await Subscriber(mosquitto.port, "flespi/message/#").subscribed()
        client = make_client(proxy.url, version=version, window=50)
        link = None
        async with publishing(client, redis):
            for _ in range(5):
                link = await client.next_link(after=link)
                await log.add(400)
                came = len(subscriber.messages)
                await subscriber.until(lambda messages, came=came: len(messages) > came + 100)
                proxy.cut()
            await until_confirmed(redis, log.last_id)
        log.check(await subscriber.until(log.is_complete_in))
        await subscriber.close()
        await proxy.stop()

    run(scenario())


def test_what_came_while_the_broker_was_away_arrives_afterwards(run, redis, mosquitto: Mosquitto):
    """However long: the log keeps it, and nothing of it waits in memory."""

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        log = Log(redis)
        subscriber = await Subscriber(mosquitto.port, "flespi/message/#").subscribed()
        client = make_client(proxy.url)
        async with publishing(client, redis):
            await log.add(10)
            await until_confirmed(redis, log.last_id)
            proxy.is_open = False
            proxy.cut()
            await log.add(2000)
            while client.is_connected:
                await asyncio.sleep(0.01)
            assert await cursor(redis) == b"10-0"
            proxy.is_open = True
            await until_confirmed(redis, log.last_id)
        log.check(await subscriber.until(log.is_complete_in))
        await subscriber.close()
        await proxy.stop()

    run(scenario())


def test_the_cursor_waits_for_the_puback(run, redis, mosquitto: Mosquitto):
    """Sent is not delivered: without acknowledgement the cursor stays, and all is sent again."""

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        log = Log(redis)
        subscriber = await Subscriber(mosquitto.port, "flespi/message/#").subscribed()
        client = make_client(proxy.url)
        async with publishing(client, redis):
            await client.next_link()
            proxy.hold()
            await log.add(5)
            await subscriber.until(log.is_complete_in)
            await asyncio.sleep(0.3)  # longer than the cursor waits to be written
            assert await cursor(redis) is None
            proxy.cut()
            proxy.release()
            await until_confirmed(redis, log.last_id)
        assert len(subscriber.messages) == 2 * log.entries * PER_ENTRY
        await subscriber.close()
        await proxy.stop()

    run(scenario())


def test_stopping_drains_what_is_in_flight(run, redis, mosquitto: Mosquitto):
    """Then the cursor is exactly at what was published: the next start repeats nothing."""

    async def scenario() -> None:
        log = Log(redis)
        await log.add(3000)
        subscriber = await Subscriber(mosquitto.port, "flespi/message/#").subscribed()
        client = make_client(mosquitto.url)
        async with publishing(client, redis) as publisher:
            await subscriber.until(lambda messages: len(messages) > 200)
            assert await publisher.stop(5)
        async with publishing(make_client(mosquitto.url), redis):
            await until_confirmed(redis, log.last_id)
        messages = await subscriber.until(log.is_complete_in)
        log.check(messages)
        assert len(messages) == log.entries * PER_ENTRY
        await subscriber.close()

    run(scenario())


def test_stopping_takes_no_longer_than_it_may(run, redis, mosquitto: Mosquitto):
    """A broker that acknowledges nothing cannot hold up the end."""

    async def scenario() -> None:
        proxy = Proxy(mosquitto.port)
        await proxy.start()
        log = Log(redis)
        client = make_client(proxy.url)
        async with publishing(client, redis) as publisher:
            link = await client.next_link()
            proxy.hold()
            await log.add(5)
            while link.in_flight < log.entries * PER_ENTRY:
                await asyncio.sleep(0.01)
            assert not await publisher.stop(0.1)
        proxy.release()
        await proxy.stop()

    run(scenario())


def test_an_ident_that_breaks_topics_is_skipped(run, redis, mosquitto: Mosquitto):
    """It should have been refused at the door; here it must not hold up the others."""

    async def scenario() -> None:
        before = metrics.value("mqtt_messages_skipped", reason="no topic")
        await redis.xadd(CHANNEL_LOG, {"ident": "a/#", "messages": "{}"}, id="1-0")
        await redis.xadd(CHANNEL_LOG, {"ident": "good", "messages": '{"n":1}'}, id="2-0")
        subscriber = await Subscriber(mosquitto.port, "flespi/message/#").subscribed()
        async with publishing(make_client(mosquitto.url), redis):
            await until_confirmed(redis, b"2-0")
        messages = await subscriber.until(len)
        assert [message.topic for message in messages] == ["flespi/message/gw/channels/1/good"]
        assert metrics.value("mqtt_messages_skipped", reason="no topic") == before + 1
        await subscriber.close()

    run(scenario())


def test_a_message_without_permission_waits_for_it(run, redis, make_mosquitto: Callable[..., Mosquitto], tmp_path):
    """MQTT 5: "not authorized" may be mended by the operator; nothing is skipped for it."""

    async def scenario() -> None:
        rules = tmp_path / "acl"
        rules.write_text("topic read #\ntopic write flespi/state/#\n")
        server = make_mosquitto("allow_anonymous true", f"acl_file {rules}")
        log = Log(redis)
        await log.add(3)
        client = make_client(server.url)
        async with publishing(client, redis):
            while "0x87" not in client.last_error:
                await asyncio.sleep(0.01)
            assert await cursor(redis) is None
            server.stop()
            rules.write_text("topic readwrite #\n")
            server.start()
            await until_confirmed(redis, log.last_id)

    run(scenario())


def test_device_messages_go_to_the_devices_topic(run, redis, mosquitto: Mosquitto):
    """By the device's id, which the entry tells."""

    async def scenario() -> None:
        await redis.xadd(KEYS.device_log, {"ident": "x", "device": "12", "messages": '{"n":1}'}, id="1-0")
        subscriber = await Subscriber(mosquitto.port, "flespi/message/#").subscribed()
        client = make_client(mosquitto.url)
        reader = LogReader(redis, KEYS, "mqtt", lambda: {KEYS.device_log: 0})
        publisher = Publisher(client, reader, device_topic(TOPICS), "devices")
        tasks = [asyncio.ensure_future(client.run()), asyncio.ensure_future(publisher.run())]
        (message,) = await subscriber.until(len)
        assert (message.topic, message.payload) == ("flespi/message/gw/devices/12", b'{"n":1}')
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await subscriber.close()

    run(scenario())


class FailingReader:
    """A reader whose store is away until it is told otherwise."""

    def __init__(self) -> None:
        self.is_away = True
        self.confirmed: list[LogEntry] = []
        self.rewinds = 0

    async def read(self, count: int) -> list[LogEntry]:
        raise StoreUnavailable("away")

    async def confirm_all(self, entries) -> None:
        if self.is_away:
            raise StoreUnavailable("away")
        self.confirmed += entries

    def rewind(self) -> None:
        self.rewinds += 1


def test_a_cursor_that_could_not_be_written_is_written_later(run):
    """The last entry of each stream, however often it failed; a rewind without the store gives them up."""

    async def scenario() -> None:
        reader = FailingReader()
        written = Cursor(reader, "test")
        first, last, other = (LogEntry(stream, id, "i", 1, []) for stream, id in (("a", "1"), ("a", "2"), ("b", "1")))
        for entry in (first, last, other):
            written.deliver(entry)
        with pytest.raises(StoreUnavailable):
            await written.write()
        reader.is_away = False
        await written.write()
        assert reader.confirmed == [last, other]
        reader.is_away = True
        written.deliver(last)
        await written.rewind()
        reader.is_away = False
        await written.write()
        assert reader.confirmed == [last, other]
        assert reader.rewinds == 1

    run(scenario())
