"""Which parameters a list of names and masks means."""

from __future__ import annotations

import pytest

from gateway.store import masks as module
from gateway.store.masks import Masks

NAMES = ["position", "position.speed", "can.fuel.level", "can.speed", "din"]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("all", NAMES),
        ("*", NAMES),
        ("din", ["din"]),
        ("can.*", ["can.fuel.level", "can.speed"]),
        ("*.speed , din", ["position.speed", "can.speed", "din"]),
        ("d?n", ["din"]),
        ("position", ["position"]),
        ("nothing,,", []),
        ("", []),
        (" , ", []),
        ("din,all", NAMES),
    ],
)
def test_a_list_chooses_by_name_and_by_mask(text: str, chosen: list[str]):
    """Spaces around a name, and empty ones, do not count."""
    masks = Masks.parse(text)
    assert [name for name in NAMES if masks.choose(name)] == chosen
    assert [name for name in NAMES if masks.choose(name)] == chosen, "also when asked again"


def test_only_plain_names_can_be_asked_for_by_name():
    """Redis knows no masks in a hash."""
    assert Masks.parse("a, b").plain == ["a", "b"]
    assert Masks.parse("a,b*").plain is None
    assert Masks.parse("all").plain is None
    assert Masks.parse("").plain == []


def test_what_is_remembered_has_a_bound(monkeypatch):
    """Names come from outside."""
    monkeypatch.setattr(module, "REMEMBERED", 10)
    masks = Masks.parse("a*")
    for n in range(100):
        assert masks.choose(f"a{n}")
        assert len(masks._known) <= 10
