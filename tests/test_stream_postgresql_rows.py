"""What streams make of messages in PostgreSQL: rows, columns, and the table."""

from __future__ import annotations

import json

import asyncpg
import pytest

from gateway.errors import RemoteRefused, RemoteUnavailable
from gateway.stream.rows import CONVERTED, Column, create_table
from gateway.stream.target import Outgoing, Rejection
from tests.postgres_table import Table, outgoing


@pytest.fixture
def table(postgres_server, postgres_url):
    return Table(postgres_server, postgres_url)


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
