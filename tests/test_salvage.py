"""Any record, sound or not, becomes a message that JSON holds, and nothing of it vanishes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import message as msg
from gateway.protocols.teltonika.avl_ids import all_rows, known_models
from gateway.protocols.teltonika.normalize import normalizer_for
from gateway.protocols.teltonika.wire import CODEC_8, CODEC_8_EXTENDED
from tests.test_normalize import Message, io

IDS = st.sampled_from(sorted({row.avl_id for row in all_rows()})) | st.integers(0, 2**16 - 1)


def group(width: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    edges = st.sampled_from([0, 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1])
    return st.lists(st.tuples(IDS, edges | st.integers(0, 2 ** (8 * width) - 1)), max_size=12)


RECORDS = st.fixed_dictionaries(
    {
        "timestamp": st.integers(0, 2**64 - 1),
        "priority": st.integers(0, 255),
        "longitude": st.integers(-(2**31), 2**31 - 1),
        "latitude": st.integers(-(2**31), 2**31 - 1),
        "altitude": st.integers(-(2**15), 2**15 - 1),
        "angle": st.integers(0, 2**16 - 1),
        "satellites": st.integers(0, 255),
        "speed": st.integers(0, 2**16 - 1),
        "event_io_id": st.integers(0, 2**16 - 1),
        "n1": group(1),
        "n2": group(2),
        "n4": group(4),
        "n8": group(8),
        "nx": st.lists(st.tuples(IDS, st.binary(max_size=40)), max_size=6),
    }
)
MODEL_NAMES = st.sampled_from([None, "unknown", *sorted(known_models())])


@settings(max_examples=300, deadline=None)
@given(record=RECORDS, model=MODEL_NAMES)
def test_every_record_becomes_a_message_that_json_holds(record: Message, model: str | None) -> None:
    """No exception, no NaN, nothing that a reader of JSON would see differently; and no id without a trace."""
    normalizer = normalizer_for(model)
    message = normalizer._normalize(record, CODEC_8_EXTENDED)
    assert normalizer.normalize(record, CODEC_8_EXTENDED) == message
    assert json.loads(msg.encode(message)) == message
    assert msg.apply_position_rules(dict(message)) == message
    exact = (value for name, value in message.items() if isinstance(value, int) and name != "timestamp")
    assert all(abs(value) <= 2**53 for value in exact)


@settings(max_examples=200, deadline=None)
@given(avl_id=IDS, value=st.integers(0, 2**16 - 1), model=MODEL_NAMES)
def test_no_id_vanishes(avl_id: int, value: int, model: str | None) -> None:
    echoed = avl_id == 24 and value == 50
    assert echoed or io(model, n2=[(avl_id, value)])


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
ODD_GROUP = st.lists(st.tuples(IDS, GARBAGE) | GARBAGE, max_size=4) | GARBAGE
ODD_RECORDS = GARBAGE | st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("n1", "n2", "n4", "n8", "nx"), ODD_GROUP) | dict.fromkeys(("timestamp", "speed"), GARBAGE),
)


@settings(max_examples=300, deadline=None)
@given(record=ODD_RECORDS, codec_id=st.integers(0, 255) | GARBAGE)
def test_what_is_no_record_becomes_a_message_as_well(record: Any, codec_id: Any) -> None:
    """Whatever hands it in: normalization never raises, and what it gives can be encoded."""
    message = normalizer_for("FMB120").normalize(record, codec_id)
    assert isinstance(json.loads(msg.encode(message)), dict)


@given(st.lists(st.tuples(IDS, GARBAGE), max_size=4))
def test_an_element_that_is_none_of_its_width_is_kept(elements: list[tuple[int, Any]]) -> None:
    record: Message = {"n1": elements}
    message = normalizer_for("FMB120").normalize(record, CODEC_8)
    odd = {avl_id for avl_id, value in elements if type(value) is not int or not 0 <= value < 256}
    assert all(f"custom.param.{avl_id}" in message for avl_id in odd)
