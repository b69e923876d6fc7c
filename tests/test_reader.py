"""Readers of the logs: in order, from their cursor, which moves only when they say so."""

from __future__ import annotations

from gateway.store.keys import ShardKeys
from gateway.store.reader import LogEntry, LogReader

KEYS = ShardKeys()
STREAM = KEYS.channel_log(1)


def _reader(redis, name: str = "test", channels: tuple[int, ...] = (1,)) -> LogReader:
    return LogReader(redis, KEYS, name, lambda: {KEYS.channel_log(id): id for id in channels}, wait=0.01)


async def _add(redis, n: int, stream: str = STREAM) -> None:
    await redis.xadd(stream, {"ident": f"ident{n}", "messages": f'{{"n":{n}}}\n{{"n":{n}}}'}, id=f"{n}-0")


def test_entries_come_in_order_with_owner_and_messages(run, redis):
    """An entry is a packet: its ident, its channel, and each message as JSON text."""

    async def scenario() -> None:
        for n in (1, 2):
            await _add(redis, n)
        entries = await _reader(redis).read(10)
        assert entries == [
            LogEntry(STREAM, f"{n}-0", f"ident{n}", 1, [b'{"n":%d}' % n, b'{"n":%d}' % n]) for n in (1, 2)
        ]

    run(scenario())


def test_without_confirmation_everything_comes_again_after_a_rewind(run, redis):
    """Reading goes on after what was read; a rewind or a new process goes back to the cursor."""

    async def scenario() -> None:
        for n in range(1, 6):
            await _add(redis, n)
        reader = _reader(redis)
        first = await reader.read(3)
        assert [entry.id for entry in first] == ["1-0", "2-0", "3-0"]
        await reader.confirm(first[1])
        assert [entry.id for entry in await reader.read(10)] == ["4-0", "5-0"]
        reader.rewind()
        assert [entry.id for entry in await reader.read(10)] == ["3-0", "4-0", "5-0"]
        assert [entry.id for entry in await _reader(redis).read(10)] == ["3-0", "4-0", "5-0"]
        assert len(await _reader(redis, "other").read(10)) == 5

    run(scenario())


def test_cursors_are_kept_for_each_stream(run, redis):
    """Confirming one channel says nothing about the other; one that appears later is read from its start."""

    async def scenario() -> None:
        channels = [1]
        reader = LogReader(redis, KEYS, "test", lambda: {KEYS.channel_log(id): id for id in channels})
        await _add(redis, 1)
        entries = await reader.read(10)
        channels.append(2)
        await _add(redis, 7, KEYS.channel_log(2))
        entries += await reader.read(10)
        assert [(entry.owner, entry.id) for entry in entries] == [(1, "1-0"), (2, "7-0")]
        await reader.confirm_all(entries[1:])
        reader.rewind()
        assert [(entry.owner, entry.id) for entry in await reader.read(10)] == [(1, "1-0")]

    run(scenario())


def test_without_streams_or_entries_there_is_nothing(run, redis):
    """A read waits a second for news, then says so."""

    async def scenario() -> None:
        assert await _reader(redis, channels=()).read(10) == []
        assert await _reader(redis).read(10) == []

    run(scenario())


def test_the_device_log_says_whose_its_entries_are(run, redis):
    """There the owner is a device, and stands in the entry."""

    async def scenario() -> None:
        await redis.xadd(KEYS.device_log, {"device": 42, "ident": "x", "messages": "{}"})
        reader = LogReader(redis, KEYS, "test", lambda: {KEYS.device_log: 0})
        [entry] = await reader.read(10)
        assert entry.owner == 42

    run(scenario())
