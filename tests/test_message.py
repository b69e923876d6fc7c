"""What holds for every message: its text, its position, its key, and how two of them merge."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import message as msg
from gateway.errors import DecodeError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
NAMES = st.text(max_size=3)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=4
)
DEGREES = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.integers(-200, 200), st.floats())


def test_a_message_survives_encoding_and_decoding() -> None:
    message = {"ident": "356307042441013", "timestamp": 1678346071.5, "din": 3, "ble.beacons": [{"id": "ab"}]}
    assert msg.decode(msg.encode(message)) == message


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_null(number: float) -> None:
    """JSON has no NaN and no infinity; a reader that meets one fails on the whole message."""
    assert json.loads(msg.encode({"value": number, "list": [number]})) == {"value": None, "list": [None]}


def test_what_json_cannot_hold_is_text() -> None:
    encoded = msg.decode(msg.encode({"big": 2**70, "bytes": b"\x01\xff", 5: "key", "lone": "\ud800"}))
    assert encoded == {"big": str(2**70), "bytes": "01ff", "5": "key", "lone": "\\ud800"}


@given(st.dictionaries(st.text(max_size=5), ANYTHING, max_size=3))
def test_encoding_never_fails_and_gives_an_object(message: dict[str, Any]) -> None:
    assert isinstance(json.loads(msg.encode(message)), dict)


def test_a_list_that_contains_itself_is_encoded() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert msg.encode({"list": endless})


@pytest.mark.parametrize("text", [b"", b"[]", b"1", b'{"a":', b"\xff", b'{"a": NaN}'])
def test_text_that_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(DecodeError):
        msg.decode(text)


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [(0, 25.0), (54.0, 0), (0.0, 0.0), (90.0001, 25), (54, -180.5), ("54", 25), (None, 25), (True, 25), (math.nan, 25)],
)
def test_a_position_that_cannot_be_one_is_removed(latitude: Any, longitude: Any) -> None:
    """No number, zero or outside of WGS-84: both coordinates go, and the message says so. Everything else stays."""
    message = {"position.latitude": latitude, "position.longitude": longitude, "position.speed": 3, "din": 1}
    message["position.valid"] = True
    assert msg.apply_position_rules(message) == {
        "position.speed": 3,
        "din": 1,
        "position.valid": False,
        "position.skipped": True,
    }


def test_one_coordinate_alone_is_removed() -> None:
    message = msg.apply_position_rules({"position.latitude": 54.5})
    assert message == {"position.valid": False, "position.skipped": True}


@pytest.mark.parametrize("position", [(54.7, 25.3), (-90, 180), (90.0, -180.0), (1e-7, -1e-7)])
def test_a_position_on_earth_stays(position: tuple[float, float]) -> None:
    message = dict(zip(("position.latitude", "position.longitude"), position, strict=True))
    assert msg.apply_position_rules(dict(message)) == message


def test_a_message_without_a_position_stays_without() -> None:
    assert msg.apply_position_rules({"din": 1}) == {"din": 1}


@given(st.fixed_dictionaries({}, optional={"position.latitude": DEGREES, "position.longitude": DEGREES}))
def test_position_rules_applied_twice_are_applied_once(message: dict[str, Any]) -> None:
    once = msg.apply_position_rules(dict(message))
    assert msg.encode(msg.apply_position_rules(dict(once))) == msg.encode(once)


def test_messages_are_told_apart_by_timestamp_or_by_its_key() -> None:
    assert msg.message_key({"timestamp": 1729132792}) == 1729132792
    assert msg.message_key({"timestamp": 1729132792, "timestamp.key": 1729132792.002753}) == 1729132792.002753


def test_merging_overrides_the_same_and_adds_the_new() -> None:
    old = {"timestamp": 1, "din": 0, "ain.1": 2.5}
    assert msg.merge(old, {"timestamp": 1, "din": 1, "dout": 1}) == {"timestamp": 1, "din": 1, "ain.1": 2.5, "dout": 1}
    assert old["din"] == 0


def test_position_is_an_object_of_what_begins_with_it() -> None:
    message = {"position.latitude": 54.5, "position.valid": True, "positional": 1, "timestamp": 1}
    assert msg.position_of(message) == {"latitude": 54.5, "valid": True}
