"""SIGKILL at any moment: whatever was acknowledged is stored."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from random import Random
from typing import Any

from integration.processes import Gateway, is_running, until
from integration.stored import assert_nothing_lost, stored_at
from integration.trackers import Fleet

Run = Callable[..., Any]
KILLS = int(os.environ.get("GATEWAY_TEST_KILLS") or 3)
"""More of them find more; three find what is plainly wrong."""
MOMENT = 1.0
"""Seconds within which the moment of a kill lies, counted from when all trackers are being served."""
AT_ONCE = 10.0


def test_a_killed_gateway_has_lost_nothing_that_it_acknowledged(
    run: Run, make_gateway: Callable[..., Gateway], random: Random
) -> None:
    """Its Redis dies with it, and the next gateway takes over the data directory at once."""
    gateway = make_gateway()

    async def scenario() -> None:
        await gateway.ready()
        async with Fleet(gateway.port) as fleet:
            for _ in range(KILLS):
                await fleet.is_acknowledged()
                await asyncio.sleep(random.uniform(0, MOMENT))
                redis = gateway.redis_pid()
                gateway.kill()
                await gateway.ready(AT_ONCE)
                assert not is_running(redis)
            await fleet.is_acknowledged()
            await fleet.finish()
        assert fleet.count > 0
        async with stored_at(gateway.socket) as stored:
            await assert_nothing_lost(stored, fleet.acknowledged)

    run(scenario(), timeout=60 + 10 * KILLS)


def test_a_killed_redis_has_lost_nothing_that_was_acknowledged(
    run: Run, make_gateway: Callable[..., Gateway], random: Random
) -> None:
    """The gateway starts it again, and the trackers' connections outlive that."""
    gateway = make_gateway()

    async def scenario() -> None:
        await gateway.ready()
        async with Fleet(gateway.port) as fleet:
            for _ in range(KILLS):
                await fleet.is_acknowledged()
                await asyncio.sleep(random.uniform(0, MOMENT))
                redis = gateway.redis_pid()
                os.kill(redis, signal.SIGKILL)
                await until(lambda pid=redis: not is_running(pid), "Redis dies")
                began = time.monotonic()
                await fleet.is_acknowledged()
                assert time.monotonic() - began < AT_ONCE
            await fleet.finish()
        async with stored_at(gateway.socket) as stored:
            await assert_nothing_lost(stored, fleet.acknowledged)
        assert await gateway.stop() == 0

    run(scenario(), timeout=60 + 10 * KILLS)
