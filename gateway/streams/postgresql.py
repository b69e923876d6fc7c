"""Messages into a table of PostgreSQL: a row for each moment of a device, with the message as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import asyncpg
from msgspec import Meta

from gateway.errors import ItemError, RemoteUnavailable
from gateway.stream.addresses import check_uri
from gateway.stream.postgres_guard import GuardedConnection, GuardedLoop
from gateway.stream.rows import IDENTIFIER, OWN, Column, Placed, add_columns, arguments, create_table, placed, quoted
from gateway.stream.rows import upsert as upsert_statement
from gateway.stream.sql_errors import MessageRefused, as_ours
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo, Target, Timeout
from gateway.web import tls_context

MiB = 1024 * 1024
STATEMENT_MOST = 16 * MiB
ROWS_MOST = 500
"""Bytes of messages, and messages, in one statement: a larger batch goes in several. More at once are no faster, and
to pack these takes some 5 ms."""
YIELD_AFTER = 200
"""Messages that are prepared until trackers have their turn, some 2 ms."""
COLUMNS_MOST = 100
GRACE = 2.0
"""Seconds after ``timeout``, which the server heeds by itself, until it is taken for dead."""
CLOSE_TIME = 1.0

ColumnName = Annotated[str, Meta(pattern=f"^{IDENTIFIER}$", description="letters, digits and _")]


class Postgresql(Target):
    """Rows in a table: one for each ident, device and timestamp, with the message as jsonb, and columns as you like.

    A message that comes again, or another one for the same moment of a device, is merged into the row. The table is
    made where it is absent, as a hypertable where the database has TimescaleDB. A batch is one statement, and delivered
    when the server has committed it.
    """

    class Config(Options):
        """Where to, and which columns."""

        uri: Annotated[
            str,
            Meta(
                min_length=16,
                max_length=2048,
                description="postgresql://USER:PASSWORD@HOST:5432/DATABASE; other characters than letters and digits "
                "as %40",
            ),
        ]
        table: Annotated[
            str,
            Meta(
                max_length=127,
                pattern=rf"^({IDENTIFIER}\.)?{IDENTIFIER}$",
                description="its name, with its schema before a dot where that is not the first of the search path",
            ),
        ] = "messages"
        columns: Annotated[
            dict[ColumnName, Column],
            Meta(
                max_length=COLUMNS_MOST,
                description="columns beside the message, by name: the parameter, and the type of the column; "
                "values of another type are not taken, and it is NULL",
            ),
        ] = {}
        create: Annotated[bool, Meta(description="make the table, and columns, where they are absent")] = True
        hypertable: Annotated[
            bool, Meta(description="a table that is made is a hypertable, where the database has TimescaleDB")
        ] = True
        sslmode: Annotated[
            Literal["disable", "prefer", "require", "verify-ca", "verify-full"],
            Meta(description="as PostgreSQL's own clients have it; only verify-full is safe from others in between"),
        ] = "prefer"
        ca_file: Annotated[
            str,
            Meta(max_length=1024, description="certificates to trust with verify-..., PEM; empty: the system's"),
        ] = ""
        timeout: Annotated[Timeout, Meta(description="seconds that a statement may take")] = 30.0
        statement_cache_size: Annotated[
            int,
            Meta(ge=0, le=1000, description="prepared statements that are kept; 0 behind pgbouncer or another pooler"),
        ] = 100
        refused: Annotated[
            Literal["retry", "skip"],
            Meta(
                description="what breaks a constraint or is refused by a trigger of the table: repeat it, or find "
                "the messages that are refused by themselves, and reject these"
            ),
        ] = "retry"

    id = 6
    title = "PostgreSQL"

    @classmethod
    def check(cls, config: Any) -> None:
        """What belongs to the URI, to the columns, and to the certificates."""
        check_uri(config.uri, "configuration.uri", ("postgres", "postgresql"))
        parts = urlsplit(config.uri)
        if not parts.username or len(parts.path) < 2 or parts.query or parts.fragment:
            reason = (
                "should have a user and a database, and no parameters: postgresql://USER:PASSWORD@HOST:5432/DATABASE"
            )
            raise ItemError(reason, "configuration.uri")
        if taken := [name for name in config.columns if name in OWN]:
            raise ItemError(f"{taken[0]} is a column of each table", "configuration.columns")
        if config.ca_file and not config.sslmode.startswith("verify"):
            reason = f"is used with sslmode verify-ca and verify-full only, not with {config.sslmode}"
            raise ItemError(reason, "configuration.ca_file")

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream)
        self._columns = list(config.columns.values())
        self._upsert = upsert_statement(config.table, config.columns)
        self._connection: Any = None
        self._loop: GuardedLoop | None = None

    # -- the connection

    async def open(self) -> None:
        with self._errors():
            self._connection = await self._connected()
            if self.config.create:
                await self._create()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIME):
                await connection.close()
        except Exception:  # it is lost, or answers nothing
            connection.terminate()
        await asyncio.sleep(0)  # the transport is told of its end in the next turn of the loop

    async def _connected(self) -> Any:
        parts, config = urlsplit(self.config.uri), self.config
        settings = {"application_name": "avl-gateway"}
        if config.statement_cache_size:  # a pooler refuses such a setting
            settings["statement_timeout"] = str(int(config.timeout * 1000))
        self._loop = GuardedLoop()
        return await asyncpg.connect(
            loop=self._loop,
            connection_class=GuardedConnection,
            host=parts.hostname,
            port=parts.port or 5432,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),  # None would make it look in files
            database=unquote(parts.path[1:]),
            ssl=await asyncio.to_thread(_tls, config.sslmode, config.ca_file),
            timeout=config.timeout,
            command_timeout=self._limit,  # also for the beginning and the end of a transaction
            statement_cache_size=config.statement_cache_size,
            server_settings=settings,
            target_session_attrs="any",
        )

    async def _create(self) -> None:
        """Look before: also a change that changes nothing would need rights, and a lock that stops all others."""
        table, columns, limit = self.config.table, self.config.columns, self._limit
        async with self._connection.transaction():
            there = await self._connection.fetch(COLUMNS_OF, quoted(table), timeout=limit)
            if not there:
                await self._connection.execute(create_table(table), timeout=limit)
                await self._make_hypertable()
            missing = columns.keys() - {row["name"] for row in there}
            if missing:
                added = {name: column for name, column in columns.items() if name in missing}
                await self._connection.execute(add_columns(table, added), timeout=limit)

    async def _make_hypertable(self) -> None:
        schema = await self._connection.fetchval(TIMESCALE_SCHEMA, timeout=self._limit)
        if schema is not None and self.config.hypertable:
            statement = f"SELECT {quoted(schema)}.create_hypertable($1::text::regclass, 'timestamp')"
            await self._connection.execute(statement, quoted(self.config.table), timeout=self._limit)

    @property
    def _limit(self) -> float:
        return float(self.config.timeout) + GRACE

    # -- a batch

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        rejections: list[Rejection] = []
        for part in await self._parts(batch, rejections):
            rejections += await self._write(part)
        return rejections

    async def _parts(self, batch: Sequence[Outgoing], rejections: list[Rejection]) -> list[list[Placed]]:
        """What goes into one statement each; what cannot is rejected."""
        parts: list[list[Placed]] = []
        room = 0
        for index, outgoing in enumerate(batch):
            if index % YIELD_AFTER == YIELD_AFTER - 1:
                await asyncio.sleep(0)
            one = placed(index, outgoing)
            if one is None:
                rejections.append(Rejection(index, _no_time(outgoing)))
                continue
            room -= len(outgoing.text)
            if room < 0 or len(parts[-1]) == ROWS_MOST:
                parts.append([])
                room = STATEMENT_MOST - len(outgoing.text)
            parts[-1].append(one)
        return parts

    async def _write(self, part: list[Placed]) -> list[Rejection]:
        """Halves, until what is refused is a single message."""
        try:
            with self._errors():
                await self._execute(part)
        except MessageRefused as error:
            if len(part) == 1:
                return [Rejection(part[0].index, str(error))]
            middle = len(part) // 2
            return [*await self._write(part[:middle]), *await self._write(part[middle:])]
        for one in part:
            one.outgoing.is_done = True
        return []

    async def _execute(self, part: list[Placed]) -> None:
        if self._connection is None:
            raise RemoteUnavailable("not connected")
        await self._connection.execute(self._upsert, *arguments(part, self._columns), timeout=self._limit)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """The border where asyncpg's errors become ours."""
        try:
            with self._refusals():
                yield
        except asyncpg.PostgresError as error:
            raise as_ours(error, skips=self.config.refused == "skip") from None
        except TimeoutError:
            raise RemoteUnavailable(f"PostgreSQL did not answer within {self.config.timeout:g} s") from None
        except asyncpg.InterfaceError as error:
            if self._connection is not None and not self._connection.is_closed():
                raise
            raise RemoteUnavailable(f"the connection to PostgreSQL is lost: {error}") from None
        except (asyncpg.InternalClientError, UnicodeDecodeError) as error:  # words of another encoding
            raise RemoteUnavailable(f"PostgreSQL sends what cannot be followed: {error}") from None
        except OSError as error:
            raise RemoteUnavailable(f"PostgreSQL cannot be reached: {error}") from None

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """asyncpg only sees that such a connection is lost."""
        try:
            yield
        except (asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError, OSError):
            if self._loop is None or not self._loop.refused:
                raise
            raise RemoteUnavailable(self._loop.refused) from None


COLUMNS_OF = """
    SELECT attname AS name FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped"""
TIMESCALE_SCHEMA = """
    SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
    WHERE extname = 'timescaledb'"""


def _no_time(outgoing: Outgoing) -> str:
    source = outgoing.source
    name = "timestamp.key" if "timestamp.key" in source else "timestamp"
    return f"{name} should be UNIX seconds of the years 1 to 9999, not {source.get(name)!r:.50}"


def _tls(mode: str, ca_file: str) -> ssl.SSLContext | str | bool:
    if mode == "disable":
        return False
    if mode == "prefer":
        return "prefer"
    if mode == "require":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context = tls_context(ca_file)
    context.check_hostname = mode == "verify-full"
    return context
