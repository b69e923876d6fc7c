"""``/storage/expressions`` over HTTP: the functions, and expressions tried on messages."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.api.parts import Parts
from gateway.expressions import FUNCTIONS
from gateway.store.access import Access
from gateway.store.failures import Failures
from gateway.store.tokens import Tokens
from tests.rest import MASTER, Rest, serving

PATH = "/storage/expressions/test"


@pytest.fixture
def rest(run, redis):
    """Requests to the API."""

    def request(method: str, path: str, *, status: int = 200, **options: Any) -> dict[str, Any]:
        async def answer() -> dict[str, Any]:
            async with serving(Parts(tokens=Tokens(redis, MASTER), failures=Failures())) as there:
                return await asked(there)

        async def asked(there: Rest) -> dict[str, Any]:
            response = await there.request(method, path, **options)
            assert response.status_code == status, response.text
            return response.json()

        return run(answer())

    return request


def test_functions_are_listed(rest):
    """In flespi's form."""
    functions = rest("GET", "/storage/expressions/functions")["result"]
    assert [function["name"] for function in functions] == list(FUNCTIONS)
    assert {
        "name": "distance_to",
        "usage": "distance_to(lat, lon)",
        "description": "kilometers between the message's position and this one",
        "arguments": {"min": 2, "max": 2},
    } in functions


def test_an_expression_is_tried_on_messages(rest):
    """A value of each kind, or why there is none."""
    messages = [{"speed": 10, "on": True}, {"speed": 0}, {"on": None}, {"speed": 5, "on": [1]}, {"speed": "x"}]
    body = {"expression": "speed / 4 > 0 ? $on : 'stands'", "input": messages, "timezone": "UTC"}
    assert rest("POST", PATH, json=body) == {
        "result": [
            {"index": 0, "code": 0, "result": True},
            {"index": 1, "code": 0, "result": "stands"},
            {"index": 2, "code": 1, "error": {"column": 1, "reason": "the message has no speed"}},
            {"index": 3, "code": 0, "result": [1]},
            {"index": 4, "code": 1, "error": {"column": 7, "reason": "a text is no number; tonumber() reads one"}},
        ]
    }


def test_null_is_a_result(rest):
    """Not the same as none."""
    body = {"expression": "$nothing", "input": {}}
    assert rest("POST", PATH, json=body)["result"] == [{"index": 0, "code": 0, "result": None}]


def test_without_a_message_the_expression_is_only_compiled(rest):
    """As flespi's tool for expressions asks first."""
    assert rest("POST", PATH, json={"expression": "1 + speed", "input": []}) == {"result": []}
    assert rest("POST", PATH, json={"expression": "1 + speed"}) == {"result": []}


def test_a_wrong_expression_is_refused_with_its_column(rest):
    """The same error for all messages."""
    answer = rest("POST", PATH, json={"expression": "1 +* speed", "input": [{}, {}]}, status=400)
    assert answer["result"] == []
    (error,) = answer["errors"]
    assert (error["code"], error["column"], error["field"]) == (2, 4, "expression")
    assert error["reason"].startswith("found '*', expected a value")


def test_times_are_of_the_timezone(rest):
    """Of the request; UTC without one."""
    body = {"expression": "hour()", "input": {"timestamp": 1700000000}}
    assert rest("POST", PATH, json=body)["result"][0]["result"] == 22
    assert rest("POST", PATH, json={**body, "timezone": "Europe/Vilnius"})["result"][0]["result"] == 0


@pytest.mark.parametrize("name", ["Mars/Olympus", "../UTC", "Europe", "", "/etc/passwd", "a\0b"])
def test_an_unknown_timezone_is_refused(rest, name: str):
    """By its field."""
    answer = rest("POST", PATH, json={"expression": "1", "timezone": name}, status=400)
    assert answer["errors"][0]["field"] == "timezone"
    assert "Europe/Vilnius" in answer["errors"][0]["reason"]


def test_each_message_is_the_previous_one_of_the_next(rest):
    """So that ``#name`` and ``duration()`` can be tried."""
    messages = [{"timestamp": 10, "din": 1}, {"timestamp": 15, "din": 2}, {"timestamp": 17, "din": 4}]
    results = rest("POST", PATH, json={"expression": "din - #din + duration()", "input": messages})["result"]
    assert [result.get("result") for result in results] == [None, 6, 4]
    assert results[0]["error"]["reason"] == "no previous message is known here"


def test_several_expressions_are_tried_at_once(rest):
    """Each succeeds or fails by itself; the index is its place."""
    answer = rest(
        "POST",
        PATH,
        json=[
            {"expression": "a + 1", "input": {"a": 1}},
            {"expression": "a +", "input": {"a": 1}},
            {"expression": "a * 2", "input": [{"a": 2}, {}], "timezone": "Asia/Tokyo"},
            {"expression": "1", "timezone": "nowhere"},
        ],
    )
    assert [(result["index"], result["code"], result.get("result")) for result in answer["result"]] == [
        (0, 0, 2),
        (2, 0, 4),
        (2, 1, None),
    ]
    assert [(error["index"], error["field"]) for error in answer["errors"]] == [(1, "expression"), (3, "timezone")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": []},
        {"expression": 5},
        {"expression": "1", "input": [5]},
        {"expression": "1", "input": "message"},
        {"expression": "1", "messages": []},
        {"expression": "1", "timezone": "x" * 100},
        [{"expression": "1"}] * 101,
        "1",
    ],
)
def test_what_is_not_of_the_form_is_refused(rest, body: Any):
    """Before anything is evaluated."""
    assert rest("POST", PATH, json=body, status=400)["errors"][0]["code"] == 2


def test_an_expression_that_is_too_long_is_refused_like_any_other(rest):
    """With the column where it is too long."""
    answer = rest("POST", PATH, json={"expression": "1" + " " * 4096}, status=400)
    assert answer["errors"][0]["column"] == 4097


@pytest.mark.parametrize(
    ("acl", "status"),
    [
        ([{"uri": "storage/expressions", "methods": ["GET", "POST"]}], 200),
        ([{"uri": "storage/expressions", "methods": ["GET"]}], 403),
        ([{"uri": "gw/devices", "methods": ["GET", "POST"]}], 403),
    ],
)
def test_a_token_may_be_without_the_right(run, redis, acl: list[Any], status: int):
    """As for every other noun."""

    async def asked() -> int:
        tokens = Tokens(redis, MASTER)
        _, key = await tokens.create(time.time(), access=Access.from_json({"type": 2, "acl": acl}))
        async with serving(Parts(tokens=tokens, failures=Failures())) as there:
            return (await there.request("POST", PATH, json={"expression": "1"}, key=key)).status_code

    assert run(asked()) == status


def test_without_a_token_nothing_is_evaluated(rest):
    """It costs time."""
    assert rest("POST", PATH, json={"expression": "1"}, key=None, status=401)["errors"][0]["code"] == 1
