"""Connections to Kafka that gather no more than an answer may have. aiokafka gathers what is announced, up to 2 GB."""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka.client
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError

from gateway.stream.bounded import TooMuchAnnounced, check_announced

__all__ = ["ANSWER_MOST", "AIOKafkaClient", "BoundedConnection"]

ANSWER_MOST = 16 * 1024 * 1024
"""Bytes. Streams ask for no records; of what they ask for, the largest is who leads the partitions of their topics,
some 100 bytes for each of them."""


class _Reader:
    """As much of a stream's reader as aiokafka uses."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.at_eof = reader.at_eof

    async def readexactly(self, n: int) -> bytes:
        check_announced(n, ANSWER_MOST)
        return await self._reader.readexactly(n)


class BoundedConnection(AIOKafkaConnection):  # type: ignore[misc]  # aiokafka has no types
    """Breaks when too much is announced, and tells who waits for an answer that it was so."""

    _reader: Any

    def _create_reader_task(self) -> Any:
        """connect() has made the reader, and nothing was read from it yet."""
        self._reader = _Reader(self._reader)
        return super()._create_reader_task()

    def close(self, reason: Any = None, exc: BaseException | None = None) -> Any:
        """As the base's, which only says that it is closed."""
        if isinstance(exc, TooMuchAnnounced):
            for *_, answer in self._requests:
                if not answer.done():
                    answer.set_exception(KafkaConnectionError(f"{self.host}:{self.port}: {exc}"))
        return super().close(reason, exc)


async def _connected(host: str, port: int, **options: Any) -> BoundedConnection:
    connection = BoundedConnection(host, port, **options)
    await connection.connect()
    return connection


aiokafka.client.create_conn = _connected  # the client has no parameter for it
