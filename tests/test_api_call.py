"""Bodies and parameters: what is wrong with them is said by name."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct, field

from gateway.api.call import ENTRIES_MOST, convert, convert_entries, parse_json
from gateway.api.errors import ApiError


class New(Struct, forbid_unknown_fields=True):
    name: str
    ttl: Annotated[int, Meta(ge=0, le=10)] = 1
    configuration: dict[str, int] = {}
    start: int = field(name="from", default=0)


class Part(Struct):
    level: Literal[1, 2, 3]


class Chosen(Struct):
    kind: Literal["large", "small"] | None = None
    parts: Annotated[list[Part], Meta(max_length=2)] = []
    named: dict[str, Part] = {}
    only: Literal[0] = 0


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
    assert raised.value.details["schema_hint"] == ["name", "ttl", "configuration", "from"]


def test_a_field_of_a_part_is_named_with_what_it_is_a_part_of():
    """As if the client had sent the whole."""
    with pytest.raises(ApiError) as raised:
        convert({"ttl": 1}, New, "configuration", within="configuration")
    assert raised.value.details["field"] == "configuration.name"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"kind": "big"}, "item: Invalid enum value 'big'; it should be large or small (kind)"),
        ({"parts": [{"level": 4}]}, "item: Invalid enum value 4; it should be 1, 2 or 3 (parts[0].level)"),
        ({"named": {"a": {"level": 4}}}, "item: Invalid enum value 4; it should be 1, 2 or 3 (named[...].level)"),
        ({"only": 7}, "item: Invalid enum value 7; it should be 0 (only)"),
    ],
)
def test_a_value_that_is_none_of_the_possible_ones_comes_with_those(value: dict, reason: str):
    """Wherever it stands."""
    with pytest.raises(ApiError) as raised:
        convert(value, Chosen, "item")
    assert raised.value.reason == reason


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
