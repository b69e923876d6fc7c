"""Which fields of an item are given."""

from __future__ import annotations

import msgspec
import pytest

from gateway.api.errors import ApiError
from gateway.api.fields import FIELDS_MOST, FieldTable, ItemsQuery, paginate

ITEM = {"id": 5, "name": "car", "configuration": {"ident": "123", "a.b": 1, "deep": {"er": 2}}}
TABLE = FieldTable({name: (lambda item, name=name: item[name]) for name in ITEM}, ["id", "name"])


@pytest.mark.parametrize(
    ("fields", "view"),
    [
        ("", {"id": 5, "name": "car"}),
        ("name", {"name": "car"}),
        (" name , id ", {"name": "car", "id": 5}),
        ("configuration.ident", {"configuration.ident": "123"}),
        ("configuration.a.b,configuration.deep.er", {"configuration.a.b": 1, "configuration.deep.er": 2}),
        ("id,configuration.nothing", {"id": 5}),
        ("name.part", {}),
    ],
)
def test_fields_choose_what_is_given(fields: str, view: dict):
    """Without any: the default ones. A dotted name is a part of an object, and absent where there is no such part."""
    assert TABLE.project(ITEM, TABLE.chosen(fields)) == view


def test_an_unknown_field_is_refused_by_name():
    """With the names that there are."""
    with pytest.raises(ApiError) as raised:
        TABLE.chosen("id,nmae")
    assert raised.value.as_dict() == {
        "code": 2,
        "reason": "field is not allowed",
        "field": "nmae",
        "schema_hint": ["configuration", "id", "name"],
    }


def test_the_number_of_fields_is_limited():
    """A query is read by us, and costs."""
    with pytest.raises(ApiError, match="100 are possible"):
        TABLE.chosen(",".join(["id"] * (FIELDS_MOST + 1)))


@pytest.mark.parametrize(
    ("query", "chosen", "pagination"),
    [
        ({}, [0, 1, 2, 3, 4], {}),
        ({"limit": "2"}, [0, 1], {"pagination": {"limit": 2, "offset": 0, "count": 5}}),
        ({"limit": "2", "offset": "4"}, [4], {"pagination": {"limit": 2, "offset": 4, "count": 5}}),
        ({"offset": "9"}, [], {"pagination": {"limit": 5, "offset": 9, "count": 5}}),
    ],
)
def test_limit_and_offset_choose_a_part_of_a_list(query: dict, chosen: list[int], pagination: dict):
    """And the answer says of how many."""
    assert paginate(range(5), msgspec.convert(query, ItemsQuery, strict=False)) == (
        range(5)[slice(chosen[0], chosen[-1] + 1)] if chosen else range(5)[5:5],
        pagination,
    )
