"""The catalogue of parameters: name, type, unit and meaning of each, from data/parameters.csv.

``python -m gateway.parameters > docs/parameters.md`` writes the page of the documentation that lists them.

Names and units are flespi's (its page of message parameters); where a row's column ``ours`` says something, that part
of it is not. ``custom.param.<id>`` stands for all AVL ids without a name, ``ble.beacon.<value>.<n>`` for what a plugin
makes of beacons.
"""

from __future__ import annotations

import csv
import functools
import sys
from importlib.resources import files
from typing import TextIO

import attrs

CUSTOM_PREFIX = "custom.param."
CUSTOM = "custom.param.<id>"
BEACON_PREFIX = "ble.beacon."
BEACON = "ble.beacon.<value>.<n>"


@attrs.frozen
class Parameter:
    """One parameter. ``type`` is number, boolean, string, array, object, or two of them with ``|`` between."""

    name: str
    type: str
    unit: str
    meaning: str
    ours: str


@functools.cache
def catalogue() -> dict[str, Parameter]:
    """Every parameter by its name, in the order of the file."""
    with files(__package__).joinpath("data", "parameters.csv").open(encoding="utf-8") as file:
        return {row["name"]: Parameter(**row) for row in csv.DictReader(file)}


def find(name: str) -> Parameter | None:
    """The parameter ``name``, as messages have it; None if the catalogue does not know it."""
    if name.startswith(CUSTOM_PREFIX):
        return catalogue().get(CUSTOM)
    return catalogue().get(name) or (catalogue().get(BEACON) if name.startswith(BEACON_PREFIX) else None)


_HEAD = """\
# Parameters

What a message can contain. Names, types, units and scales are flespi's; where the last column says something, that is
not. Indexes count from 1 unless the vendor counts from 0.

A value that an AVL id has, but not this catalogue, is `custom.param.<id>`: as it was on the wire, a number up to 2^53,
else lower-case hexadecimal text without prefix.

This page is written by `python -m gateway.parameters`.

| parameter | type | unit | meaning | ours |
|---|---|---|---|---|
"""


def write_page(file: TextIO) -> None:
    """Write docs/parameters.md."""
    file.write(_HEAD)
    for parameter in catalogue().values():
        cells = (f"`{parameter.name}`", *attrs.astuple(parameter)[1:])
        file.write("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")


if __name__ == "__main__":
    write_page(sys.stdout)
