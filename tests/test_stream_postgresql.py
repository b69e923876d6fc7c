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
from gateway.stream.rows import CONVERTED, Column, create_table
from gateway.stream.target import Outgoing, Rejection, StreamInfo
from gateway.streams.postgresql import Postgresql
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


class Table:
    """Deliveries to a database, without a stream around them."""

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


@pytest.fixture
def table(postgres_server, postgres_url):
    return Table(postgres_server, postgres_url)


def outgoing(ident: str = "1", device_id: int = 0, timestamp=1795000000.25, **parameters) -> Outgoing:
    text = json.dumps({"ident": ident, "timestamp": timestamp, **parameters}).encode()
    return Outgoing(text, ident, device_id, 0 if device_id else 1)


def test_the_table_is_made_with_a_row_for_each_moment_of_a_device(run, table):
    async def check() -> None:
        assert not await table.deliver({"n": 1}, {"n": 2, "device_id": 7}, {"n": 3, "timestamp": 1795000001})
        rows = await table.rows("ident, device_id, extract(epoch from timestamp)::float8, message->>'n'")
        assert rows == [("1", 0, 1795000000.25, "1"), ("1", 0, 1795000001.0, "3"), ("1", 7, 1795000000.25, "2")]

    run(check())


def test_what_comes_again_changes_nothing(run, table):
    async def check() -> None:
        messages = [{"n": n, "timestamp": 1795000000 + n / 1e6, "device_id": 3} for n in range(20)]
        await table.deliver(*messages)
        rows = await table.rows()
        assert len(rows) == 20
        await table.deliver(*messages[10:])
        await table.deliver(*messages)
        assert await table.rows() == rows

    run(check())


