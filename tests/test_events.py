"""The event log: what is written, what a flood leaves of it, and what is told at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from gateway.store.event_codes import CLOSE_REASONS, DESCRIPTIONS, CloseCode, EventCode
from gateway.store.events import ENTRY_MOST, OF_ITEM, OF_SUBJECT, SUMMARIES_MOST, WINDOW, EventLog
from gateway.store.keys import ShardKeys
from gateway.store.sources import Span

KEYS = ShardKeys()
NOW = 1_700_000_000.0
CLOSED = EventCode.CONNECTION_CLOSED
PAGE = (Path(__file__).parent.parent / "docs" / "observation.md").read_text()
WRITTEN = {EventCode(code) for code in (1, 2, 3, 100, 101, 102, 103, 300, 301, 304, 305)}
"""Of channels and devices; others belong to what writes them."""


class There:
    """A log whose clock the test moves."""

    def __init__(self, redis) -> None:
        self.time = NOW
        self.log = EventLog(redis, KEYS, now=lambda: self.time)
        self.told: list[tuple[str, int, dict]] = []
        self.log.on_entry.append(lambda *entry: self.told.append(entry))

    async def entries(self, kind: str = "channels", *ids: int, span: Span | None = None) -> list[dict]:
        chunks = self.log.read(kind, ids or (1,), span or Span())
        return [orjson.loads(text) async for texts in chunks for text in texts]


@pytest.fixture
def there(redis) -> There:
    return There(redis)


def test_an_entry_says_what_happened_to_whom_and_when(run, there):
    """flespi's names; what is None is left out."""
    there.log.record("devices", 5, EventCode.DEVICE_CONNECTED, ident="123", source="10.0.0.1:7", close_code=None)
    entry = {
        "event_code": 300,
        "origin_id": 5,
        "origin_type": 11,
        "timestamp": NOW,
        "ident": "123",
        "source": "10.0.0.1:7",
    }
    assert run(there.entries("devices", 5)) == [entry]
    assert there.told == [("devices", 5, entry)]


def test_the_logs_of_several_items_are_one_list(run, there):
    """By time, in both directions; each item's own is apart."""
    for n, item_id in enumerate((1, 2, 1, 3)):
        there.time = NOW + n
        there.log.record("channels", item_id, CLOSED)
    assert [entry["origin_id"] for entry in run(there.entries("channels", 1, 2))] == [1, 2, 1]
    assert [entry["origin_id"] for entry in run(there.entries("channels", 1, 2, span=Span(is_reverse=True)))] == [
        1,
        2,
        1,
    ]
    late = run(there.entries("channels", 1, 3, span=Span.of(NOW + 2, None)))
    assert [entry["timestamp"] for entry in late] == [NOW + 2, NOW + 3]


def test_junk_of_one_address_leaves_few_entries_and_a_count(run, there):
    """Others of the same channel are written all the same."""
    for port in range(1000):
        there.log.record("channels", 1, CLOSED, source=f"203.0.113.9:{port}", close_code=4)
    there.log.record("channels", 1, CLOSED, source="10.0.0.1:1", close_code=2)
    there.time += WINDOW
    there.log.record("channels", 1, CLOSED, source="203.0.113.9:1", close_code=4)
    entries = run(there.entries())
    assert len(entries) < 30
    assert [entry["close_code"] for entry in entries].count(2) == 1
    repeated = [entry for entry in entries if "repeated" in entry]
    assert sum(entry["repeated"] for entry in repeated) + sum("repeated" not in entry for entry in entries) == 1002


def test_junk_of_many_addresses_is_bounded_for_the_item(run, there):
    """A botnet has an address for each connection."""
    for n in range(5000):
        there.log.record("channels", 1, CLOSED, source=f"10.{n >> 8}.{n & 255}.1:5")
    there.log.summarize()
    entries = run(there.entries())
    assert len(entries) == OF_ITEM["channels"] + 1
    assert entries[-1]["repeated"] == 5000 - OF_ITEM["channels"]


def test_repetitions_of_many_are_counted_together(run, there):
    """A count for each of thousands would be a flood itself."""
    for n in range(1000):
        for _ in range(OF_SUBJECT + 2):
            there.log.record("channels", 1, CLOSED, source=f"10.{n >> 8}.{n & 255}.1:5")
    there.log.summarize()
    entries = run(there.entries())
    written = sum("repeated" not in entry for entry in entries)
    assert written == OF_ITEM["channels"]
    assert len(entries) <= written + SUMMARIES_MOST + 1
    assert written + sum(entry.get("repeated", 0) for entry in entries) == 1000 * (OF_SUBJECT + 2)


