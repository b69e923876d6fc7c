"""The description of the API is complete, valid, and comes from what requests are checked with."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from gateway.api.answers import Answer
from gateway.api.fields import ItemsQuery
from gateway.api.nouns import operations
from gateway.api.openapi import describe
from gateway.api.operations import Operation, Right


async def nothing(call) -> Answer:
    return Answer()


class Range(Struct, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1, le=1000)] = 10


class New(Struct, forbid_unknown_fields=True):
    name: str


class Thing(Struct):
    id: int


THINGS = [
    Operation(
        "GET", "/gw/things/{things}", nothing, "Things", access=Right("gw/things"), query=ItemsQuery, result=Thing
    ),
    Operation("POST", "/gw/things", nothing, "Create", access=Right("gw/things"), body=list[New], result=Thing),
    Operation("GET", "/gw/things/{things}/messages", nothing, "Messages", access=Right("gw/things"), data=Range),
    Operation("GET", "/health", nothing, "Health", is_bare=True),
]


def test_an_operation_is_described_by_its_types():
    """Path, query, data, body and result."""
    described = describe(THINGS)
    things = described["paths"]["/gw/things/{things}"]["get"]
    assert [(parameter["name"], parameter["in"]) for parameter in things["parameters"]] == [
        ("things", "path"),
        ("fields", "query"),
        ("limit", "query"),
        ("offset", "query"),
    ]
    assert things["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["result"]["items"] == {
        "$ref": "#/components/schemas/Thing"
    }
    body = described["paths"]["/gw/things"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"type": "array", "items": {"$ref": "#/components/schemas/New"}}
    assert described["components"]["schemas"]["New"]["additionalProperties"] is False
    data = described["paths"]["/gw/things/{things}/messages"]["get"]["parameters"][-1]
    assert (data["name"], data["in"]) == ("data", "query")
    assert described["components"]["schemas"]["Range"]["properties"]["count"]["maximum"] == 1000


def test_what_needs_no_token_says_so():
    """And has no refusals for want of one."""
    health = describe(THINGS)["paths"]["/health"]["get"]
    assert health["security"] == []
    assert "401" not in health["responses"]


def references(value: Any) -> set[str]:
    """All that a document refers to."""
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_operation_of_the_gateway_is_described():
    """Each once, each with a summary, and every reference leads somewhere."""
    described = msgspec.json.decode(msgspec.json.encode(describe(operations())))
    found = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert found == {(operation.method, operation.path) for operation in operations()}
    assert all(operation.summary for operation in operations())
    known = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    assert references(described) <= known
