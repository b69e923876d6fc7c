"""Failures that come again and again: which are told."""

from __future__ import annotations

from gateway.channel.repeats import KINDS_MOST, TOLD_EVERY, Repeats


def test_the_first_of_each_kind_is_told_and_then_one_in_a_while_with_the_number_of_the_others():
    """So that a flood is one line, and a tracker's failure is not lost among those of scanners."""
    time = 0.0
    repeats = Repeats(lambda: time)
    assert repeats.tell("not TLS") == ""
    assert [repeats.tell("not TLS") for _ in range(3)] == [None] * 3
    assert repeats.tell("version") == ""
    time = TOLD_EVERY
    assert repeats.tell("not TLS") == " (3 more like it since the last such line)"
    assert repeats.tell("not TLS") is None
    time = 3 * TOLD_EVERY
    assert repeats.tell("version") == ""
    assert repeats.tell("not TLS") == " (1 more like it since the last such line)"


def test_kinds_are_bounded():
    """Whatever is taken for a kind."""
    repeats = Repeats(lambda: 0.0)
    assert [repeats.tell(str(n)) for n in range(KINDS_MOST)] == [""] * KINDS_MOST
    assert repeats.tell("one more") is None
