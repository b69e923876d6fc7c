"""Deliveries to a table of PostgreSQL, without a stream around them."""

from __future__ import annotations

import asyncio
import json

import asyncpg

from gateway.stream.target import Outgoing, StreamInfo
from gateway.streams.postgresql import Postgresql
from tests.targets.postgres import PostgresServer


class Table:
    """One database, and what is in it."""

    def __init__(self, server: PostgresServer, url: str) -> None:
        self.server, self.url = server, url

    def target(self, **options) -> Postgresql:
        config = Postgresql.Config(**{"uri": self.url, "timeout": 5.0, **options})
        Postgresql.check(config)
        return Postgresql(config, StreamInfo(1, "rows"))

    async def deliver(self, *messages, **options):
        """All as one batch, over a connection of its own; what was rejected."""
        target = self.target(**options)
        try:
            await target.open()
            return await target.deliver([outgoing(**message) for message in messages])
        finally:
            await target.close()

    async def rows(self, columns: str = "*", table: str = "messages"):
        connection = await asyncpg.connect(self.url, timeout=5)
        try:
            found = await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY ident, device_id, timestamp")
        finally:
            await connection.close()
        return [tuple(row) for row in found]

    async def sql(self, statement: str) -> str:
        return await asyncio.to_thread(self.server.sql, statement, self.url)


def outgoing(ident: str = "1", device_id: int = 0, timestamp=1795000000.25, **parameters) -> Outgoing:
    text = json.dumps({"ident": ident, "timestamp": timestamp, **parameters}).encode()
    return Outgoing(text, ident, device_id, 0 if device_id else 1)
