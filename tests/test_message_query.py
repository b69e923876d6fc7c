"""What becomes of messages on their way to a client: filter, generalize, fields, count."""

from __future__ import annotations

import asyncio

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.api import message_query
from gateway.api.errors import ApiError
from gateway.api.message_query import DeviceMessagesQuery, Wishes
from gateway.store.ordered import FOREVER, Turn
from gateway.store.sources import Span


def wishes(**query) -> Wishes:
    return Wishes.of(msgspec.convert(query, DeviceMessagesQuery), Turn())


def fulfil(run, messages: list[dict], chunk: int = 3, **query) -> list[dict]:
    """What a client gets of ``messages``, which come in chunks."""

    async def chunks():
        for start in range(0, len(messages), chunk):
            yield [orjson.dumps(message) for message in messages[start : start + chunk]]

    async def scenario() -> list[dict]:
        return [orjson.loads(text) async for texts in wishes(**query).fulfil(chunks()) for text in texts]

    return run(scenario())


TEN = [{"timestamp": at, "din": at % 2, "can.a": at, "can.b": -at} for at in range(10)]


def test_times_are_microseconds_and_both_ends_belong_to_the_range():
    """Without them: all there is."""
    query = msgspec.convert({"from": 1.000001, "to": 2, "reverse": True}, DeviceMessagesQuery)
    assert query.span == Span(1_000_001, 2_000_000, True)
    assert DeviceMessagesQuery().span == Span(0, FOREVER, False)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"count": 4}, TEN[:4]),
        ({"filter": "din == 1", "count": 3}, [TEN[1], TEN[3], TEN[5]]),
        ({"filter": "din=1 && can.a>5"}, [TEN[7], TEN[9]]),
        ({"filter": "din,can.a", "count": 1}, TEN[:1]),
        ({"filter": "nothing > 1"}, []),
        ({"fields": "can.*", "count": 2}, [{"can.a": 0, "can.b": 0}, {"can.a": 1, "can.b": -1}]),
        ({"fields": "timestamp , nothing", "filter": "can.a == 3"}, [{"timestamp": 3}]),
        ({"filter": "can.a - previous('can.a') == 1", "count": 1}, TEN[1:2]),
        ({"filter": " "}, TEN),
    ],
)
def test_a_client_gets_what_it_wishes(run, query, expected):
    """Filter, then fields; count is of what is given."""
    assert fulfil(run, TEN, **query) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(count=st.integers(1, 12), chunk=st.integers(1, 12))
def test_count_holds_however_messages_come(run, count, chunk):
    """Also within a chunk."""
    assert fulfil(run, TEN, chunk, count=count) == TEN[:count]


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        ({"filter": "din =="}, "filter", "column"),
        ({"filter": "x" * 60000 + "("}, "filter", "filter"),
        ({"method": "average"}, "generalize", "method goes with generalize"),
        ({"fields": ",".join(f"a{n}" for n in range(1001))}, "fields", "1001 names"),
        ({"filter": "previous('a') > 1", "reverse": True}, "filter", "no previous message"),
    ],
)
def test_wishes_that_cannot_be_are_refused(query, field, reason):
    """With the field, and what would be right."""
    with pytest.raises(ApiError, match=reason) as refused:
        wishes(**query)
    assert refused.value.status == 400
    assert refused.value.details["field"] == field


def test_work_is_done_in_slices(run, monkeypatch):
    """Each under the turn that all share, so that it comes between two pieces of others' work."""
    monkeypatch.setattr(message_query, "SLICE", 0.0)

    async def scenario() -> None:
        wished = wishes(fields="din")
        turns = 0
        messages = [orjson.dumps(message) for message in TEN]

        async def chunks():
            yield messages

        async def other() -> None:
            nonlocal turns
            while True:
                async with wished.turn:
                    turns += 1
                await asyncio.sleep(0)

        others = asyncio.ensure_future(other())
        found = [text async for texts in wished.fulfil(chunks()) for text in texts]
        others.cancel()
        assert len(found) == len(TEN)
        assert turns >= len(TEN) / 2

    run(scenario())
