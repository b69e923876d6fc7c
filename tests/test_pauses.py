"""When a stream was disabled, as it is kept."""

from __future__ import annotations

from attrs import evolve

from gateway.store.item import Stream
from gateway.store.pauses import PAUSES_MOST, with_pauses

STREAM = Stream(1, "out", "http")


def test_disabling_begins_a_pause_and_enabling_ends_it():
    """Anything else leaves the pauses alone, also what tries to write them."""
    off = with_pauses(STREAM, evolve(STREAM, enabled=False), 5.5)
    assert off.pauses == [[5.5, None]]
    renamed = with_pauses(off, evolve(off, name="x", pauses=[]), 6.0)
    assert (renamed.name, renamed.pauses) == ("x", [[5.5, None]])
    on = with_pauses(renamed, evolve(renamed, enabled=True), 7.25)
    assert on.pauses == [[5.5, 7.25]]
    assert with_pauses(on, evolve(on, name="y"), 8.0).pauses == [[5.5, 7.25]]
    assert off.pauses == [[5.5, None]], "the old value stays as it was"


def test_what_is_created_disabled_pauses_from_its_beginning():
    """What comes until it is enabled is not for it."""
    assert with_pauses(None, evolve(STREAM, enabled=False), 3.0).pauses == [[3.0, None]]
    assert with_pauses(None, STREAM, 3.0).pauses == []


def test_the_last_pauses_are_kept():
    """So many, and no more."""
    stream = STREAM
    for n in range(PAUSES_MOST + 5):
        stream = with_pauses(stream, evolve(stream, enabled=False), 2.0 * n)
        stream = with_pauses(stream, evolve(stream, enabled=True), 2.0 * n + 1)
    assert stream.pauses == [[2.0 * n, 2.0 * n + 1] for n in range(5, PAUSES_MOST + 5)]
