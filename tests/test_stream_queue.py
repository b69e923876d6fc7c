"""The queue of a stream: what is ready, and how far the cursors may move."""

from __future__ import annotations

from attrs import evolve

from gateway.store.reader import LogReader
from gateway.stream.queue import Queue
from gateway.stream.selection import Form, Selection
from tests.streaming import KEYS, Carrier


def test_the_cursor_moves_to_the_last_packet_that_is_done_with(run, redis, tmp_path):
    """Also where a batch ends in the middle of a packet: what comes again after a crash is that packet, and no more."""

    async def check() -> None:
        carrier = Carrier(redis)
        await carrier.open()
        configuration = {"path": str(tmp_path / "out")}
        stream = await carrier.stream("file", configuration, enabled=False)
        selection = Selection(evolve(stream, pauses=()), carrier.items, KEYS)
        reader = LogReader(redis, KEYS, "test", selection.logs, wait=0)
        queue = Queue(reader, selection, Form(), KEYS)
        for n in range(4):
            await carrier.receive({"n": n}, {"n": n})
        ids = [id.decode() for id, _ in await redis.xrange(KEYS.channel_log(1))]
        await queue.fill(8)
        moved = []
        for _ in range(2):
            assert len(queue.head(3)) == 3
            queue.drop(3)
            await queue.confirm()
            cursor = await redis.hget(KEYS.cursors, f"test|{KEYS.channel_log(1)}")
            moved.append(ids.index(cursor.decode()) + 1)
        assert moved == [1, 3]
        await carrier.close()

    run(check())
