"""Streams to PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import asyncpg
import msgspec
import pytest

from gateway.errors import ConfigError, ItemError, RemoteRefused, RemoteUnavailable
from gateway.store.event_codes import EventCode
from gateway.stream.rows import Column, create_table
from gateway.streams.postgresql import Postgresql
from tests.postgres_table import Table, outgoing
from tests.stream_conformance import Kit, StreamConformance
from tests.targets.postgres import QUOTED_PASSWORD, PostgresServer
from tests.targets.process import descendants

# What was written, in the order of the writing, also where a row is written again.
NOTED = """
CREATE TABLE delivered (at bigserial PRIMARY KEY, message jsonb);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
$$ BEGIN INSERT INTO delivered (message) VALUES (NEW.message); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON messages FOR EACH ROW EXECUTE FUNCTION note();
GRANT SELECT, INSERT, UPDATE ON messages TO writer;
"""


class PostgresqlKit(Kit):
    """A database of its own in a server that the tests share; it is killed and started again."""

    protocol = "postgresql"

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.url = ""
        self._holder: asyncpg.Connection | None = None

    async def start(self):
        self.url = await asyncio.to_thread(self.server.new_database)
        await self.sql(f"{create_table('messages')};{NOTED}")

    async def close(self):
        await self.release()
        await self.come_up()

    async def sql(self, statement: str) -> str:
        return await asyncio.to_thread(self.server.sql, statement, self.url)

    def configuration(self):
        return {"uri": self.url.replace("postgres@", "writer@"), "timeout": 1.0}

    def refused_message(self):
        return {"text": "a\0b"}

    async def received(self):
        if not self.server.is_running:
            return []
        connection = await asyncpg.connect(self.url, timeout=5)
        try:
            rows = await connection.fetch("SELECT message FROM delivered ORDER BY at", timeout=5)
        finally:
            await connection.close()
        return [json.loads(row["message"]) for row in rows]

    async def go_down(self):
        await asyncio.to_thread(self.server.kill)

    async def come_up(self):
        if not self.server.is_running:
            await asyncio.to_thread(self.server.start)

    async def hold(self):
        self._holder = await asyncpg.connect(self.url, timeout=5)
        await self._holder.execute("BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE")

    async def release(self):
        holder, self._holder = self._holder, None
        if holder is not None:
            await holder.close()

    async def refuse_all(self):
        await self.sql("REVOKE INSERT ON messages FROM writer")

    async def take_again(self):
        await self.sql("GRANT INSERT ON messages TO writer")


class TestPostgresql(StreamConformance):
    @pytest.fixture
    def kit(self, postgres_server):
        return PostgresqlKit(postgres_server)

    def test_a_refusal_is_told_in_the_servers_words(self, run, kit, carrier):
        async def check() -> None:
            await kit.refuse_all()
            stream = await carrier.stream("postgresql", kit.configuration())
            await carrier.receive({"n": 0})
            await carrier.until(lambda: carrier.told(EventCode.STREAM_FAILED, stream), "it is told")
            (first, *_) = carrier.told(EventCode.STREAM_FAILED, stream)
            assert "permission denied for table messages (42501)" in first["reason"]
            await kit.take_again()
            await carrier.receive({"n": 1, "text": "a\0b"})
            await carrier.until(lambda: carrier.told(EventCode.STREAM_REJECTED, stream), "it is rejected")
            (entry,) = carrier.told(EventCode.STREAM_REJECTED, stream)
            assert entry["reason"] == (
                "unsupported Unicode escape sequence: \\u0000 cannot be converted to text. (22P05)"
            )

        run(check())


@pytest.fixture
def table(postgres_server, postgres_url):
    return Table(postgres_server, postgres_url)


# -- the connection


def test_the_password_is_sent_and_not_told(run, table):
    async def check() -> None:
        uri = table.url.replace("postgres@", f"keeper:{QUOTED_PASSWORD}@")
        assert not await table.deliver({"n": 0}, uri=uri)
        with pytest.raises(RemoteRefused) as caught:
            await table.deliver({"n": 0}, uri=uri.replace("%40", "5ecret"))
        assert str(caught.value) == 'password authentication failed for user "keeper" (28P01)'
        with pytest.raises(RemoteRefused, match='database "nowhere" does not exist'):
            await table.deliver({"n": 0}, uri=uri.rpartition("/")[0] + "/nowhere")

    run(check())


def test_the_connection_is_encrypted_and_the_server_known(run, table, tmp_path):
    async def check() -> None:
        uri = table.url.replace("postgres@", "encrypted@")
        authority = str(table.server.authority)
        for options in (
            {"sslmode": "prefer"},
            {"sslmode": "require"},
            {"sslmode": "verify-ca", "ca_file": authority},
            {"sslmode": "verify-full", "ca_file": authority},
            {"sslmode": "verify-ca", "ca_file": authority, "uri": uri.replace("127.0.0.1", "localhost")},
        ):
            assert not await table.deliver({"n": 0}, **{"uri": uri, **options})
        with pytest.raises(RemoteRefused, match="pg_hba"):
            await table.deliver({"n": 0}, uri=uri, sslmode="disable")
        with pytest.raises(RemoteUnavailable, match="certificate verify failed"):
            await table.deliver({"n": 0}, uri=uri, sslmode="verify-full")
        other = uri.replace("127.0.0.1", "localhost")
        with pytest.raises(RemoteUnavailable, match="certificate"):
            await table.deliver({"n": 0}, uri=other, sslmode="verify-full", ca_file=authority)
        with pytest.raises(ConfigError, match="should be a file of certificates"):
            await table.deliver({"n": 0}, uri=uri, sslmode="verify-full", ca_file=str(tmp_path / "none.pem"))

    run(check())


def test_a_server_that_became_read_only_is_connected_with_anew(run, table):
    """Behind its name may be another one by then."""

    async def check() -> None:
        await table.deliver({"n": 0})
        await table.sql("ALTER ROLE writer SET default_transaction_read_only = on")
        await table.sql("GRANT SELECT, INSERT, UPDATE ON messages TO writer")
        try:
            with pytest.raises(RemoteUnavailable, match="read-only transaction"):
                await table.deliver({"n": 1}, uri=table.url.replace("postgres@", "writer@"))
        finally:
            await table.sql("ALTER ROLE writer RESET ALL")

    run(check())


def test_a_lock_that_is_held_too_long_does_not_end_the_connection(run, table):
    async def check() -> None:
        await table.deliver({"n": 0})
        target = table.target(timeout=0.2)
        await target.open()
        holder = await asyncpg.connect(table.url, timeout=5)
        await holder.execute("BEGIN; LOCK TABLE messages")
        with pytest.raises(RemoteRefused, match="statement timeout"):
            await target.deliver([outgoing(n=1)])
        await holder.close()
        assert not await target.deliver([outgoing(n=1)])
        await target.close()

    run(check())


@pytest.mark.parametrize("cached", [0, 100])
def test_a_server_that_stands_still_is_left_in_time(run, make_postgres, cached, monkeypatch):
    monkeypatch.setattr("gateway.streams.postgresql.GRACE", 0.2)

    async def check() -> None:
        server = await asyncio.to_thread(make_postgres)
        table = Table(server, server.url)
        target = table.target(timeout=0.3, statement_cache_size=cached)
        await target.open()
        pids = [server.pid, *descendants(server.pid)]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            with pytest.raises(RemoteUnavailable, match=r"did not answer within 0\.3 s"):
                await target.deliver([outgoing(n=1)])
            async with asyncio.timeout(3):
                await target.close()
                with pytest.raises(RemoteUnavailable):
                    await target.open()
                await target.close()
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert not await table.deliver({"n": 1}, statement_cache_size=cached)

    run(check())


def test_a_cancelled_delivery_leaves_a_target_that_can_be_closed(run, table):
    async def check() -> None:
        await table.deliver({"n": 0})
        target = table.target()
        await target.open()
        holder = await asyncpg.connect(table.url, timeout=5)
        await holder.execute("BEGIN; LOCK TABLE messages")
        delivering = asyncio.ensure_future(target.deliver([outgoing(n=1)]))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        async with asyncio.timeout(5):
            while await holder.fetchval(waiting) == 0:
                await holder.execute("SELECT pg_stat_clear_snapshot()")
        delivering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivering
        async with asyncio.timeout(3):
            await target.close()
            await target.close()
        await holder.close()
        with pytest.raises(RemoteUnavailable, match="not connected"):
            await target.deliver([outgoing(n=1)])

    run(check())


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("uri", {"uri": "http://host/database"}),
        ("uri", {"uri": "postgresql://host:5432/database"}),
        ("uri", {"uri": "postgresql://user@host:5432/"}),
        ("uri", {"uri": "postgresql://user@host:5432/database?sslmode=require"}),
        ("columns", {"columns": {"message": Column(parameter="n")}}),
        ("ca_file", {"ca_file": "/etc/ca.pem", "sslmode": "require"}),
    ],
)
def test_configurations_that_cannot_be_are_refused(field, options):
    with pytest.raises(ItemError) as caught:
        Postgresql.check(Postgresql.Config(**{"uri": "postgresql://user@host/database", **options}))
    assert caught.value.field == f"configuration.{field}"


@pytest.mark.parametrize("table", ["a b", "a.b.c", 'a"b', "", "1a", "a" * 64, "a; DROP TABLE b"])
def test_names_that_are_no_identifiers_are_refused(table):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"uri": "postgresql://user@host/database", "table": table}, Postgresql.Config)
    column = {table.replace(".", " ") or " ": {"parameter": "n"}}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"uri": "postgresql://user@host/database", "columns": column}, Postgresql.Config)
