"""AVL record to message: flespi's names, units and scales, by the device's model.

``normalizer_for(model).normalize(record, codec_id)`` takes what wire.py gives, ``normalize_all`` the records of a
packet. They never raise: what has no meaning, or another one than expected, is in ``custom.param.<id>``, so nothing
that was on the wire is dropped without a trace.

A packet may bring hundreds of records within a few milliseconds, so one IO element costs a dict lookup and a branch in
the usual cases (slots.py). Only the rest calls a rule (rules.py), after all elements are read: by then the last of two
elements with the same id has won, and values that belong together are all there (joins.py).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.protocols.teltonika import joins, rules, salvage, slots
from gateway.protocols.teltonika.avl_ids import AvlRow, find_model, rows_for
from gateway.protocols.teltonika.beacon_parts import PART, join_parts
from gateway.protocols.teltonika.values import Message, keep_raw

Record = Mapping[str, Any]

CODEC_16 = 0x10

_DEGREE = 10_000_000
_NORTH, _EAST = 90 * _DEGREE, 180 * _DEGREE

# Said by every record itself. An AVL id that says it again (24, speed) is kept raw where it says something else.
RECORD_PARAMETERS = (
    "codec.id",
    "event.enum",
    "event.priority.enum",
    "generation.type.enum",
    "position.altitude",
    "position.direction",
    "position.latitude",
    "position.longitude",
    "position.satellites",
    "position.skipped",
    "position.speed",
    "position.valid",
    "timestamp",
)


class Normalizer:
    """The normalization of one family and table. Holds no state between records."""

    def __init__(self, rows: Mapping[int, AvlRow]) -> None:
        self._joins = joins.find_joins(rows.values())
        self._rivals = joins.find_rivals(rows.values())
        self._n1, self._n2, self._n4, self._n8, self._nx = (
            {row.avl_id: self._make_slot(row, width) for row in rows.values() if row.kind or row.signed}
            for width in (1, 2, 4, 8, 0)
        )

    def _make_slot(self, row: AvlRow, width: int) -> slots.Slot:
        if row.parameter in RECORD_PARAMETERS:
            return slots.LATER, "", joins.make_echo(row)
        return slots.make_slot(row, width, row.avl_id in self._joins or row.avl_id in self._rivals)

    def normalize(self, record: Record, codec_id: int) -> Message:
        """The message of ``record``, without what only the channel knows (ident, peer, reception)."""
        try:
            return self._normalize(record, codec_id)
        except Exception:  # whatever it is, a record must not be lost over it
            return self._salvage(record, codec_id)

    def normalize_all(self, records: Iterable[Record], codec_id: int) -> list[Message]:
        """The messages of one packet's records, in their order; what is split over several of them is put together."""
        normalize = self.normalize
        messages = [normalize(record, codec_id) for record in records]
        if any(PART in message for message in messages):
            join_parts(messages)
        return messages

    def _normalize(self, record: Record, codec_id: int) -> Message:
        message = begin_message(record, codec_id)
        later: slots.Later = {}
        together: slots.Together = {}
        slots.take(message, record["n1"], self._n1, later, together)
        slots.take(message, record["n2"], self._n2, later, together)
        slots.take(message, record["n4"], self._n4, later, together)
        if record["n8"]:
            slots.take(message, record["n8"], self._n8, later, together)
        if record.get("nx"):
            slots.take(message, record["nx"], self._nx, later, together)
        for rule, value in later.values():
            rule(message, value)
        if together:
            self._take_together(message, together)
        return message

    def _take_together(self, message: Message, together: slots.Together) -> None:
        if len(together) == 1:
            ((avl_id, (rule, _, value)),) = together.items()
            if avl_id in self._rivals:
                rule(message, value)
                return
        joined: dict[joins.Join, slots.Together] = {}
        claims: slots.Together = {}
        for avl_id, part in together.items():
            if avl_id in self._joins:
                joined.setdefault(self._joins[avl_id], {})[avl_id] = part
            elif self._rivals[avl_id].isdisjoint(together):
                rule, _, value = part
                rule(message, value)
            else:
                claims[avl_id] = part
        for join, parts in joined.items():
            join.apply(message, parts)
        if claims:
            joins.settle(message, claims)

    def _salvage(self, record: object, codec_id: object) -> Message:
        sound, odd = salvage.as_record(record)
        message = self._normalize(sound, codec_id if type(codec_id) is int else 0)
        for avl_id, value in odd:
            keep_raw(message, avl_id, value)
        return message


def begin_message(record: Record, codec_id: int) -> Message:
    """What stands outside of the IO element. The position rules of message.py are applied, on integers."""
    milliseconds = record["timestamp"]
    latitude, longitude = record["latitude"], record["longitude"]
    satellites = record["satellites"]
    message: Message = {
        "codec.id": codec_id,
        "event.priority.enum": record["priority"],
        "position.altitude": record["altitude"],
        "position.direction": record["angle"],
        "position.satellites": satellites,
        "position.speed": record["speed"],
        "position.valid": satellites > 0,
        "timestamp": milliseconds / 1000 if milliseconds % 1000 else milliseconds // 1000,
    }
    if latitude and longitude and -_NORTH <= latitude <= _NORTH and -_EAST <= longitude <= _EAST:
        message["position.latitude"] = latitude / _DEGREE
        message["position.longitude"] = longitude / _DEGREE
    else:
        message["position.valid"] = False
        message["position.skipped"] = True
    if record["event_io_id"]:
        message["event.enum"] = record["event_io_id"]
    if codec_id == CODEC_16 and "generation_type" in record:
        message["generation.type.enum"] = record["generation_type"]
    return message


def parameters_of(rows: Iterable[AvlRow]) -> set[str]:
    """Every parameter that records can yield by ``rows``, except custom.param.<id>."""
    return set(RECORD_PARAMETERS).union(*(rules.parameters_of(row) for row in rows))


def normalizer_for(model: str | None) -> Normalizer:
    """The normalizer of ``model``, made once for all models of the same table; unknown or None: the FMB family's."""
    found = find_model(model)
    return _normalizer(found.family, found.table)


@functools.cache
def _normalizer(family: str, table: str) -> Normalizer:
    return Normalizer(rows_for(family, table))
