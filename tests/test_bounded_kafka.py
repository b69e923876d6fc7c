"""What streams to Kafka make of a broker that announces any length."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import pytest

from gateway.errors import RemoteUnavailable
from gateway.stream.bounded_kafka import ANSWER_MOST
from gateway.stream.target import StreamInfo
from gateway.streams.kafka import Kafka


@pytest.mark.parametrize("is_trickle", [False, True])
@pytest.mark.parametrize("size", [0x7FFFFFFF, ANSWER_MOST + 1, -1])
def test_an_answer_is_not_gathered_when_too_much_is_announced(run, size, is_trickle, caplog):
    announced = struct.pack(">i", size)

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
        for piece in [announced[n : n + 1] for n in range(4)] if is_trickle else [announced]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)  # who reads has its turn
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def check() -> None:
        async with await asyncio.start_server(broker, "127.0.0.1", 0) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            target = Kafka(Kafka.Config(brokers=[address], topic="topic", timeout=10.0), StreamInfo(1, "records"))
            async with asyncio.timeout(5):
                with pytest.raises(RemoteUnavailable, match=f"{address}: {size} bytes were announced"):
                    await target.open()
            await target.close()

    run(check())
    assert not [record for record in caplog.records if record.exc_info]


def test_as_much_as_is_allowed_is_gathered(run):
    """It is no answer to what was asked; the reason is another one."""

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
        writer.write(struct.pack(">i", ANSWER_MOST) + bytes([255]) * ANSWER_MOST)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def check() -> None:
        async with await asyncio.start_server(broker, "127.0.0.1", 0) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            target = Kafka(Kafka.Config(brokers=[address], topic="topic", timeout=10.0), StreamInfo(1, "records"))
            async with asyncio.timeout(5):
                with pytest.raises(RemoteUnavailable, match="Correlation ids do not match"):
                    await target.open()
            await target.close()

    run(check())
