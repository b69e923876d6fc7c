"""Every value of every AVL id of every model becomes what the table says: the dictionary against its own file."""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import message as msg
from gateway import parameters
from gateway.protocols.teltonika import rules
from gateway.protocols.teltonika.avl_ids import AvlRow, all_rows, known_models, rows_for
from gateway.protocols.teltonika.normalize import RECORD_PARAMETERS, Normalizer, normalizer_for
from tests.dictionary import STRUCTURED, WIDTHS, Row, expected, read_rows

Message = dict[str, Any]

GROUPS = dict(zip(WIDTHS, ("n1", "n2", "n4", "n8", "nx"), strict=True))
RECORD: dict[str, Any] = {
    "timestamp": 1_700_000_000_000,
    "priority": 0,
    "longitude": 252_797_000,
    "latitude": 546_872_000,
    "altitude": 112,
    "angle": 90,
    "satellites": 11,
    "speed": 50,
    "event_io_id": 0,
    **{group: [] for group in GROUPS.values()},
}
CODEC = 0x8E
ALONE = normalizer_for(None).normalize(RECORD, CODEC)
BYTES = (b"", b"\0", b"AB 12", b"\x01Jane", bytes(range(8)), b"\xff" * 17)
FAMILIES = sorted({(model.family, model.table) for model in known_models().values()})
TABLE = dict(zip(map(id, all_rows()), read_rows(), strict=True))
"""The line of the file that each row was made of."""


def of_io(normalizer: Normalizer, avl_id: int, width: int, value: int | bytes) -> Message:
    """What one IO element adds to a message."""
    message = normalizer.normalize({**RECORD, GROUPS[width]: [(avl_id, value)]}, CODEC)
    return {name: found for name, found in message.items() if name not in ALONE or ALONE[name] != found}


def check(row: AvlRow, width: int, value: int | bytes, found: Message) -> None:
    """``found`` is what the table says, or, of a structured value, parameters of the row or the value kept raw."""
    what = (row.avl_id, row.name, width, value)
    assert msg.decode(msg.encode(found)) == found, what
    if row.kind in STRUCTURED:
        assert found, what
        assert set(found) <= rules.parameters_of(row) | {f"custom.param.{row.avl_id}"}, what
    elif row.parameter in RECORD_PARAMETERS:
        assert found == ({} if value == RECORD["speed"] else {f"custom.param.{row.avl_id}": _kept(value)}), what
    else:
        assert found == expected(TABLE[id(row)], width, value), what


def _kept(value: int | bytes) -> Any:
    return value.hex() if isinstance(value, bytes) else value if value <= 2**53 else f"{value:x}"


