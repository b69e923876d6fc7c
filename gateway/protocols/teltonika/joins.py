"""Values of one record that mean something only together, or that claim the same parameter.

A join is several AVL ids that make one parameter: the two halves of an ICCID, the parts of a VIN, the type and the
value of an eco driving event. Where a part is missing or is no text, each part that is there is kept raw.

Claims to the same parameter are settled the same way whatever the order on the wire: a value that says something wins
over false, zero and nothing; between two that do, the lower rank wins, which is the AVL id's except for those in
``_FIRST``. The loser is kept raw where it says something else. Lists are put one behind the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from gateway.errors import DecodeError
from gateway.protocols.teltonika import payloads
from gateway.protocols.teltonika.avl_ids import AvlRow
from gateway.protocols.teltonika.rules import JOINED, Rule, parameters_of
from gateway.protocols.teltonika.values import Message, as_bytes, keep_raw

# 636 is the whole cell id of LTE and UMTS, of which 205 has what fits into two bytes.
_FIRST = {636: 0}

# Made bit by bit of several ids.
_MASKS = frozenset({"din", "dout"})

# AVL id: its rule, its width in bytes and its value.
Parts = Mapping[int, tuple[Rule, int, Any]]


@attrs.frozen
class Join:
    """``ids`` in their order; ``read`` gives the parameters, or raises DecodeError or KeyError (a part is missing)."""

    ids: tuple[int, ...]
    read: Callable[[Parts], Message]

    def apply(self, message: Message, parts: Parts) -> None:
        try:
            message.update(self.read(parts))
        except (DecodeError, LookupError, ValueError, TypeError, OverflowError, AttributeError):
            for avl_id, (_, _, value) in parts.items():
                keep_raw(message, avl_id, value)


def find_joins(rows: Iterable[AvlRow]) -> dict[int, Join]:
    """The join that each AVL id of ``rows`` belongs to."""
    groups: dict[str, list[AvlRow]] = defaultdict(list)
    for row in rows:
        if row.kind in JOINED:
            groups["harsh" if row.kind.startswith("harsh") else row.parameter].append(row)
    joins = (_make_join(group) for group in groups.values())
    return {avl_id: join for join in joins for avl_id in join.ids}


def _make_join(group: list[AvlRow]) -> Join:
    ids = tuple(row.avl_id for row in sorted(group, key=lambda row: (row.detail, row.avl_id)))
    kind = group[0].kind
    if kind.startswith("harsh"):
        return Join(ids, _read_harsh)
    name = group[0].parameter
    if kind == "iccid":
        return Join(ids, lambda parts: {name: _read_iccid(*(parts[avl_id][2] for avl_id in ids))})
    if kind == "name_part":
        return Join(ids, lambda parts: {name: _read_full_name(ids, parts)})
    return Join(ids, lambda parts: {name: payloads.read_text(b"".join(_bytes_of(parts[avl_id]) for avl_id in ids))})


def _bytes_of(part: tuple[Rule, int, Any]) -> bytes:
    _, width, value = part
    return as_bytes(value, width)


def _read_iccid(high: int, low: int) -> str:
    """AVL ids 11 and 14: the decimal digits of both, the second one's with the zeros that lead them.

    19 or 20 digits; where a SIM is missing both are 0, and the text is empty.
    """
    return f"{high}{low:010d}" if high or low else ""


def _read_full_name(ids: tuple[int, ...], parts: Parts) -> str:
    """Name and surname; one of them is enough."""
    names = [payloads.read_name(_bytes_of(parts[avl_id])) for avl_id in ids if avl_id in parts]
    return " ".join(name for name in names if name)


_HARSH = {1: "harsh.acceleration.event", 2: "harsh.braking.event", 3: "harsh.cornering.event"}


def _read_harsh(parts: Parts) -> Message:
    """AVL ids 253 (type) and 254 (value in g times 100; of a cornering that GNSS saw, rad/s times 100)."""
    kind = parts[253][2] if 253 in parts else 0
    message: Message = {_HARSH[kind]: True} if 253 in parts else {}
    if 254 in parts:
        message["harsh.cornering.angle" if kind == 3 else "absolute.acceleration"] = parts[254][2] / 100
    return message


def make_echo(row: AvlRow) -> Rule:
    """For an id that repeats what the record says itself: its value is kept only where it says something else."""

    def echo(message: Message, value: Any) -> None:
        if message.get(row.parameter) != value:
            keep_raw(message, row.avl_id, value)

    return echo


def find_rivals(rows: Iterable[AvlRow]) -> dict[int, frozenset[int]]:
    """The AVL ids of ``rows`` that can share a parameter with other ids, and with which; those in a join aside."""
    owners: dict[str, set[int]] = defaultdict(set)
    joined: set[int] = set()
    for row in rows:
        if row.kind in JOINED:
            joined.add(row.avl_id)
        for name in parameters_of(row):
            owners[name].add(row.avl_id)
    rivals: dict[int, set[int]] = defaultdict(set)
    for name, ids in owners.items():
        if len(ids) > 1 and name not in _MASKS:
            for avl_id in ids - joined:
                rivals[avl_id] |= ids - {avl_id}
    return {avl_id: frozenset(others) for avl_id, others in rivals.items()}


def settle(message: Message, claims: Parts) -> None:
    """Let each of ``claims`` put its parameters into ``message``, by rank."""
    owners: dict[str, tuple[int, Any]] = {}
    for avl_id in sorted(claims, key=lambda avl_id: _FIRST.get(avl_id, avl_id)):
        rule, _, value = claims[avl_id]
        claim = (avl_id, value)
        found: Message = {}
        rule(found, value)
        for name, meaning in found.items():
            if name not in message:
                message[name] = meaning
                owners[name] = claim
            elif message[name] != meaning:
                loser = _contest(message, owners, name, meaning, claim)
                if loser is not None:
                    keep_raw(message, *loser)


def _contest(
    message: Message, owners: dict[str, tuple[int, Any]], name: str, meaning: Any, claim: tuple[int, Any]
) -> tuple[int, Any] | None:
    """Put another value of a parameter, or not; give the claim that lost, if something would be lost with it."""
    if isinstance(meaning, list):
        message[name] = [*message[name], *meaning]
        return None
    if message[name] or not meaning or name not in owners:
        return claim
    loser, owners[name] = owners[name], claim
    message[name] = meaning
    return loser
