"""Selectors: which items a path means (flespi's REST documentation, "selectors").

``all`` · ``1,2,3`` · ``name=car*`` · ``configuration.ident="3526*"`` · ``enabled=true`` · ``{position.speed > 0}``, and
several of them with commas between: ids are alternatives to each other, conditions must all hold, and where both stand
there, an item is chosen by its id or by fulfilling the conditions.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import orjson
from attrs import define, field

from gateway.api.errors import ApiError
from gateway.api.fields import FieldTable
from gateway.expressions import ExpressionError, compile_expression, wildcard
from gateway.store.ordered import Turn

LENGTH_MOST = 100_000
IDS_MOST = 10_000
TESTS_MOST = 50
"""Conditions and expressions: each may be asked of a hundred thousand items."""
SLICE = 0.002
"""Seconds of looking at items after which others have their turn."""
ID = re.compile(r"\d{1,18}", re.ASCII)
CONDITION = re.compile(r"(?P<name>[A-Za-z_][\w.\-]*)=(?P<value>.*)", re.DOTALL)
FORMS = 'all, ids such as 1,2, a condition such as name=car*, or an expression such as {name == "car"}'

Item = TypeVar("Item")
Test = Callable[[Any], bool]


@define
class Selector:
    """A parsed one. ``is_all`` chooses everything."""

    is_all: bool = False
    ids: list[int] = field(factory=list)
    conditions: list[tuple[str, str]] = field(factory=list)
    expressions: list[str] = field(factory=list)


def parse(text: str) -> Selector:
    """Raises ApiError that says what is wrong."""
    if not text or len(text) > LENGTH_MOST:
        raise ApiError.bad_request(f"a selector of {len(text)} characters; it should be {FORMS}")
    selector = Selector()
    for part in _split(text):
        _add(selector, part.strip())
    if len(selector.ids) > IDS_MOST:
        raise ApiError.bad_request(f"the selector has {len(selector.ids)} ids; {IDS_MOST} are possible in one call")
    tests = len(selector.conditions) + len(selector.expressions)
    if tests > TESTS_MOST:
        raise ApiError.bad_request(f"the selector has {tests} conditions and expressions; {TESTS_MOST} are possible")
    return selector


def _add(selector: Selector, part: str) -> None:
    condition = CONDITION.fullmatch(part)
    if part == "all":
        selector.is_all = True
    elif ID.fullmatch(part):
        selector.ids.append(int(part))
    elif part.startswith("{") and part.endswith("}"):
        selector.expressions.append(part[1:-1])
    elif condition is not None:
        selector.conditions.append((condition["name"], _unquoted(condition["value"])))
    else:
        raise ApiError.bad_request(f"selector {part[:200]!r}: it should be {FORMS}")


def _split(text: str) -> list[str]:
    """At commas that stand neither in quotes nor in braces."""
    parts, start, depth, quote = [], 0, 0, ""
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote and text[at - 1] != "\\" else quote
        elif sign in "\"'" and (depth or text[at - 1 : at] == "="):
            quote = sign
        elif sign in "{}":
            depth += 1 if sign == "{" else -1
        elif sign == "," and depth <= 0:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'" else value


async def select(
    text: str,
    items: Mapping[int, Item],
    table: FieldTable,
    permitted: frozenset[int] | None = None,
    *,
    turn: Turn,
    legacy: Mapping[str, str] | None = None,
) -> tuple[list[Item], list[ApiError]]:
    """The chosen items, and an error for each explicit id that does not exist or is not ``permitted`` (None: all are).

    ``table`` reads the fields of an item. ``turn`` is taken where there is much to look at. ``legacy`` are old names of
    fields, such as ``ident`` for ``configuration.ident``. Raises ApiError where the selector is wrong.
    """
    selector = parse(text)
    chosen: dict[int, Item] = {}
    errors = []
    for item_id in selector.ids:
        item = items.get(item_id)
        if item is None or not _is_permitted(item_id, permitted):
            errors.append(ApiError.denied(item_id))
        else:
            chosen[item_id] = item
    tests = [*_condition_tests(selector, table, legacy or {}), *_expression_tests(selector, table)]
    if selector.is_all:
        chosen.update(items if permitted is None else {id: items[id] for id in sorted(permitted) if id in items})
    elif tests:
        chosen.update(await _matching(items, tests, permitted, turn))
    return list(chosen.values()), errors


async def _matching(
    items: Mapping[int, Item], tests: list[Test], permitted: frozenset[int] | None, turn: Turn
) -> dict[int, Item]:
    found: dict[int, Item] = {}
    rest = iter(list(items if permitted is None else sorted(permitted)))
    is_done = _look(items, rest, tests, found)
    while not is_done:
        async with turn:
            is_done = _look(items, rest, tests, found)
    return found


def _look(items: Mapping[int, Item], rest: Iterator[int], tests: list[Test], found: dict[int, Item]) -> bool:
    """Look at the ``rest`` of the items for one slice of time; whether that was all of it."""
    end = time.perf_counter() + SLICE
    for item_id in rest:
        item = items.get(item_id)  # it may have been deleted meanwhile
        if item is not None and all(test(item) for test in tests):
            found[item_id] = item
        if time.perf_counter() > end:
            return False
    return True


def _is_permitted(item_id: int, permitted: frozenset[int] | None) -> bool:
    return permitted is None or item_id in permitted


def _condition_tests(selector: Selector, table: FieldTable, legacy: Mapping[str, str]) -> list[Test]:
    return [_condition_test(legacy.get(name, name), value, table) for name, value in selector.conditions]


def _condition_test(name: str, wanted: str, table: FieldTable) -> Test:
    if name.partition(".")[0] not in table.readers:
        raise ApiError.bad_request("field is not allowed", field=name[:200], schema_hint=sorted(table.readers))
    matches = wildcard(wanted) if "*" in wanted or "?" in wanted else wanted.__eq__

    def test(item: Any) -> bool:
        value = table.project(item, [name]).get(name)
        return bool(matches(value if isinstance(value, str) else orjson.dumps(value).decode()))

    return test


def _expression_tests(selector: Selector, table: FieldTable) -> list[Test]:
    return [_expression_test(text, table) for text in selector.expressions]


def _expression_test(text: str, table: FieldTable) -> Test:
    try:
        expression = compile_expression(text)
    except ExpressionError as error:
        raise ApiError.bad_request(f"selector {{{text[:200]}}}: column {error.column}: {error.reason}") from None
    names = sorted(name for name in expression.names if name.partition(".")[0] in table.readers)
    return lambda item: expression.is_true(table.project(item, names))