def values_of(row: Row, width: int) -> list[int | bytes]:
    """Its documented ends, what its enumeration and its error codes name, and the ends of the width."""
    if not width:
        return list(BYTES)
    whole = 1 << (8 * width)
    named = {int(text, 0) for text in (row["min"], row["max"]) if _is_integer(text)}
    for text in row["detail"].replace("|", ",").replace(" ", ",").split(","):
        first = text.split(":")[0].split("-")[0]
        named |= {int(first)} if first.isdigit() else set()
    return sorted({value % whole for value in named | {0, 1, 2, 50, whole // 2 - 1, whole // 2, whole - 1}})


def _is_integer(text: str) -> bool:
    try:
        int(text, 0)
    except ValueError:
        return False
    return True


@functools.cache
def normalizer_of(row_id: int) -> Normalizer:
    """One that knows a single row."""
    (row,) = (row for row in all_rows() if id(row) == row_id)
    return Normalizer({row.avl_id: row})


@pytest.mark.parametrize("width", WIDTHS)
def test_each_row_reads_its_values_as_the_table_says(width: int) -> None:
    """Whatever the width: it comes from the wire. What is a part of something (joins.py) is none alone."""
    for row in (row for row in all_rows() if row.kind not in rules.JOINED):
        for value in values_of(TABLE[id(row)], width):
            check(row, width, value, of_io(normalizer_of(id(row)), row.avl_id, width, value))


@pytest.mark.parametrize(("family", "table"), FAMILIES)
def test_each_model_reads_each_id_as_its_table_says(family: str, table: str) -> None:
    """115 models share these tables; an id between others is read as it is alone."""
    model = next(name for name, found in known_models().items() if (found.family, found.table) == (family, table))
    normalizer = normalizer_for(model)
    for avl_id, row in rows_for(family, table).items():
        for width in WIDTHS:
            value: int | bytes = b"\x01A" if width == 0 else (avl_id * 37) % (1 << (8 * width))
            check(row, width, value, of_io(normalizer, avl_id, width, value))
            if width:
                check(row, width, 1, of_io(normalizer, avl_id, width, 1))


@st.composite
def elements(draw: st.DrawFn) -> tuple[str, int, int, int | bytes]:
    """A model, an AVL id that it may send or another one, a width, and a value of it."""
    model = draw(st.sampled_from(sorted(known_models())))
    found = known_models()[model]
    ids = sorted(rows_for(found.family, found.table))
    avl_id = draw(st.one_of(st.sampled_from(ids), st.integers(0, 2**16 - 1)))
    width = draw(st.sampled_from(WIDTHS))
    value = draw(st.integers(0, (1 << (8 * width)) - 1) if width else st.binary(max_size=40))
    return model, avl_id, width, value


@settings(max_examples=400)
@given(elements())
def test_any_value_of_any_id_of_any_model_is_what_the_table_says(element: tuple[str, int, int, int | bytes]) -> None:
    model, avl_id, width, value = element
    found = known_models()[model]
    row = rows_for(found.family, found.table).get(avl_id)
    parameters_found = of_io(normalizer_for(model), avl_id, width, value)
    if row is None:
        assert parameters_found == {f"custom.param.{avl_id}": _kept(value)}
    else:
        check(row, width, value, parameters_found)


def test_a_row_without_a_name_says_why() -> None:
    """Nothing is forgotten: an id is named, or there is a reason in the file why it is not."""
    silent = [row.avl_id for row in all_rows() if not row.kind and not row.ours.startswith("no name: ")]
    assert silent == []
    assert [row.avl_id for row in all_rows() if row.kind and row.ours.startswith("no name")] == []
    assert [row.avl_id for row in all_rows() if not row.kind and (row.parameter or row.scale or row.detail)] == []


def test_the_texts_of_an_enumeration_are_in_the_catalogue() -> None:
    """A number says nothing by itself; where the vendor prints no texts, the catalogue says so."""
    enums = [name for name in parameters.catalogue() if ".enum" in name and name != "event.enum"]
    assert len(enums) > 200
    told = re.compile(r"\b\d+ [a-zA-Z]|texts are not printed")
    assert [name for name in enums if not told.search(parameters.catalogue()[name].meaning)] == []


def test_an_enumeration_is_a_number() -> None:
    wrong = {name for name, found in parameters.catalogue().items() if ".enum" in name and found.type != "number"}
    assert wrong == set()


def test_a_name_of_ours_is_marked_in_the_catalogue_and_in_the_dictionary() -> None:
    """Who comes from flespi must see which names that platform does not have."""
    ours = {name for name, found in parameters.catalogue().items() if found.ours == "the name"}
    unmarked = [row.avl_id for row in all_rows() if ours.intersection(row.parameters) and not row.ours]
    assert unmarked == []


def test_no_parameter_is_read_by_kinds_that_give_different_types() -> None:
    """A consumer may rely on the type that the catalogue tells, whatever id a value comes from."""
    types = {"number": "number", "sensor": "number", "boolean": "boolean", "switch": "boolean", "text": "string",
             "hex": "string", "decimal": "string", "digits": "string"}  # fmt: skip
    found: dict[str, Counter[str]] = {}
    for row in all_rows():
        if row.kind in types:
            found.setdefault(row.parameters[0], Counter())[types[row.kind]] += 1
    assert {name: kinds for name, kinds in found.items() if len(kinds) > 1} == {}
