"""A record that is not as wire.py makes them, turned into one that is: for whoever hands us another.

Fields that are no numbers of their size count as 0; elements that are no pair of an id and a value of their width are
told apart, so that the normalizer can keep them raw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FIELDS = {
    "timestamp": (0, 2**64),
    "priority": (0, 2**8),
    "longitude": (-(2**31), 2**31),
    "latitude": (-(2**31), 2**31),
    "altitude": (-(2**15), 2**15),
    "angle": (0, 2**16),
    "satellites": (0, 2**8),
    "speed": (0, 2**16),
    "event_io_id": (0, 2**16),
}
_WIDTHS = {"n1": 1, "n2": 2, "n4": 4, "n8": 8, "nx": 0}


def as_record(record: object) -> tuple[dict[str, Any], list[tuple[int, Any]]]:
    """``record`` as wire.py would make it, and the elements (AVL id, value) that do not fit into one."""
    given: Mapping[str, Any] = record if isinstance(record, Mapping) else {}
    sound: dict[str, Any] = {name: _number(given.get(name), *limits) for name, limits in _FIELDS.items()}
    if "generation_type" in given:
        sound["generation_type"] = _number(given["generation_type"], 0, 2**8)
    odd: list[tuple[int, Any]] = []
    for group, width in _WIDTHS.items():
        pairs = _pairs(given.get(group))
        sound[group] = [pair for pair in pairs if _fits(pair[1], width)]
        odd += [pair for pair in pairs if not _fits(pair[1], width)]
    return sound, odd


def _number(value: object, lowest: int, end: int) -> int:
    return value if type(value) is int and lowest <= value < end else 0


def _pairs(elements: object) -> list[tuple[int, Any]]:
    if not isinstance(elements, list | tuple):
        return []
    pairs = (element for element in elements if isinstance(element, list | tuple) and len(element) == 2)
    return [(avl_id, value) for avl_id, value in pairs if type(avl_id) is int and 0 <= avl_id < 2**16]


def _fits(value: object, width: int) -> bool:
    if not width:
        return isinstance(value, bytes)
    return type(value) is int and 0 <= value < 1 << (8 * width)
