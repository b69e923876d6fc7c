"""flespi's older way to read a channel: a cursor, and waiting for what comes."""

from __future__ import annotations

import asyncio

import pytest

from gateway.store import polls as module
from gateway.store.history import ChannelHistory
from gateway.store.items import Items
from gateway.store.polls import MOST_WAITING, Cursor, Polls, TooManyPolls
from tests.history import KEYS, YEAR, add_packet, make_channel, times_of

NOW = 1_700_000_000
START = NOW * 1_000_000


class Polled:
    """A channel, and who polls it."""

    def __init__(self, redis) -> None:
        self.redis = redis
        self.items = Items(redis)
        self.history = ChannelHistory(redis, KEYS, self.items, now=lambda: NOW)
        self.polls = Polls(redis, KEYS, self.history)

    async def set_up(self) -> Polled:
        await make_channel(self.items)
        return self

    async def until_waiting(self, polling: asyncio.Future) -> None:
        """Until the poll stands in Redis, or has ended."""
        async with asyncio.timeout(5):
            while not polling.done():
                clients = await self.redis.client_list()
                if any(client["cmd"] == "xread" and "b" in client["flags"] for client in clients):
                    return
                await asyncio.sleep(0.005)


def test_a_cursor_walks_through_the_messages(run, redis):
    """Each answer says where the next one begins; at the end it stays."""

    async def scenario() -> None:
        polled = await Polled(redis).set_up()
        times = [at for n in range(7) for at in await add_packet(redis, START + n * 10, 3)]
        seen, key = [], 0
        while True:
            batch = await polled.polls.read([1], Cursor(key, most_messages=4))
            assert len(batch.texts) <= 4
            if not batch.texts:
                break
            seen += times_of(batch.texts)
            key = batch.next_key
        assert seen == times
        assert batch.next_key == key == times[-1] + 1

    run(scenario())


def test_an_answer_has_a_bound_on_bytes_but_always_a_message(run, redis):
    """Or a client with a small bound would never get on."""

    async def scenario() -> None:
        polled = await Polled(redis).set_up()
        await add_packet(redis, START, 3, filler="x" * 1000)
        assert len((await polled.polls.read([1], Cursor(most_bytes=1))).texts) == 1
        assert len((await polled.polls.read([1], Cursor(most_bytes=2500))).texts) == 2

    run(scenario())


def test_a_poll_waits_for_the_next_message(run, redis):
    """And has it as soon as it comes; what is hidden does not wake it for good."""

    async def scenario() -> None:
        polled = await Polled(redis).set_up()
        await add_packet(redis, START)
        await polled.history.delete(1)
        polling = asyncio.ensure_future(polled.polls.read([1], Cursor(0, wait=20)))
        await polled.until_waiting(polling)
        assert not polling.done()
        [second] = await add_packet(redis, START + 5)
        batch = await asyncio.wait_for(polling, 5)
        assert (times_of(batch.texts), batch.next_key) == ([second], second + 1)

    run(scenario())


def test_a_poll_ends_when_nothing_comes(run, redis, monkeypatch):
    """With the cursor that it came with, also after several waits in Redis."""
    monkeypatch.setattr(module, "BLOCK", 0.01)

    async def scenario() -> None:
        polled = await Polled(redis).set_up()
        await add_packet(redis, START)
        batch = await polled.polls.read([1], Cursor(START + 1, wait=0.05))
        assert (batch.texts, batch.next_key) == ([], START + 1)
        polled.items.channels.clear()
        assert (await polled.polls.read([], Cursor(7, wait=0.02))).next_key == 7

    run(scenario())


def test_a_bounded_number_of_polls_waits(run, redis):
    """Each has a connection to Redis; the others are told so at once, and one that ends makes room."""

    async def scenario() -> None:
        polled = await Polled(redis).set_up()
        waiting = [asyncio.ensure_future(polled.polls.read([1], Cursor(0, wait=20))) for _ in range(MOST_WAITING)]
        await polled.until_waiting(waiting[-1])
        with pytest.raises(TooManyPolls, match=str(MOST_WAITING)):
            await polled.polls.read([1], Cursor(0, wait=1))
        assert (await polled.polls.read([1], Cursor())).texts == []
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        await add_packet(redis, START)
        batches = await asyncio.gather(*waiting[1:], polled.polls.read([1], Cursor(0, wait=1)))
        assert all(len(batch.texts) == 1 for batch in batches)

    run(scenario())


def test_several_channels_share_a_cursor(run, redis):
    """In one order; a message of any of them ends the wait."""

    async def scenario() -> None:
        polled = await Polled(redis).set_up()
        await make_channel(polled.items, messages_ttl=YEAR)
        await add_packet(redis, START + 1, channel_id=2)
        await add_packet(redis, START + 2, channel_id=1)
        batch = await polled.polls.read([1, 2], Cursor())
        assert times_of(batch.texts) == [START + 1, START + 2]
        polling = asyncio.ensure_future(polled.polls.read([1, 2], Cursor(batch.next_key, wait=20)))
        await polled.until_waiting(polling)
        await add_packet(redis, START + 9, channel_id=2)
        assert times_of((await asyncio.wait_for(polling, 5)).texts) == [START + 9]

    run(scenario())
