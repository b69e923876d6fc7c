"""What a message says of the cells and Wi-Fi access points that a tracker hears.

The serving cell is ``gsm.mcc``, ``gsm.mnc``, ``gsm.lac``, ``gsm.cellid`` and ``gsm.signal.dbm``; the neighbors have the
same names with ``.1``, ``.2`` ... behind, and the network of the serving cell where they name none. ``gsm.cells`` is an
array of such objects (``mcc``, ``mnc``, ``lac``, ``cellid``, ``signal.dbm``). Access points are objects with
``mac.address`` and ``signal.dbm`` in the array ``wifi.access.points``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen

CELLS_MOST = 7
POINTS_MOST = 15
"""What the services that locate them take at most."""
RADIOS = {
    "2G": "gsm",
    "GSM": "gsm",
    "3G": "umts",
    "4G": "lte",
    "CAT M1": "lte",
    "LTE CAT M1": "lte",
    "CAT NB1": "lte",
    "LTE CAT NB1": "lte",
    "NB-IoT": "lte",
}
"""Values of ``gsm.network.type``."""
_MAC = re.compile(r"[0-9a-f]{12}")
_NO_MACS = frozenset({"0" * 12, "f" * 12})

Message = Mapping[str, Any]


@frozen
class Cell:
    """``signal`` is in dBm, where it is known."""

    mcc: int
    mnc: int
    lac: int
    cid: int
    signal: int | None = field(default=None, eq=False)


@frozen
class AccessPoint:
    """``bssid`` in lower case, with colons."""

    bssid: str
    signal: int | None = field(default=None, eq=False)


@frozen
class Heard:
    """What can be located. ``radio`` is gsm, umts, lte, or empty where it is not known.

    How strong each is makes no difference between two: it changes from one message to the next, without the place.
    """

    radio: str = ""
    cells: tuple[Cell, ...] = ()
    points: tuple[AccessPoint, ...] = ()


def heard(message: Message) -> Heard:
    """The serving cell comes first; of access points the strongest are taken."""
    cells = tuple(dict.fromkeys(_cells(message)))[:CELLS_MOST]
    points = {point.bssid: point for point in _points(message)}
    strongest = sorted(points.values(), key=lambda point: (-(point.signal or -999), point.bssid))[:POINTS_MOST]
    in_order = tuple(sorted(strongest, key=lambda point: point.bssid))
    return Heard(RADIOS.get(str(message.get("gsm.network.type")), ""), cells, in_order)


def _cells(message: Message) -> Iterator[Cell]:
    serving = {name: message.get(f"gsm.{name}") for name in ("mcc", "mnc", "lac", "cellid", "signal.dbm")}
    yield from _cell(serving, {})
    for n in range(1, CELLS_MOST):
        yield from _cell({name: message.get(f"gsm.{name}.{n}") for name in serving}, serving)
    yield from (cell for item in _objects(message.get("gsm.cells")) for cell in _cell(item, serving))


def _cell(values: Message, network: Message) -> Iterator[Cell]:
    """One, or none where it is not whole; ``network`` has what it does not say."""
    mcc, mnc = (_number(values.get(name), 0, 999) for name in ("mcc", "mnc"))
    mcc = _number(network.get("mcc"), 0, 999) if mcc is None else mcc
    mnc = _number(network.get("mnc"), 0, 999) if mnc is None else mnc
    lac, cid = _number(values.get("lac"), 1, 65533), _number(values.get("cellid"), 1, 2**28 - 2)
    if mcc and mnc is not None and lac is not None and cid is not None and cid != 65535:
        yield Cell(mcc, mnc, lac, cid, _dbm(values.get("signal.dbm")))


def _points(message: Message) -> Iterator[AccessPoint]:
    for item in _objects(message.get("wifi.access.points")):
        digits = re.sub(r"[:.-]", "", str(item.get("mac.address"))[:20]).lower()
        if _MAC.fullmatch(digits) and digits not in _NO_MACS:
            bssid = ":".join(digits[at : at + 2] for at in range(0, 12, 2))
            yield AccessPoint(bssid, _dbm(item.get("signal.dbm")))


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value[:100] if isinstance(item, dict)] if isinstance(value, list) else []


def _number(value: Any, lowest: int, highest: int) -> int | None:
    return int(value) if type(value) is int and lowest <= value <= highest else None


def _dbm(value: Any) -> int | None:
    """A level that can be; some trackers send it without the sign."""
    return -round(abs(value)) if type(value) in (int, float) and 1 <= abs(value) <= 150 else None
