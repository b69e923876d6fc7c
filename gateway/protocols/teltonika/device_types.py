"""The device types of this protocol: Teltonika's models.

Their ids are ours from 10000 on, except where flespi's is publicly known. An id, once given, never changes: devices
keep it. A new model gets the next one in ``data/device_types.csv``.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

from attrs import frozen

UNKNOWN_MODEL = "teltonika"
UNKNOWN_TYPE = 10000
"""Its id in ``data/device_types.csv``."""


@frozen
class DeviceType:
    """A model. ``name`` is the selector (lower case), ``title`` for people; ``model`` is Teltonika's name or None."""

    id: int
    name: str
    title: str

    @property
    def model(self) -> str | None:
        """As Teltonika writes it; None for the type of devices whose model is not known."""
        return None if self.name == UNKNOWN_MODEL else self.name.upper()


@cache
def device_types() -> dict[int, DeviceType]:
    """All of them, by id."""
    text = (files(__package__) / "data" / "device_types.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {int(row["id"]): DeviceType(int(row["id"]), row["name"], row["title"]) for row in rows}


def find_device_type(name: str) -> DeviceType | None:
    """The type of this name in any case; the empty name is the type of unknown models."""
    wanted = name.strip().lower() or UNKNOWN_MODEL
    return next((kind for kind in device_types().values() if kind.name == wanted), None)


def model_of(device_type_id: int) -> str | None:
    """The model that a device of this type is; None where it is not known."""
    kind = device_types().get(device_type_id)
    return kind.model if kind is not None else None
