"""How often a stream looks for what is to be delivered."""

from __future__ import annotations

import asyncio
import time

from gateway.stream.sender import GATHER
from tests.streaming import Carrier


def test_what_comes_little_by_little_is_gathered(run, redis, http_target):
    """A request for each packet would cost more than all else; what comes first is delivered at once."""

    async def check() -> None:
        carrier = Carrier(redis)
        await carrier.open()
        stream = await carrier.stream("http", {"uri": http_target.url})
        counters = carrier.state(stream).counters
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < 5 * GATHER or sent < 20:
            await carrier.receive({"n": sent})
            sent += 1
            await asyncio.sleep(GATHER / 20)
        await carrier.until(lambda: counters.delivered == sent, "all is delivered")
        assert len(http_target.requests) <= (time.monotonic() - began) / GATHER + 2
        assert len(http_target.requests[0].json()) < sent / 4
        await carrier.close()

    run(check())
