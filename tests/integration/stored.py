"""What Redis has, told by ident and the times of records in milliseconds."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway import message as msg
from gateway.store.connection import Client, connect
from gateway.store.embedded import EmbeddedRedis
from gateway.store.items import Items
from gateway.store.keys import ShardKeys
from gateway.store.messages import DeviceMessages
from gateway.store.reader import LogEntry, LogReader

CHANNEL = 1
"""The id of the only channel."""
SHARD = ShardKeys()
FILLER = 250_000
"""Bytes of a value that only takes room; a larger one would take it twice on its way in."""

Times = dict[str, list[int]]
"""Ident -> times of records, in the order of the log, repetitions included."""


class Stored:
    """Reads a Redis that a gateway has written to."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def channel(self) -> Times:
        """The channel's messages."""
        return _times(await self._read({SHARD.channel_log(CHANNEL): CHANNEL}))

    async def device_log(self) -> Times:
        """What the registrar handed on."""
        return _times(await self._read({SHARD.device_log: 0}))

    async def device_messages(self) -> Times:
        """The messages of every device, as its own list has them."""
        return {ident: [_time(text) for text in texts] for ident, texts in (await self._device_texts()).items()}

    async def decoded(self) -> dict[str, list[dict[str, Any]]]:
        """The same, whole."""
        return {ident: [msg.decode(text) for text in texts] for ident, texts in (await self._device_texts()).items()}

    async def _device_texts(self) -> dict[str, list[bytes]]:
        items = Items(self._redis)
        await items.load()
        messages = DeviceMessages(self._redis, SHARD)
        return {
            device.ident: await messages.range(device_id, count=1_000_000)
            for device_id, device in items.devices.items()
        }

    async def parked(self) -> list[tuple[str, bytes]]:
        """Ident and frame of what could not be decoded."""
        rows = await self._redis.xrange(SHARD.parked(CHANNEL))
        return [(fields[b"ident"].decode(), fields[b"frame"]) for _, fields in rows]

    async def limit_memory(self, size: int) -> None:
        """Set Redis' maxmemory in bytes; 0: no limit."""
        await self._redis.config_set("maxmemory", size)

    async def occupy(self, size: int) -> None:
        """Have Redis use about so many bytes in all."""
        free = size - (await self._redis.info("memory"))["used_memory"]
        for n in range(free // FILLER):
            await self._redis.set(f"filler:{n}", bytes(FILLER))

    async def registered(self, timeout: float = 30) -> None:
        """Wait until the registrar has read the channel's log to its end."""
        stream = SHARD.channel_log(CHANNEL)
        async with asyncio.timeout(timeout):
            while True:
                last = await self._redis.xrevrange(stream, count=1)
                cursor = await self._redis.hget(SHARD.cursors, f"registrar|{stream}")
                if last and cursor == last[0][0]:
                    return
                await asyncio.sleep(0.05)

    async def _read(self, streams: dict[str, int]) -> list[LogEntry]:
        reader = LogReader(self._redis, SHARD, "test", lambda: streams, wait=0.01)
        entries: list[LogEntry] = []
        while new := await reader.read(5000):
            entries += new
        return entries


@asynccontextmanager
async def stored_at(url: str) -> AsyncIterator[Stored]:
    """What a running Redis has."""
    redis = connect(url)
    try:
        yield Stored(redis)
    finally:
        await redis.aclose()


@asynccontextmanager
async def stored_in(data_dir: Path) -> AsyncIterator[Stored]:
    """What the embedded Redis of a gateway that is gone has on its disk."""
    server = EmbeddedRedis(data_dir)
    await server.start()
    try:
        async with stored_at(server.url) as stored:
            yield stored
    finally:
        await server.stop()


def assert_holds(acknowledged: Mapping[str, Iterable[int]], found: Times, where: str) -> None:
    """Everything that was acknowledged is there."""
    missing = {ident: sorted(set(times) - set(found.get(ident, ()))) for ident, times in acknowledged.items()}
    lost = {ident: times for ident, times in missing.items() if times}
    assert not lost, f"acknowledged, but not in {where}: {lost}"


def assert_once(found: Times, where: str) -> None:
    """Nothing is there twice."""
    repeated = {
        ident: [time for time, n in Counter(times).items() if n > 1]
        for ident, times in found.items()
        if len(set(times)) != len(times)
    }
    assert not repeated, f"more than once in {where}: {repeated}"


def assert_in_order(found: Times, where: str) -> None:
    """What a tracker recorded earlier comes earlier; what was sent again comes behind what came first."""
    disordered = [ident for ident, times in found.items() if list(dict.fromkeys(times)) != sorted(set(times))]
    assert not disordered, f"not in order in {where}: {disordered}"


async def assert_nothing_lost(stored: Stored, acknowledged: Mapping[str, Iterable[int]]) -> None:
    """The promise: acknowledged is stored; registered exactly once, and handed on exactly once; in order."""
    await stored.registered()
    channel = await stored.channel()
    assert_holds(acknowledged, channel, "the channel's messages")
    assert_in_order(channel, "the channel's messages")
    for where, found in (
        ("the devices' messages", await stored.device_messages()),
        ("the device log", await stored.device_log()),
    ):
        assert_holds(acknowledged, found, where)
        assert_once(found, where)
        assert_in_order(found, where)


def _times(entries: Iterable[LogEntry]) -> Times:
    times: Times = defaultdict(list)
    for entry in entries:
        times[entry.ident] += [_time(text) for text in entry.messages]
    return dict(times)


def _time(text: bytes) -> int:
    seconds: float = msg.decode(text)["timestamp"]
    return round(seconds * 1000)
