"""Bodies and parameters: what is wrong with them is said by name."""

from __future__ import annotations

from typing import Annotated

import pytest
from msgspec import Meta, Struct

from gateway.api.call import ENTRIES_MOST, convert, convert_entries, parse_json
from gateway.api.errors import ApiError


class New(Struct, forbid_unknown_fields=True):
    name: str
    ttl: Annotated[int, Meta(ge=0, le=10)] = 1
    configuration: dict[str, int] = {}


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        ({"nmae": "x"}, "nmae", "unknown field `nmae`"),
        ({}, "name", "missing required field `name`"),
        ({"name": "x", "ttl": 11}, "ttl", "Expected `int` <= 10"),
        ({"name": 5}, "name", "Expected `str`, got `int`"),
        ({"name": "x", "configuration": {"a": "b"}}, "configuration[...]", "Expected `int`, got `str`"),
        ([], None, "Expected `object`, got `array`"),
    ],
)
def test_the_field_that_is_wrong_is_named(value: object, field: str | None, reason: str):
    """A person must be able to mend it."""
    with pytest.raises(ApiError) as raised:
        convert(value, New, "the body")
    assert reason in raised.value.reason
    assert raised.value.details.get("field") == field
    assert raised.value.status == 400


def test_an_unknown_field_comes_with_those_that_there_are():
    """As flespi's schema_hint."""
    with pytest.raises(ApiError) as raised:
        convert({"nmae": "x"}, New, "the body")
    assert raised.value.details["schema_hint"] == ["name", "ttl", "configuration"]


@pytest.mark.parametrize("text", [b"{", b"", b"\xff", b'{"a": NaN}', b'"\\ud800"', b"[" * 100_000])
def test_what_is_no_json_is_refused(text: bytes):
    """Whatever it is, it is the client's error."""
    with pytest.raises(ApiError, match="the body is not JSON"):
        parse_json(text, "the body")


def test_json_that_is_nested_too_deep_is_refused():
    """It could be read, but not be written again."""
    with pytest.raises(ApiError, match="deeper than 32"):
        parse_json(b"[" * 40 + b"]" * 40, "data")
    assert parse_json(b"[" * 32 + b"]" * 32, "data") is not None


def test_each_item_of_an_array_is_judged_on_its_own():
    """The wrong ones are named by their place, the others are done."""
    entries, errors = convert_entries([{"name": "a"}, {"nmae": "b"}, {"name": "c"}], New)
    assert [(entry.index, entry.value.name) for entry in entries] == [(0, "a"), (2, "c")]
    assert [(error.details["index"], error.details["field"]) for error in errors] == [(1, "nmae")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [({"name": "a"}, "should be an array"), ([], "empty"), ([1] * (ENTRIES_MOST + 1), "10000 are possible")],
)
def test_a_body_of_entries_is_an_array(body: object, reason: str):
    """flespi takes arrays only."""
    with pytest.raises(ApiError, match=reason):
        convert_entries(body, New)
