"""Settings: what operators change most in trackers, by name, and the configuration parameters behind it.

``data/settings.csv`` has a row for each field of a setting: its ``kind`` (text, number, choice), its bounds, and in the
column of a family the number of the parameter there. Numbers are from Teltonika's documents (parameter lists of the FMB
family; manuals of FM1100, FMA110 and FMB640) but where the column ``memory`` names the family: there they are what we
remember, and are to be tried on a device. Names of settings and fields are ours; flespi's are not known.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, Literal

from attrs import field, frozen

from gateway.errors import PeerError
from gateway.protocols.teltonika.avl_ids import find_model
from gateway.protocols.teltonika.command_replies import parameters_of
from gateway.protocols.teltonika.commands import OLD_FAMILIES
from gateway.protocols.teltonika.serial_data import text_of

COMMAND_MOST = 160
"""Characters of a command, so that it could go by SMS as well: the only limit that documents name."""
FIELD_COLUMNS = ("setting", "field", "kind", "least", "most", "unit", "choices", "title", "memory")

Kind = Literal["text", "number", "choice"]


class SettingError(PeerError):
    """A setting that a device of this type does not have, or a value that it cannot have."""


@frozen
class Field:
    """A field of a setting, in one family. ``choices``: name -> what the device has for it.

    ``least`` and ``most`` bound a number, or the characters of a text.
    """

    name: str
    kind: Kind
    parameter: int
    title: str
    least: int = 0
    most: int = 0
    unit: str = ""
    choices: dict[str, str] = field(factory=dict)
    from_memory: bool = False

    def encode(self, value: Any) -> str:
        """``value`` as the device takes it. Raises SettingError."""
        if self.kind == "choice" and isinstance(value, str) and value in self.choices:
            return self.choices[value]
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if self.kind == "number" and is_number and self.least <= value <= self.most:
            return str(value)
        is_text = isinstance(value, str) and value.isprintable() and ";" not in value
        if self.kind == "text" and is_text and self.least <= len(value) <= self.most:
            return str(value)
        raise SettingError(f"{self.name} should be {self.expected}, not {str(value)[:64]!r}")

    def decode(self, text: str) -> Any:
        """What the device has; a value of another form stays text."""
        if self.kind == "choice":
            return next((name for name, known in self.choices.items() if known == text.strip()), text)
        if self.kind == "number" and text.strip().isdecimal() and len(text) < 16:
            return int(text)
        return text

    @property
    def expected(self) -> str:
        """For people: what a value can be."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        if self.kind == "number":
            return f"a whole number from {self.least} to {self.most}"
        return f"text of at most {self.most} characters, without semicolons"

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of a value."""
        about = {"title": self.title, **({"description": f"in {self.unit}"} if self.unit else {})}
        if self.kind == "choice":
            return {**about, "enum": list(self.choices)}
        if self.kind == "number":
            return {**about, "type": "integer", "minimum": self.least, "maximum": self.most}
        return {**about, "type": "string", "maxLength": self.most, "pattern": "^[^;]*$"}


@frozen
class Setting:
    """A setting of one family: ``fields`` by name."""

    name: str
    family: str
    fields: dict[str, Field]

    def encode(self, values: Any) -> dict[int, str]:
        """Parameter number -> text, of the given fields; others stay as they are in the device. Raises SettingError."""
        if not isinstance(values, Mapping) or not values:
            raise SettingError(f"setting {self.name} should be an object with some of {', '.join(self.fields)}")
        unknown = [str(name)[:64] for name in values if name not in self.fields]
        if unknown:
            raise SettingError(f"setting {self.name} has no field {unknown[0]}; it has {', '.join(self.fields)}")
        return {self.fields[name].parameter: self.fields[name].encode(value) for name, value in values.items()}

    def decode(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """The fields that replies tell: parameter number -> text, as command_replies has it."""
        return {
            name: one.decode(parameters[str(one.parameter)])
            for name, one in self.fields.items()
            if str(one.parameter) in parameters
        }

    @staticmethod
    def parameters_in(payload: bytes) -> dict[str, str]:
        """Parameter number -> text, of a reply to one of the commands below; empty where it names none."""
        return parameters_of(text_of(payload) or "") or {}

    def set_texts(self, values: Any) -> list[str]:
        """The commands that set these fields, in order; several where one would be too long. Raises SettingError."""
        between = " " if self.family in OLD_FAMILIES else ":"
        parts = [f"{parameter}{between}{text}" for parameter, text in self.encode(values).items()]
        return _commands("setparam", parts, self.family)

    def get_texts(self) -> list[str]:
        """The commands that ask for all fields."""
        return _commands("getparam", [str(one.parameter) for one in self.fields.values()], self.family)

    def is_confirmed(self, values: Mapping[str, Any], parameters: Mapping[str, str]) -> bool:
        """Whether replies to setparam (parameter number -> text) say that the device has these values now."""
        wanted = self.encode(values)
        return all(parameters.get(str(parameter), "\0").strip() == text.strip() for parameter, text in wanted.items())

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema of the setting's values."""
        properties = {name: one.schema for name, one in self.fields.items()}
        return {"type": "object", "minProperties": 1, "additionalProperties": False, "properties": properties}


def _commands(name: str, parts: Iterable[str], family: str) -> list[str]:
    commands: list[str] = []
    for part in parts:
        joined = f"{commands[-1]};{part}" if commands else ""
        if joined and family not in OLD_FAMILIES and len(joined) <= COMMAND_MOST:
            commands[-1] = joined
        else:
            commands.append(f"{name} {part}")
    return commands


def settings_of(model: str | None) -> dict[str, Setting]:
    """The settings that devices of this model have, by name; None, or an unknown one: those of the FMB family."""
    return _settings(find_model(model).family)


def find_setting(name: str, model: str | None) -> Setting:
    """The setting of this name. Raises SettingError."""
    settings = settings_of(model)
    if name not in settings:
        known = ", ".join(settings) or "none"
        raise SettingError(f"setting {name[:64]} is not found; devices of this type have {known}")
    return settings[name]


@functools.cache
def _settings(family: str) -> dict[str, Setting]:
    text = (files(__package__) / "data" / "settings.csv").read_text(encoding="utf-8")
    fields: dict[str, dict[str, Field]] = {}
    for row in csv.DictReader(text.splitlines()):
        if row.get(family):
            fields.setdefault(row["setting"], {})[row["field"]] = _field(row, family)
    return {name: Setting(name, family, of_setting) for name, of_setting in fields.items()}


def _field(row: dict[str, str], family: str) -> Field:
    kind: Any = row["kind"]
    return Field(
        name=row["field"],
        kind=kind,
        parameter=int(row[family]),
        title=row["title"],
        least=int(row["least"] or 0),
        most=int(row["most"] or 0),
        unit=row["unit"],
        choices=dict(pair.split("=") for pair in row["choices"].split("|") if pair),
        from_memory=family in row["memory"].split(),
    )
