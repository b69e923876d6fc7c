"""A scenario: which trackers there are and what they go through, as a file that a team shares.

It is TOML: the keys of :class:`Scenario`, then a ``[[groups]]`` for each group with the keys of ``group.py``, its
``[groups.timing]``, ``[groups.faults]`` and ``[groups.events]`` (docs/emulator.md has one in full).
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from random import Random
from typing import Any

import attrs

from gateway.emulator.group import Check, Events, Faults, Group, Timing, above_zero, address, between, option
from gateway.emulator.io import io_set
from gateway.emulator.plan import plan_for
from gateway.emulator.recorder import Recorder
from gateway.errors import ConfigError

_PARTS: dict[str, type[Any]] = {"timing": Timing, "faults": Faults, "events": Events}
_KINDS: dict[str, tuple[type[Any], str]] = {
    "str": (str, "a text in quotes"),
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "tuple[str, ...]": (tuple, 'a text in quotes, or a list of them: ["basic", "can"]'),
    "tuple[int, ...]": (tuple, "a list of AVL ids: [239, 240]"),
}


@attrs.frozen
class Scenario:
    """Groups of trackers and how their time passes.

    ``start`` is the first moment in seconds since 1970 (None: now); ``speed_up`` seconds of the trackers' time pass in
    a real one, and with infinity they go as fast as they are acknowledged; ``count`` is the number of records of each
    device (None: no end). The same ``seed`` and ``start`` give the same records, byte for byte.
    """

    groups: tuple[Group, ...]
    seed: int = option(1, "the same seed gives the same records")
    to: str = option("127.0.0.1:5027", "where the gateway listens", address)
    start: float | None = option(None, "the first record's time, such as 2026-11-21T08:00:00Z; none: now")
    speed_up: float = option(1.0, "how much faster the trackers' time passes; inf: as fast as acknowledged", above_zero)
    count: int | None = option(None, "records per device; none: without end", between(1))

    def devices(self) -> Iterator[tuple[Group, int]]:
        """Each device as its group and its number in it."""
        for group in self.groups:
            for index in range(group.devices):
                yield group, index

    def recorder(self, group: Group, index: int, now: float) -> Recorder:
        """What one of the devices records; ``now`` counts where the scenario has no ``start`` of its own."""
        return make_recorder(group, index, self.seed, now if self.start is None else self.start)


def make_recorder(group: Group, index: int, seed: int, start: float) -> Recorder:
    """What device ``index`` of ``group`` records from ``start`` on (seconds since 1970)."""
    random = Random(f"{seed}/{group.name}/{index}")
    return Recorder.of_group(group, index, random, start)


def scenario_names() -> list[str]:
    """The scenarios that come with the package."""
    return sorted(path.name.removesuffix(".toml") for path in _built_in().iterdir() if path.name.endswith(".toml"))


def load_scenario(name: str | Path) -> Scenario:
    """Read a scenario: a file, or one that comes with the package by its name.

    Relative paths in it (of routes) are relative to the file. Raises ConfigError, whose text names the file, the key,
    and what would be right.
    """
    path: Path | Traversable = Path(name)
    if str(name) in scenario_names():
        path = _built_in() / f"{name}.toml"
    table = _read(path, str(name))
    source = str(name)
    groups = table.pop("groups", [])
    if not isinstance(groups, list) or not groups or not all(isinstance(row, dict) for row in groups):
        raise ConfigError(f"{source}: groups: there should be [[groups]], once for each group of devices")
    values = _values(source, "", Scenario, table)
    folder = path.parent if isinstance(path, Path) else None
    made = tuple(_group(f"{source}: [[groups]] number {n}", row, folder) for n, row in enumerate(groups, 1))
    _check_groups(source, made)
    return Scenario(made, **values)


def _built_in() -> Traversable:
    return files("gateway.emulator") / "scenarios"


def _read(path: Path | Traversable, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(scenario_names())
        raise ConfigError(f"{name}: no such file, and no scenario of that name; there are {known}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not valid TOML: {error}") from None


def _group(where: str, row: Mapping[str, Any], folder: Path | None) -> Group:
    row = dict(row)
    parts = {}
    for name, kind in _PARTS.items():
        given = row.pop(name, {})
        if not isinstance(given, dict):
            raise ConfigError(f"{where} {name}: should be a section, [groups.{name}]")
        parts[name] = kind(**_values(where, f" {name}.", kind, given))
    values = _values(where, " ", Group, row, without=_PARTS)
    if folder is not None and "." in Path(values.get("route", "")).name:
        values["route"] = str(folder / values["route"])
    group = Group(**values, **parts)
    check_group(where, group)
    return group


def check_group(where: str, group: Group) -> None:
    """Raises ConfigError, which begins with ``where``, if its model, its IO set or its route is none."""
    try:
        chosen = io_set(group.io, group.model, group.codec)
        plan_for(group.route)
    except ConfigError as error:
        raise ConfigError(f"{where} {error}") from None
    unknown = [avl_id for avl_id in group.timing.watch if avl_id not in chosen.known]
    if unknown:
        known = ", ".join(map(str, chosen.known))
        raise ConfigError(f"{where} timing.watch: {unknown[0]} is no AVL id of {group.model} here; there are {known}")


def _values(where: str, prefix: str, kind: type[Any], given: Mapping[str, Any], without: Any = ()) -> dict[str, Any]:
    known = {field.name: field for field in attrs.fields(kind) if field.name not in without and field.metadata}
    values = {}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"{where}{prefix or ': '}{key}: no such key{_nearest(key, [*known, *without])}")
        values[key] = _checked(f"{where}{prefix or ': '}{key}", known[key], value)
    return values


def _checked(where: str, field: attrs.Attribute[Any], value: Any) -> Any:
    if field.name == "start":
        return _moment(where, value)
    name = str(field.type).removesuffix(" | None")
    kind, wanted = _KINDS[name]
    if kind is float and type(value) is int:
        value = float(value)
    if kind is tuple:
        value = _as_tuple(value, str if "str" in name else int)
    if type(value) is not kind:
        raise ConfigError(f"{where}: {value!r} should be {wanted}")
    problem = "a number" if kind is float and math.isnan(value) else _problem(field, value)
    if problem:
        raise ConfigError(f"{where}: {value!r} should be {problem}")
    return value


def _as_tuple(value: Any, kind: type[Any]) -> Any:
    """A list, or its only item, as a tuple; an AVL id among names may be written as a number. Else what it was."""
    items = [str(item) if kind is str and type(item) is int else item for item in _as_list(value)]
    return tuple(items) if all(type(item) is kind for item in items) else value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _problem(field: attrs.Attribute[Any], value: Any) -> str | None:
    check: Check | None = field.metadata["check"]
    return check(value) or None if check else None


def _moment(where: str, value: Any) -> float:
    if isinstance(value, datetime):
        return value.astimezone().timestamp()
    raise ConfigError(f"{where}: {value!r} should be a time such as 2026-11-21T08:00:00Z, without quotes")


def _check_groups(source: str, groups: tuple[Group, ...]) -> None:
    names: set[str] = set()
    ranges: list[tuple[int, int]] = []
    for n, group in enumerate(groups, 1):
        where = f"{source}: [[groups]] number {n}"
        if not group.name or group.name in names:
            raise ConfigError(f"{where} name: {group.name!r} should be a name that no other group has")
        first, after = int(group.imei), int(group.imei) + group.devices
        if any(first < other_after and other < after for other, other_after in ranges):
            raise ConfigError(f"{where} imei: {group.imei!r} should leave its {group.devices} to no other group")
        names.add(group.name)
        ranges.append((first, after))


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"
