"""Lists of beacons that are split over several records (AVL id 385): the parts of one packet are put together.

A list that is too long for one record comes in records one behind the other, and each says which part of how many it
has. Where all parts of a list come in one packet, in whatever order, the last message of them has the whole list; the
others keep their parts. That is the message that counts where messages with the same time are merged. Parts in
different packets stay apart: nothing is kept between packets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

LIST, PART, TOTAL = "ble.beacons", "ble.beacons.part.number", "ble.beacons.part.total"

Message = dict[str, Any]


def join_parts(messages: Sequence[Message]) -> None:
    """Give the last message of each complete list of ``messages``, those of one packet in its order, the whole list."""
    for run in _runs(messages):
        parts = {message[PART]: message[LIST] for message in run}
        total = run[-1][TOTAL]
        if len(run) == total and parts.keys() == set(range(1, total + 1)):
            run[-1][LIST] = [beacon for number in sorted(parts) for beacon in parts[number]]


def _runs(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Neighbors that can be the parts of one list: of the same total, each part once."""
    run: list[Message] = []
    for message in messages:
        total = message.get(TOTAL)
        if run and (run[-1][TOTAL] != total or any(part[PART] == message[PART] for part in run)):
            yield run
            run = []
        if total is not None:
            run.append(message)
    if run:
        yield run