def test_an_ident_is_limited_wherever_it_comes_from(run, there):
    """A tracker that reconnects all the time has a new port each time."""
    for port in range(100):
        there.log.record("channels", 1, CLOSED, ident="123", source=f"10.0.0.1:{port}")
    there.log.record("channels", 1, CLOSED, ident="124", source="10.0.0.1:1")
    idents = [entry["ident"] for entry in run(there.entries())]
    assert idents.count("123") == OF_SUBJECT
    assert idents.count("124") == 1


def test_warnings_of_each_message_are_rare(run, there):
    """A car in a garage has no position for hours."""
    for _ in range(100):
        there.log.record("devices", 5, EventCode.PROCESSING_WARNING, reason="position.skipped")
    assert len(run(there.entries("devices", 5))) == 2


def test_what_the_operator_changed_is_never_left_out(run, there):
    """Clients follow the items by these entries."""
    for n in range(500):
        there.log.record("devices", 5, EventCode.UPDATED, new={"n": n})
    assert len(run(there.entries("devices", 5))) == 500
    assert len(there.told) == 500


def test_a_deleted_item_has_no_log_and_its_end_is_told(run, there, redis):
    """What its connections still do afterwards as well."""
    there.log.record("devices", 5, EventCode.CREATED)
    run(there.log.flush())
    there.log.forget("devices", 5)
    there.log.record("devices", 5, EventCode.DELETED)
    there.log.record("devices", 5, EventCode.DEVICE_DISCONNECTED)
    assert run(there.entries("devices", 5)) == []
    assert run(redis.keys("*")) == []
    assert [entry["event_code"] for _, _, entry in there.told] == [1, 3, 301]


def test_an_entry_too_large_is_kept_without_the_objects(run, there):
    """Who is told gets all of it."""
    big = {"configuration": "x" * ENTRY_MOST}
    there.log.record("devices", 5, EventCode.UPDATED, old=big, new={"id": 5})
    there.log.record("devices", 5, EventCode.UPDATED, old=big, new=big)
    first, second = run(there.entries("devices", 5))
    assert first["new"] == {"id": 5}
    assert "old" not in first
    assert "new" not in second
    assert there.told[1][2]["new"] == big


def test_who_fails_when_told_harms_nobody(run, there):
    """The others are told, the entry is kept."""
    there.log.on_entry.insert(0, lambda kind, id, entry: 1 / 0)
    there.log.record("channels", 1, CLOSED)
    assert len(there.told) == len(run(there.entries())) == 1


def test_it_is_written_and_summed_up_in_the_background(run, there, redis):
    """While it runs, nobody has to ask."""

    async def scenario() -> None:
        running = asyncio.ensure_future(there.log.run())
        for _ in range(OF_SUBJECT + 5):
            there.log.record("channels", 1, CLOSED, ident="123")
        there.time += WINDOW
        async with asyncio.timeout(10):
            while await redis.xlen(KEYS.log("channels", 1)) < OF_SUBJECT + 1:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await there.entries())[-1]["repeated"] == 5

    run(scenario())


@pytest.mark.parametrize("code", list(EventCode))
def test_every_event_has_a_topic_and_a_description(code: EventCode):
    """The topic is one level."""
    name, description = DESCRIPTIONS[code]
    assert name.replace("_", "").isalpha()
    assert description


@pytest.mark.parametrize("code", list(CloseCode))
def test_every_close_code_has_a_reason(code: CloseCode):
    """For people."""
    assert CLOSE_REASONS[code]


def test_the_table_of_limits_cannot_grow_without_end(there, monkeypatch):
    """A hundred thousand devices that come back at once."""
    monkeypatch.setattr("gateway.store.events.WINDOWS_MOST", 100)
    for device in range(1000):
        there.log.record("devices", device, EventCode.DEVICE_CONNECTED, ident=str(device))
    assert len(there.log._windows) <= 102


@pytest.mark.parametrize("code", sorted(set(EventCode) & WRITTEN))
def test_the_documentation_has_the_events(code: EventCode):
    """With the name of their topic."""
    assert f"| {int(code)} | `{DESCRIPTIONS[code][0]}` |" in PAGE


@pytest.mark.parametrize("code", sorted(set(CloseCode) - {CloseCode.OK}))
def test_the_documentation_has_the_close_codes(code: CloseCode):
    """All that a connection can end with."""
    assert f"\n| {int(code)} |" in PAGE