@pytest.mark.parametrize("batches", [1, 3])
def test_messages_of_one_moment_are_merged_within_a_batch_and_with_the_table(run, table, batches):
    """What the newer one does not have is kept, in columns also."""

    async def check() -> None:
        options = {"columns": _columns(a="bigint", b="bigint", c="bigint")}
        messages = [{"a": 1, "b": 2}, {"b": 3}, {"c": 4, "b": 5}]
        for first in range(0, 3, 3 // batches):
            assert not await table.deliver(*messages[first : first + 3 // batches], **options)
        ((message, *values),) = await table.rows("message, a, b, c")
        assert json.loads(message) == {"ident": "1", "timestamp": 1795000000.25, "a": 1, "b": 5, "c": 4}
        assert values == [1, 5, 4]

    run(check())


def _columns(**types: str) -> dict[str, Column]:
    """Columns that are called as their parameters."""
    return {name: Column(parameter=name, type=type) for name, type in types.items()}


def test_a_message_of_a_key_of_its_own_has_a_row_of_its_own(run, table):
    """As the gateway tells them apart: by timestamp.key where there is one."""

    async def check() -> None:
        same = {"timestamp": 1795000000, "device_id": 1}
        assert not await table.deliver(*({**same, "n": n, "timestamp.key": 1795000000 + n / 1000} for n in range(3)))
        assert len(await table.rows()) == 3

    run(check())


def test_columns_are_added_and_hold_values_of_their_type(run, table):
    async def check() -> None:
        await table.deliver({"n": 0, "timestamp": 1795000000})
        columns = {
            "speed": Column(parameter="position.speed"),
            "Count": Column(parameter="count", type="bigint"),
            "moving": Column(parameter="movement.status", type="boolean"),
            "driver": Column(parameter="driver", type="text"),
            "fixed": Column(parameter="position.timestamp", type="timestamptz"),
            "can": Column(parameter="can.dtc", type="jsonb"),
        }
        right = {
            "position.speed": 54, "count": 2**62, "movement.status": False, "driver": "Bo\u0301b",
            "position.timestamp": 1795000000.000001, "can.dtc": [{"code": "P0100"}],
        }  # fmt: skip
        wrong = {
            "position.speed": "fast", "count": 1.5, "movement.status": 1, "driver": 7, "position.timestamp": 1e300,
            "can.dtc": None,
        }  # fmt: skip
        messages = [{"timestamp": 1795000001, **right}, {"timestamp": 1795000002, **wrong}]
        assert not await table.deliver(*messages, columns=columns)
        named = 'speed, "Count", moving, driver, extract(epoch from fixed)::float8, can'
        assert await table.rows(named) == [
            (None,) * 6,
            (54.0, 2**62, False, "Bo\u0301b", 1795000000.000001, '[{"code": "P0100"}]'),
            (None,) * 6,
        ]

    run(check())


@pytest.mark.parametrize(
    ("type", "value"),
    [("bigint", 2**63), ("bigint", True), ("double precision", 10**400), ("double precision", True), ("boolean", "x"),
     ("text", {}), ("timestamptz", True), ("timestamptz", "2026-11-18"), ("timestamptz", float("inf"))],
)  # fmt: skip
def test_values_of_another_type_are_not_taken(type, value):
    assert CONVERTED[type](value) is None


def test_columns_have_the_gateways_names_whatever_is_sent(run, table):
    """And the row is found by the parameters that are left out of what is sent."""

    async def check() -> None:
        target = table.target(columns={"speed": Column(parameter="position.speed")})
        await target.open()
        source = {"timestamp": 1795000000, "position.speed": 5}
        await target.deliver([Outgoing(b'{"positionSpeed":5}', "1", 0, 1, 0.0, source)])
        await target.close()
        assert await table.rows("ident, message, speed") == [("1", '{"positionSpeed": 5}', 5.0)]

    run(check())


def test_bad_messages_are_found_among_good_ones(run, table):
    async def check() -> None:
        messages = [{"n": n, "timestamp": 1795000000 + n} for n in range(100)]
        messages[17]["x"] = "\0"
        messages[18]["timestamp"] = 1e300
        messages[50]["timestamp"] = "today"
        rejections = await table.deliver(*messages)
        reasons = {rejection.index: rejection.reason for rejection in rejections}
        assert sorted(reasons) == [17, 18, 50]
        assert reasons[17].endswith("\\u0000 cannot be converted to text. (22P05)")
        assert reasons[18] == "timestamp should be UNIX seconds of the years 1 to 9999, not 1e+300"
        assert reasons[50] == "timestamp should be UNIX seconds of the years 1 to 9999, not 'today'"
        assert len(await table.rows()) == 97

    run(check())


def test_a_value_beyond_a_column_that_was_there_before_is_rejected(run, table):
    async def check() -> None:
        await table.sql(f"{create_table('messages')}; ALTER TABLE messages ADD n smallint")
        messages = [{"n": n, "timestamp": 1795000000 + n} for n in (1, 40000, 2)]
        (rejection,) = await table.deliver(*messages, columns=_columns(n="bigint"))
        assert rejection == Rejection(1, "smallint out of range (22003)")
        assert await table.rows("n") == [(1,), (2,)]

    run(check())


def test_an_ident_that_no_index_takes_is_rejected(run, table):
    """PostgreSQL's bound is 2,704 bytes after compression."""

    async def check() -> None:
        ident = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(3000))
        (rejection,) = await table.deliver({"n": 0}, {"n": 1, "ident": ident})
        assert rejection.index == 1
        assert "(54000)" in rejection.reason

    run(check())


def test_a_large_batch_goes_in_several_statements(run, table, monkeypatch):
    monkeypatch.setattr("gateway.streams.postgresql.STATEMENT_MOST", 1000)

    async def check() -> None:
        messages = [{"n": n, "timestamp": 1795000000 + n, "x": "y" * (n % 7 * 300)} for n in range(300)]
        messages[250]["x"] = "\0"
        (rejection,) = await table.deliver(*messages)
        assert rejection.index == 250
        assert len(await table.rows()) == 299
        statements = await table.rows("*", GROUPED)
        assert len(statements) > 100

    run(check())


GROUPED = (
    "(SELECT ident, device_id, xmin::text AS x, min(timestamp) AS timestamp FROM messages GROUP BY 1, 2, 3) AS one"
)


@pytest.mark.parametrize("refused", ["retry", "skip"])
def test_what_breaks_a_rule_of_the_table_is_repeated_or_rejected(run, table, refused):
    async def check() -> None:
        await table.deliver({"n": 0})
        await table.sql("ALTER TABLE messages ADD CHECK ((message->>'n')::int < 5)")
        messages = [{"n": n, "timestamp": 1795000001 + n} for n in range(7)]
        if refused == "retry":
            with pytest.raises(RemoteRefused, match=r"violates check constraint .* \(23514\)"):
                await table.deliver(*messages)
            return
        rejections = await table.deliver(*messages, refused="skip")
        assert [rejection.index for rejection in rejections] == [5, 6]
        assert "violates check constraint" in rejections[0].reason
        assert len(await table.rows()) == 6

    run(check())


def test_what_was_written_before_an_error_is_done(run, table, monkeypatch):
    monkeypatch.setattr("gateway.streams.postgresql.STATEMENT_MOST", 1)

    async def check() -> None:
        target = table.target()
        await target.open()
        await table.sql("ALTER TABLE messages ADD CHECK (message->>'n' <> '2')")
        batch = [outgoing(n=n, timestamp=1795000000 + n) for n in range(4)]
        with pytest.raises(RemoteRefused):
            await target.deliver(batch)
        await target.close()
        assert [one.is_done for one in batch] == [True, True, False, False]

    run(check())


# -- the table


def test_a_schema_is_named_before_a_dot(run, table):
    async def check() -> None:
        with pytest.raises(RemoteRefused, match='schema "fleet" does not exist'):
            await table.deliver({"n": 0}, table="fleet.Positions")
        await table.sql("CREATE SCHEMA fleet")
        await table.deliver({"n": 0}, table="fleet.Positions")
        assert len(await table.rows(table='fleet."Positions"')) == 1

    run(check())


def test_without_create_nothing_is_made(run, table):
    async def check() -> None:
        with pytest.raises(RemoteUnavailable, match=r'relation "messages" does not exist \(42P01\)'):
            await table.deliver({"n": 0}, create=False)
        await table.deliver({"n": 0})
        with pytest.raises(RemoteUnavailable, match=r'column "a" of relation "messages" does not exist'):
            await table.deliver({"n": 0}, create=False, columns=_columns(a="text"))

    run(check())


def test_a_table_that_is_there_needs_no_right_to_make_one(run, table):
    """Nor a lock that waits for those who read."""

    async def check() -> None:
        await table.deliver({"n": 0}, columns=_columns(a="text"))
        await table.sql("GRANT SELECT, INSERT, UPDATE ON messages TO writer")
        reader = await asyncpg.connect(table.url, timeout=5)
        await reader.execute("BEGIN; SELECT * FROM messages")
        writer = table.url.replace("postgres@", "writer@")
        assert not await table.deliver({"n": 1}, uri=writer, columns=_columns(a="text"))
        await reader.close()
        with pytest.raises(RemoteRefused, match="must be owner of table messages"):
            await table.deliver({"n": 1}, uri=writer, columns=_columns(a="text", b="text"))

    run(check())


def test_a_table_that_is_dropped_is_made_again(run, table):
    async def check() -> None:
        target = table.target()
        await target.open()
        await table.sql("DROP TABLE messages")
        with pytest.raises(RemoteUnavailable, match="does not exist"):
            await target.deliver([outgoing(n=0)])
        await target.close()
        await target.open()
        assert not await target.deliver([outgoing(n=0)])
        await target.close()

    run(check())


def test_a_table_without_the_key_is_told(run, table):
    async def check() -> None:
        await table.sql("CREATE TABLE messages (ident text, device_id bigint, timestamp timestamptz, message jsonb)")
        with pytest.raises(RemoteUnavailable, match="no unique or exclusion constraint matching"):
            await table.deliver({"n": 0})

    run(check())


TIMESCALE = """
SET allow_system_table_mods = on;
CREATE SCHEMA "time scale";
CREATE TABLE hypertables (name regclass, by name);
CREATE FUNCTION "time scale".create_hypertable(relation regclass, time_column_name name, if_not_exists bool = false)
    RETURNS void LANGUAGE sql AS $$ INSERT INTO public.hypertables VALUES (relation, time_column_name) $$;
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
    SELECT 99999, 'timescaledb', 10, oid, false, '2.0' FROM pg_namespace WHERE nspname = 'time scale';
"""


@pytest.mark.parametrize("hypertable", [True, False])
def test_where_timescaledb_is_installed_the_table_is_a_hypertable(run, table, hypertable):
    """Only what is called is tested: the extension is an entry in the catalog with a function."""

    async def check() -> None:
        await table.sql(TIMESCALE)
        for _ in range(2):
            await table.deliver({"n": 0}, table="public.Rows", hypertable=hypertable)
        made = await table.sql("SELECT * FROM hypertables")
        assert made == ('"Rows"|timestamp\n' if hypertable else "")

    run(check())


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
