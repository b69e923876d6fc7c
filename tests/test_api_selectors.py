"""Which items a selector means."""

from __future__ import annotations

import asyncio

import pytest

from gateway.api.errors import ApiError
from gateway.api.fields import FieldTable
from gateway.api.selectors import IDS_MOST, TESTS_MOST, select
from gateway.store.ordered import Turn

ITEMS = {
    1: {"id": 1, "name": "car one", "enabled": True, "speed": 50, "configuration": {"ident": "352625000000001"}},
    2: {"id": 2, "name": "car, two", "enabled": False, "speed": 80.5, "configuration": {"ident": "352625000000002"}},
    3: {"id": 3, "name": "truck", "enabled": True, "speed": None, "configuration": {"ident": "860000000000003"}},
}
TABLE = FieldTable({name: (lambda item, name=name: item[name]) for name in ITEMS[1]}, ["id"])


@pytest.fixture
def chosen(run):
    """The ids that a selector chooses, and those that it is refused."""

    def choose(text: str, permitted: frozenset[int] | None = None) -> tuple[list[int], list[int]]:
        items, errors = run(select(text, ITEMS, TABLE, permitted, turn=Turn(), legacy={"ident": "configuration.ident"}))
        return sorted(item["id"] for item in items), [error.details["id"] for error in errors]

    return choose


@pytest.mark.parametrize(
    ("selector", "ids"),
    [
        ("all", [1, 2, 3]),
        ("2", [2]),
        ("3,1", [1, 3]),
        ("1,1,1", [1]),
        ("1, 3", [1, 3]),
        ("name=truck", [3]),
        ("name=car*", [1, 2]),
        ("name=?ruck", [3]),
        ("name=*", [1, 2, 3]),
        ("name=nothing", []),
        ('name="car, two"', [2]),
        ("name='car, two'", [2]),
        ("enabled=true", [1, 3]),
        ("enabled=false", [2]),
        ("speed=50", [1]),
        ("speed=80.5", [2]),
        ("speed=null", [3]),
        ('configuration.ident="352625000000001"', [1]),
        ("configuration.ident=352625*", [1, 2]),
        ("ident=860000000000003", [3]),
        ("enabled=true,configuration.ident=352625*", [1]),
        ("3,configuration.ident=352625*,enabled=false", [2, 3]),
        ('{name=="truck" || speed > 60}', [2, 3]),
        ('{name ~ "car*" && enabled}', [1]),
        ("{speed > 60},enabled=true", []),
        ("1,all", [1, 2, 3]),
        ("{configuration.ident ~ '86*'}", [3]),
    ],
)
def test_a_selector_chooses_items(chosen, selector: str, ids: list[int]):
    """Ids are alternatives; conditions must all hold."""
    assert chosen(selector) == (ids, [])


def test_an_explicit_id_that_does_not_exist_is_an_error(chosen):
    """The others are found nevertheless; what a condition does not match is no error."""
    assert chosen("1,99,2") == ([1, 2], [99])


@pytest.mark.parametrize(
    ("selector", "ids", "refused"),
    [("all", [2], []), ("1,2,99", [2], [1, 99]), ("enabled=true", [], []), ("{speed > 0}", [2], [])],
)
def test_items_that_a_token_may_not_reach_do_not_exist(chosen, selector: str, ids: list[int], refused: list[int]):
    """An id that is not permitted and one that is not there get the same answer."""
    assert chosen(selector, frozenset({2})) == (ids, refused)


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        ("everything", "it should be all, ids"),
        ("1,,2", "it should be all, ids"),
        ("-1", "it should be all, ids"),
        ("1.5", "it should be all, ids"),
        ("{name ==", "it should be all, ids"),
        ("{name ==}", "column"),
        ("colour=red", "field is not allowed"),
        ("1" * 30, "it should be all, ids"),
        (",".join(["1"] * (IDS_MOST + 1)), "10000 are possible"),
        (",".join(["name=*"] * (TESTS_MOST + 1)), "51 conditions and expressions; 50 are possible"),
        ("", "it should be all, ids"),
        ("x" * 200_000, "a selector of 200000 characters"),
        ("\uff11", "it should be all, ids"),
    ],
)
def test_a_wrong_selector_is_refused(chosen, selector: str, reason: str):
    """With the forms that there are."""
    with pytest.raises(ApiError, match=reason) as raised:
        chosen(selector)
    assert raised.value.status == 400


def test_a_selector_that_asks_much_lets_others_have_their_turn(run):
    """Trackers wait for their acknowledgements meanwhile."""

    async def turns_of_others() -> int:
        items = dict.fromkeys(range(20_000), ITEMS[1])
        selecting = asyncio.ensure_future(select(",".join(["name=*"] * TESTS_MOST), items, TABLE, turn=Turn()))
        turns = 0
        while not selecting.done():
            await asyncio.sleep(0)
            turns += 1
        assert len((await selecting)[0]) == len(items)
        return turns

    assert run(turns_of_others()) > 50
