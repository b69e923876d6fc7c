"""A Redis that freezes, dies or is full: nothing is acknowledged that is not stored, and all goes on by itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from integration.processes import Gateway, RedisServer
from integration.stored import assert_nothing_lost, stored_at
from integration.trackers import Connection, Fleet, Packets, imei

Run = Callable[..., Any]
FROZEN = 20.0
MiB = 1024 * 1024
ON_ITS_WAY = 1.0
"""Seconds in which an acknowledgement that Redis had answered before it froze may still arrive."""


def test_a_frozen_redis_means_no_acknowledgements_and_no_loss(
    run: Run, make_gateway: Callable[..., Gateway], redis_process: RedisServer
) -> None:
    """The trackers wait, reconnect and send again; when Redis goes on, so do they."""
    gateway = make_gateway(redis={"url": redis_process.url})

    async def scenario() -> None:
        await redis_process.says("Ready to accept connections")
        await gateway.ready()
        async with Fleet(gateway.port) as fleet:
            await fleet.is_acknowledged()
            redis_process.send(signal.SIGSTOP)
            await asyncio.sleep(ON_ITS_WAY)
            acknowledged = fleet.count
            await gateway.says("trackers are paused: Redis does not answer")
            await asyncio.sleep(FROZEN - ON_ITS_WAY)
            assert fleet.count == acknowledged
            redis_process.send(signal.SIGCONT)
            await fleet.is_acknowledged(each=2)
            await fleet.finish()
        async with stored_at(redis_process.url) as stored:
            await assert_nothing_lost(stored, fleet.acknowledged)
        assert await gateway.stop() == 0

    run(scenario(), timeout=100)


def test_a_redis_that_is_killed_and_started_again_has_lost_nothing(
    run: Run, make_gateway: Callable[..., Gateway], redis_process: RedisServer
) -> None:
    """It comes back from its append-only file; meanwhile nothing is acknowledged."""
    gateway = make_gateway(redis={"url": redis_process.url})

    async def scenario() -> None:
        await redis_process.says("Ready to accept connections")
        await gateway.ready()
        async with Fleet(gateway.port) as fleet:
            for times in (1, 2):
                await fleet.is_acknowledged(each=2)
                redis_process.kill()
                await gateway.says("trackers are paused: Redis does not answer", times=times)
                acknowledged = fleet.count
                await asyncio.sleep(ON_ITS_WAY)
                assert fleet.count == acknowledged
                redis_process.start()
                await gateway.says("trackers go on", times=times)
            await fleet.is_acknowledged(each=2)
            await fleet.finish()
        async with stored_at(redis_process.url) as stored:
            await assert_nothing_lost(stored, fleet.acknowledged)
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_trackers_are_paused_where_the_disk_is_full(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """Below limits.disk_free_mb nobody gets even a verdict, and the log says why."""
    gateway = make_gateway(limits={"disk_free_mb": 1_000_000_000})

    async def scenario() -> None:
        await gateway.ready()
        lines = await gateway.says("trackers are paused")
        assert "MiB free, limits.disk_free_mb is 1000000000" in lines[0]
        connection = await Connection.open(gateway.port)
        await connection.send(Packets(imei(0)).login)
        assert await connection.is_silent(1.0)
        connection.vanish()
        assert await gateway.stop() == 0

    run(scenario())


def test_trackers_are_paused_before_the_memory_is_full(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """Nothing more is acknowledged, and the registrar has the room that it needs to come to the end of the log."""
    gateway = make_gateway(redis={"maxmemory_mb": 64})

    async def scenario() -> None:
        await gateway.ready()
        async with stored_at(gateway.socket) as stored:
            await stored.occupy(int(0.88 * 64 * MiB))
            async with Fleet(gateway.port, size=20) as fleet:
                await gateway.says("of its maxmemory of 64 MiB")
                await asyncio.sleep(ON_ITS_WAY)
                acknowledged = fleet.count
                await asyncio.sleep(ON_ITS_WAY)
                assert fleet.count == acknowledged > 0
            await assert_nothing_lost(stored, fleet.acknowledged)
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_what_a_full_redis_refuses_is_not_acknowledged(
    run: Run, make_gateway: Callable[..., Gateway], redis_process: RedisServer
) -> None:
    """Others may fill an external Redis; when there is room again, the trackers go on."""
    gateway = make_gateway(redis={"url": redis_process.url})

    async def scenario() -> None:
        await redis_process.says("Ready to accept connections")
        await gateway.ready()
        async with Fleet(gateway.port) as fleet, stored_at(redis_process.url) as stored:
            await fleet.is_acknowledged(each=2)
            await stored.limit_memory(1_000_000)
            await gateway.says("trackers are paused: Redis")
            acknowledged = fleet.count
            await asyncio.sleep(ON_ITS_WAY)
            assert fleet.count == acknowledged
            await stored.limit_memory(0)
            await fleet.is_acknowledged(each=2)
            await fleet.finish()
            await assert_nothing_lost(stored, fleet.acknowledged)
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)
