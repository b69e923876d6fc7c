"""The embedded Redis: starts, keeps its data, comes back, and is never shared."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from gateway.errors import OperatorError
from gateway.store.connection import connect
from gateway.store.embedded import EmbeddedRedis


async def _eventually_answers(url: str) -> None:
    client = connect(url)
    async with asyncio.timeout(10):
        while True:
            try:
                await client.ping()
                break
            except Exception:
                await asyncio.sleep(0.05)
    await client.aclose()


def test_data_outlives_the_process(run, tmp_path: Path):
    """Stopping it ends its process and keeps what it was given."""

    async def scenario() -> None:
        server = EmbeddedRedis(tmp_path)
        await server.start()
        pid = server.pid
        assert pid is not None
        client = connect(server.url)
        await client.set("kept", "yes")
        await client.aclose()
        await server.stop()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        await server.start()
        client = connect(server.url)
        assert await client.get("kept") == b"yes"
        await client.aclose()
        await server.stop()

    run(scenario())


def test_a_killed_server_is_started_again_with_its_data(run, tmp_path: Path):
    """SIGKILL takes nothing that Redis answered for."""

    async def scenario() -> None:
        server = EmbeddedRedis(tmp_path)
        await server.start()
        client = connect(server.url)
        await client.set("kept", "yes")
        await client.aclose()
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while server.pid in (None, pid):
            await asyncio.sleep(0.02)
        await _eventually_answers(server.url)
        client = connect(server.url)
        assert await client.get("kept") == b"yes"
        await client.aclose()
        await server.stop()

    run(scenario())


def test_two_gateways_cannot_share_a_data_directory(run, tmp_path: Path):
    """The second is told so, and the first goes on."""

    async def scenario() -> None:
        first = EmbeddedRedis(tmp_path)
        await first.start()
        with pytest.raises(OperatorError, match="another gateway runs on this data directory"):
            await EmbeddedRedis(tmp_path).start()
        await _eventually_answers(first.url)
        await first.stop()

    run(scenario())


def test_a_path_too_long_for_a_socket_is_no_obstacle(run, tmp_path: Path):
    """Unix sockets' paths end at 108 bytes; data directories do not."""

    async def scenario() -> None:
        server = EmbeddedRedis(tmp_path / ("long" * 30))
        await server.start()
        await _eventually_answers(server.url)
        assert len(str(server.socket)) < 108
        await server.stop()

    run(scenario())
