"""IO sets: which AVL ids a tracker sends, and how each is read off a vehicle, by family of models.

Scales and meanings are those of Teltonika's tables (Teltonika wiki, pages "... Teltonika Data Sending Parameters ID"),
written down here once more on purpose: a gateway that reads them by another table is tested by this one. Widths are
bytes on the wire; 0 is a value of any length, which only Codec 8 Extended can carry.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from gateway.emulator.ble import beacon_list
from gateway.emulator.sample import FIX, NO_FIX, SLEEPS, Sample
from gateway.errors import ConfigError
from gateway.protocols.teltonika.avl_ids import find_model

Read = Callable[[Sample], Any]

FMB, FMX6, FTX = "FMB", "FMX6", "FTX"
_FAMILIES = {"FMB": FMB, "FMX6": FMX6, "FTX": FTX, "ATX": FTX}
_HIGHEST_ID = {"8": 255, "8e": 65535, "16": 65535}
GROUPS = ("n1", "n2", "n4", "n8", "nx")
_GROUP_OF = {1: "n1", 2: "n2", 4: "n4", 8: "n8", 0: "nx"}


@attrs.frozen
class Field:
    """One IO value: its id, its width, and how it is read."""

    avl_id: int
    width: int
    read: Read

    @property
    def group(self) -> str:
        return _GROUP_OF[self.width]


@attrs.frozen(eq=False)
class IoSet:
    """What one group of devices sends: the readers of each group of a record, and every field that its family has."""

    n1: tuple[tuple[int, Read], ...]
    n2: tuple[tuple[int, Read], ...]
    n4: tuple[tuple[int, Read], ...]
    n8: tuple[tuple[int, Read], ...]
    nx: tuple[tuple[int, Read], ...]
    known: Mapping[int, Field]

    def groups(self, sample: Sample) -> dict[str, list[tuple[int, Any]]]:
        """The IO element of a record; ids ascend within a group."""
        return {
            "n1": [(avl_id, read(sample)) for avl_id, read in self.n1],
            "n2": [(avl_id, read(sample)) for avl_id, read in self.n2],
            "n4": [(avl_id, read(sample)) for avl_id, read in self.n4],
            "n8": [(avl_id, read(sample)) for avl_id, read in self.n8],
            "nx": [(avl_id, read(sample)) for avl_id, read in self.nx],
        }


def _signed(value: float, width: int) -> int:
    return round(value) & ((1 << 8 * width) - 1)


def _data_mode(s: Sample) -> int:
    return int(s.c.moving)  # 0 home network and standing, 1 home network and moving


def _gnss_fmb(s: Sample) -> int:
    return {FIX: 1, NO_FIX: 2, SLEEPS: 3}[s.gnss]


def _gnss_fmx6(s: Sample) -> int:
    return {FIX: 3, NO_FIX: 2, SLEEPS: 4}[s.gnss]


def _cell(s: Sample) -> int:
    """One radio cell per patch of about half a kilometer."""
    return 20_000 + round(s.c.latitude * 200) % 50 * 100 + round(s.c.longitude * 120) % 100


_COMMON = (
    Field(1, 1, lambda s: int(s.c.ignition)),  # din 1 is wired to the ignition
    Field(2, 1, lambda s: int(s.c.door)),  # din 2 to the door of the load space
    Field(16, 4, lambda s: round(s.c.odometer)),
    Field(21, 1, lambda s: s.c.gsm_signal),
    Field(67, 2, lambda s: round(s.c.battery_voltage * 1000)),
    Field(68, 2, lambda s: round(s.c.battery_current * 1000)),
    Field(78, 8, lambda s: s.identity.ibutton if s.c.ignition else 0),
    Field(181, 2, lambda s: round(s.hdop * 13)),  # PDOP in tenths; somewhat above HDOP
    Field(182, 2, lambda s: round(s.hdop * 10)),
    Field(199, 4, lambda s: round(s.c.trip)),
    Field(200, 1, lambda s: int(s.gnss == SLEEPS)),
    Field(206, 2, lambda s: s.area),
    Field(239, 1, lambda s: int(s.c.ignition)),
    Field(240, 1, lambda s: int(s.c.moving)),
    Field(241, 4, lambda s: s.operator),
    Field(250, 1, lambda s: int(s.c.ignition)),  # a trip lasts from ignition on to ignition off
    Field(449, 4, lambda s: round(s.c.ignition_seconds) if s.c.ignition else 0),
)
_FMB_FIELDS = (
    *_COMMON,
    Field(11, 8, lambda s: s.identity.iccid // 10**10),
    Field(14, 8, lambda s: s.identity.iccid % 10**10),
    Field(17, 2, lambda s: _signed(s.c.acceleration * 102, 2)),
    Field(18, 2, lambda s: _signed((s.c.odometer % 7) - 3, 2)),
    Field(19, 2, lambda s: 1000),
    Field(24, 2, lambda s: s.speed),
    Field(66, 2, lambda s: round(s.c.supply_voltage * 1000)),
    Field(69, 1, _gnss_fmb),
    Field(72, 4, lambda s: _signed(s.c.cargo * 10, 4)),
    Field(76, 8, lambda s: s.identity.thermometer),
    Field(80, 1, _data_mode),
    Field(81, 1, lambda s: round(s.c.speed)),
    Field(82, 1, lambda s: round(s.c.load * 0.8)),
    Field(83, 4, lambda s: round(s.c.fuel_used * 10)),
    Field(84, 2, lambda s: round(s.c.fuel * 10)),
    Field(85, 2, lambda s: round(s.c.rpm)),
    Field(87, 4, lambda s: round(s.c.odometer)),
    Field(89, 1, lambda s: round(s.c.fuel_level)),
    Field(90, 2, lambda s: 0x2000 if s.c.door else 0),  # the trunk
    Field(113, 1, lambda s: round(s.c.charge)),
    Field(115, 2, lambda s: _signed(s.c.coolant * 10, 2)),
    Field(205, 2, _cell),
    Field(237, 1, lambda s: 3 if s.c.gsm_signal > 2 else 1),
    Field(256, 0, lambda s: s.identity.vin),
    Field(303, 1, lambda s: int(s.c.moving)),
    Field(385, 0, lambda s: beacon_list(s.identity.tag, s.c.door, s.c.cargo, s.random)),
    Field(10800, 2, lambda s: _signed(s.c.cargo * 100, 2)),
    Field(10801, 2, lambda s: _signed((s.c.ambient + 4) * 100, 2)),
    Field(10804, 1, lambda s: 70 if s.c.door else 45),
    Field(10805, 1, lambda s: 52),
    Field(10808, 1, lambda s: int(not s.c.door)),
    Field(10809, 1, lambda s: 0),
    Field(10812, 1, lambda s: int(s.c.moving)),
    Field(10813, 1, lambda s: int(s.c.moving)),
    Field(10816, 1, lambda s: _signed(3, 1)),
    Field(10820, 1, lambda s: 0),
    Field(10824, 2, lambda s: 2980),
    Field(10825, 2, lambda s: 3010),
    Field(10832, 2, lambda s: _signed(-12, 2)),
    Field(10836, 2, lambda s: round(s.c.odometer / 50) & 0x7FFF),
    Field(10840, 2, lambda s: round(s.c.engine_seconds / 900) & 0x7FFF),
)
_FMX6_FIELDS = (
    *_COMMON,
    Field(22, 1, _data_mode),
    Field(24, 2, lambda s: s.speed),
    Field(25, 2, lambda s: _signed(s.c.coolant * 10, 2)),
    Field(30, 1, lambda s: round(s.c.speed)),
    Field(33, 4, lambda s: round(s.c.fuel_used * 10)),
    Field(34, 2, lambda s: round(s.c.fuel * 10)),
    Field(35, 2, lambda s: round(s.c.rpm)),
    Field(36, 4, lambda s: round(s.c.odometer)),
    Field(37, 1, lambda s: round(s.c.fuel_level)),
    Field(62, 8, lambda s: s.identity.thermometer),
    Field(66, 2, lambda s: round(s.c.supply_voltage * 1000)),
    Field(70, 2, lambda s: _signed((s.c.ambient + 12) * 10, 2)),
    Field(71, 1, _gnss_fmx6),
    Field(72, 2, lambda s: _signed(s.c.cargo * 10, 2)),
    Field(79, 1, lambda s: int(s.c.acceleration < -0.3)),
    Field(80, 4, lambda s: round(s.c.speed)),
    Field(81, 1, lambda s: int(s.c.speed > 75 and abs(s.c.acceleration) < 0.1)),
    Field(84, 4, lambda s: round(s.c.load * 0.8)),
    Field(85, 1, lambda s: round(s.c.load)),
    Field(86, 4, lambda s: round(s.c.fuel_used)),
    Field(87, 4, lambda s: round(s.c.fuel_level)),
    Field(88, 4, lambda s: round(s.c.rpm)),
    Field(89, 2, lambda s: s.c.kind.axles[0]),
    Field(90, 2, lambda s: s.c.kind.axles[1]),
    Field(91, 2, lambda s: s.c.kind.axles[-1]),
    Field(104, 4, lambda s: round(s.c.engine_seconds / 3600)),
    Field(127, 1, lambda s: _signed(s.c.coolant, 1)),
    Field(128, 2, lambda s: _signed(s.c.ambient, 2)),
    Field(135, 4, lambda s: round(s.c.fuel_rate)),
    Field(139, 4, lambda s: sum(s.c.kind.axles)),
    Field(178, 1, lambda s: 3 if s.c.gsm_signal > 2 else 1),
    Field(184, 1, lambda s: 3 if s.c.moving else 0),  # driving, or resting
    Field(187, 1, lambda s: int(s.c.ignition)),
    Field(191, 2, lambda s: round(s.c.speed)),
    Field(192, 4, lambda s: round(s.c.odometer)),
    Field(193, 4, lambda s: round(s.c.trip)),
    Field(195, 8, lambda s: int.from_bytes(s.identity.driver_card[:8], "big")),
    Field(196, 8, lambda s: int.from_bytes(s.identity.driver_card[8:], "big")),
    Field(205, 4, _cell),
    Field(216, 4, lambda s: round(s.c.odometer)),
)
_FTX_FIELDS = (
    *_COMMON,
    Field(69, 1, _gnss_fmb),
    Field(70, 2, lambda s: _signed(s.c.ambient + 12, 2)),
    Field(72, 2, lambda s: _signed(s.c.cargo * 10, 2)),
    Field(76, 8, lambda s: s.identity.thermometer),
    Field(113, 1, lambda s: round(s.c.charge)),
    Field(205, 4, _cell),
    Field(237, 1, lambda s: 3 if s.c.gsm_signal > 2 else 1),
    Field(303, 1, lambda s: int(s.c.moving)),
    Field(800, 4, lambda s: round(s.c.supply_voltage * 1000)),
)
FIELDS: dict[str, dict[int, Field]] = {
    family: {field.avl_id: field for field in fields}
    for family, fields in ((FMB, _FMB_FIELDS), (FMX6, _FMX6_FIELDS), (FTX, _FTX_FIELDS))
}

SETS: dict[str, dict[str, tuple[int, ...]]] = {
    FMB: {
        "basic": (1, 16, 21, 24, 66, 67, 68, 69, 80, 113, 181, 182, 199, 200, 205, 206, 239, 240, 241),
        "can": (81, 82, 83, 84, 85, 87, 89, 90, 115),
        "driver": (78,),
        "temperature": (2, 72, 76),
        "beacons": (385,),
        "eye": tuple(avl_id for avl_id in FIELDS[FMB] if avl_id >= 10800),
        "axes": (17, 18, 19),
        "network": (11, 14, 237),
        "vin": (256,),
    },
    FMX6: {
        "basic": (1, 21, 22, 24, 66, 67, 68, 71, 181, 182, 199, 200, 205, 206, 216, 239, 240, 241),
        "can": (25, 30, 33, 34, 35, 36, 37),
        "fms": (79, 80, 81, 84, 85, 86, 87, 88, 89, 90, 91, 104, 127, 128, 135, 139),
        "tacho": (184, 187, 191, 192, 193, 195, 196),
        "driver": (78,),
        "temperature": (2, 62, 70, 72),
        "network": (178,),
    },
    FTX: {
        "basic": (1, 16, 21, 67, 68, 69, 113, 181, 182, 199, 200, 205, 206, 239, 240, 241, 800),
        "driver": (78,),
        "temperature": (70, 72, 76),
        "network": (237,),
    },
}


def family_of(model: str) -> str:
    """The family whose fields a model has. Raises ConfigError."""
    found = find_model(model)
    if not found.model or found.family not in _FAMILIES:
        raise ConfigError(f"model {model!r}: should be one of the families {', '.join(_FAMILIES)}, such as FMB120")
    return _FAMILIES[found.family]


@functools.cache
def io_set(names: tuple[str, ...], model: str, codec: str) -> IoSet:
    """The IO set of a model by the names of sets and by single ids; what the codec cannot carry is left out.

    Shared by all devices that are alike. Raises ConfigError for a name or an id that the model's family has not.
    """
    family = family_of(model)
    chosen = sorted({avl_id for name in names for avl_id in _ids(name, family)})
    groups: dict[str, list[tuple[int, Read]]] = {group: [] for group in GROUPS}
    for avl_id in chosen:
        field = FIELDS[family][avl_id]
        if can_carry(codec, field):
            groups[field.group].append((avl_id, field.read))
    return IoSet(**{name: tuple(fields) for name, fields in groups.items()}, known=FIELDS[family])


def can_carry(codec: str, field: Field) -> bool:
    """Whether a record in ``codec`` has room for such a field."""
    return field.avl_id <= _HIGHEST_ID[codec] and (field.width > 0 or codec == "8e")


def _ids(name: str, family: str) -> Iterable[int]:
    if name in SETS[family]:
        return SETS[family][name]
    if name.isdecimal() and int(name) in FIELDS[family]:
        return [int(name)]
    if name.isdecimal():
        raise ConfigError(f"io {name}: no such AVL id; of {family} there are {', '.join(map(str, FIELDS[family]))}")
    raise ConfigError(f"io {name!r}: no such set; of {family} there are {', '.join(SETS[family])}, and single AVL ids")
