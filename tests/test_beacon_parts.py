"""Lists of beacons in several records: put together where all parts are in one packet, kept apart where not."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.protocols.teltonika.normalize import normalizer_for
from gateway.protocols.teltonika.wire import CODEC_8_EXTENDED
from tests.builders import FrameFactory

Message = dict[str, Any]
PART, TOTAL = "ble.beacons.part.number", "ble.beacons.part.total"


def beacon(number: int) -> bytes:
    """An Eddystone with its signal strength."""
    return bytes([0x01, *[number] * 16, 0x100 - 40 - number])


def names(message: Message) -> list[int]:
    """Which of the beacons above a message has."""
    return [int(found["id"][:2], 16) for found in message["ble.beacons"]]


def packet(*parts: tuple[int, int, list[int]] | None) -> list[Message]:
    """The messages of records with part, total and beacons; None is a record without a list."""
    factory = FrameFactory(codec=CODEC_8_EXTENDED)
    records = []
    for part in parts:
        value = b"" if part is None else bytes([part[0] << 4 | part[1]]) + b"".join(map(beacon, part[2]))
        elements = [] if part is None else [(385, value)]
        records.append(factory.record(n1=[], n2=[], n4=[], n8=[], nx=elements))
    return normalizer_for("FMB120").normalize_all(records, CODEC_8_EXTENDED)


def test_the_last_of_the_parts_has_the_whole_list() -> None:
    first, second, third = packet((1, 3, [1, 2]), (2, 3, [3]), (3, 3, [4, 5]))
    assert names(third) == [1, 2, 3, 4, 5]
    assert (names(first), names(second)) == ([1, 2], [3])
    assert [(message[PART], message[TOTAL]) for message in (first, second, third)] == [(1, 3), (2, 3), (3, 3)]


def test_parts_that_come_newest_first_are_put_in_their_order() -> None:
    newest, oldest = packet((2, 2, [3]), (1, 2, [1, 2]))
    assert names(oldest) == [1, 2, 3]
    assert names(newest) == [3]


def test_lists_one_behind_the_other_stay_apart() -> None:
    messages = packet((1, 2, [1]), (2, 2, [2]), (1, 2, [3]), (2, 2, [4]), (1, 1, [5]))
    assert [names(message) for message in messages] == [[1], [1, 2], [3], [3, 4], [5]]
    assert PART not in messages[-1]


@pytest.mark.parametrize(
    "parts",
    [
        [(1, 3, [1]), (3, 3, [3])],
        [(1, 2, [1]), None, (2, 2, [2])],
        [(1, 2, [1]), (1, 2, [2])],
        [(0, 0, [1])],
        [(1, 3, [1]), (2, 2, [2])],
        [(3, 2, [1]), (2, 2, [2])],
    ],
    ids=["one is missing", "not neighbors", "twice the same", "no part of none", "another total", "beyond the total"],
)
def test_an_incomplete_list_is_left_in_its_parts(parts: list[tuple[int, int, list[int]] | None]) -> None:
    messages = packet(*parts)
    assert [names(message) for message in messages if PART in message] == [part[2] for part in parts if part]


def test_a_list_of_one_part_says_nothing_of_parts() -> None:
    (message,) = packet((1, 1, [1, 2]))
    assert names(message) == [1, 2]
    assert not {PART, TOTAL} & message.keys()
