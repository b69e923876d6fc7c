"""The commands that can be sent to trackers: their properties, their text on the wire, what their replies mean.

``custom``, ``getparam`` and ``setparam`` with ``param`` and ``value`` are flespi's (its article on commands of
Teltonika devices); ``params``, ``codec`` and the other commands are ours. Their texts are Teltonika's (wiki, pages
SMS/GPRS commands; manuals of FM1100, FM3622 and FMB630). From memory, and seen in no document: that the old families
take one parameter in each getparam, and want a number for each time of setdigout.

A class is a command, its fields are the properties, its first line of documentation describes it to clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.errors import PeerError
from gateway.protocols.teltonika import command_replies as replies
from gateway.protocols.teltonika.avl_ids import Model, rows_for
from gateway.protocols.teltonika.serial_data import text_of

TEXT_MOST = 1024
"""Characters of a command. Documents speak of 160 for an SMS and name no limit for Codec 12; frames end at 1280."""
PARAMETERS_MOST = 50
VALUE_MOST = 256
SECONDS_MOST = 2_147_483
OLD_FAMILIES = frozenset({"FM11XY", "FM36", "FM63XY"})
"""Theirs is ``setparam 1245 host``, one parameter each; all others' ``setparam 2004:host;2005:5027``."""
ALL_FAMILIES = "*"
DIGITAL_OUTPUT_1 = 179
"""The AVL id that devices with outputs send."""

Parse = Callable[[str], dict[str, str] | None]
Reply = str | dict[str, str]
"""The text as it came, or what was understood of it; ``{"hex": ...}`` where it is no text."""

ParameterId = Annotated[int, Meta(ge=0, le=999_999, title="Param number")]
Value = Annotated[str, Meta(max_length=VALUE_MOST, pattern="^[^;]*$", title="Param value")] | int | float | bool


class CommandError(PeerError):
    """A command that a device of this type does not have, or whose properties are wrong."""


class Command(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True, kw_only=True):
    """What all commands have."""

    name: ClassVar[str]
    parse: ClassVar[Parse | None] = None
    silent_in: ClassVar[frozenset[str]] = frozenset()
    """Families whose devices do not answer it; ``*``: none does."""
    examples: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    also: ClassVar[dict[str, Any]] = {}
    """What the JSON schema says besides."""

    codec: Annotated[
        Literal[12, 14],
        Meta(description="Codec 14 names the IMEI that is to obey; devices of the FMB family know it since 03.25.04"),
    ] = 12

    @classmethod
    def is_for(cls, model: Model) -> bool:
        """Whether devices of this model have it."""
        return True

    def wording(self, family: str) -> str:
        """What is sent to a device of this family. Raises CommandError where it cannot take it."""
        return self.name

    def payload(self, family: str) -> bytes:
        """The same as bytes. Raises CommandError."""
        text = self.wording(family)
        if not text.isprintable():
            raise CommandError("line ends and other control characters have no place in it")
        return text.encode()

    def is_answered(self, family: str) -> bool:
        """Whether a reply is to be waited for."""
        return not self.silent_in & {family, ALL_FAMILIES}

    def reply(self, payload: bytes) -> Reply:
        """What the device's reply means."""
        text = text_of(payload)
        if text is None:
            return {"hex": payload.hex()}
        parse = type(self).parse
        understood = parse(text) if parse is not None else None
        return text if understood is None else understood


class Custom(Command, frozen=True, kw_only=True):
    """Send any text, or any bytes, and have the reply as it comes."""

    name = "custom"
    examples = ({"text": "getrecord"}, {"hex": "DEADBEEF"})
    also: ClassVar[dict[str, Any]] = {"oneOf": [{"required": ["text"]}, {"required": ["hex"]}]}

    text: Annotated[str, Meta(min_length=1, max_length=TEXT_MOST, title="Text payload")] | UnsetType = UNSET
    hex: (
        Annotated[
            str, Meta(max_length=2 * TEXT_MOST, pattern="^([0-9A-Fa-f]{2})+$", title="Binary payload in HEX form")
        ]
        | UnsetType
    ) = UNSET

    def __post_init__(self) -> None:
        _one_of("text", self.text, "hex", self.hex)

    def payload(self, family: str) -> bytes:
        return self.text.encode() if self.text is not UNSET else bytes.fromhex(str(self.hex))


class GetParam(Command, frozen=True, kw_only=True):
    """Ask for configuration parameters by their numbers."""

    name = "getparam"
    parse = replies.parameters_of
    examples = ({"param": 2004}, {"params": [2004, 2005]})
    also: ClassVar[dict[str, Any]] = {"oneOf": [{"required": ["param"]}, {"required": ["params"]}]}

    param: ParameterId | UnsetType = UNSET
    params: Annotated[list[ParameterId], Meta(min_length=1, max_length=PARAMETERS_MOST)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        _one_of("param", self.param, "params", self.params)

    def wording(self, family: str) -> str:
        ids = [self.param] if self.params is UNSET else self.params
        _check_count(ids, family)
        return f"{self.name} {';'.join(map(str, ids))}"


class NewValue(Struct, forbid_unknown_fields=True, frozen=True):
    """A parameter and its new value."""

    param: ParameterId
    value: Value


class SetParam(Command, frozen=True, kw_only=True):
    """Change configuration parameters."""

    name = "setparam"
    parse = replies.parameters_of
    examples = ({"param": 1000, "value": 300}, {"params": [{"param": 2004, "value": "gw.example.com"}]})
    also: ClassVar[dict[str, Any]] = {"oneOf": [{"required": ["param", "value"]}, {"required": ["params"]}]}

    param: ParameterId | UnsetType = UNSET
    value: Value | UnsetType = UNSET
    params: Annotated[list[NewValue], Meta(min_length=1, max_length=PARAMETERS_MOST)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        _one_of("param", self.param, "params", self.params)
        if (self.param is UNSET) != (self.value is UNSET):
            raise ValueError("param and value belong together")

    def wording(self, family: str) -> str:
        settings = self.params or []
        if not isinstance(self.param, UnsetType) and not isinstance(self.value, UnsetType):
            settings = [NewValue(self.param, self.value)]
        _check_count(settings, family)
        between = " " if family in OLD_FAMILIES else ":"
        pairs = [f"{setting.param}{between}{value_text(setting.value)}" for setting in settings]
        return f"{self.name} {';'.join(pairs)}"


class SetDigOut(Command, frozen=True, kw_only=True):
    """Switch digital outputs on or off, for good or for some seconds."""

    name = "setdigout"
    examples = ({"states": "1"}, {"states": "?1", "seconds": [None, 30]})

    states: Annotated[
        str, Meta(pattern="^[01?]{1,4}$", description="Of output 1, 2, ...: 1 on, 0 off, ? as it is; one digit each")
    ]
    seconds: Annotated[
        list[Annotated[int, Meta(ge=0, le=SECONDS_MOST)] | None],
        Meta(max_length=4, description="How long, of output 1, 2, ...; null or 0: for good"),
    ] = []

    def __post_init__(self) -> None:
        if len(self.seconds) > len(self.states):
            raise ValueError(f"seconds names {len(self.seconds)} outputs, states only {len(self.states)}")

    @classmethod
    def is_for(cls, model: Model) -> bool:
        return DIGITAL_OUTPUT_1 in rows_for(model.family, model.table)

    def wording(self, family: str) -> str:
        nothing = "0" if family in OLD_FAMILIES else "?"
        times = [nothing if seconds is None else str(seconds) for seconds in self.seconds]
        return " ".join([self.name, self.states, *times])


class ReadIo(Command, frozen=True, kw_only=True):
    """Ask for the value of one AVL id."""

    name = "readio"
    parse = replies.io_of
    examples = ({"id": 66},)

    id: Annotated[int, Meta(ge=1, le=65535, title="AVL id")]

    def wording(self, family: str) -> str:
        return f"{self.name} {self.id}"


class GetVer(Command, frozen=True, kw_only=True):
    """Ask for the versions of the firmware and the modem, the model, the IMEI."""

    name = "getver"
    parse = replies.pairs_of


class GetInfo(Command, frozen=True, kw_only=True):
    """Ask for the state of the device: restarts, errors, records that wait."""

    name = "getinfo"
    parse = replies.pairs_of


class GetGps(Command, frozen=True, kw_only=True):
    """Ask for the position and the time."""

    name = "getgps"
    parse = replies.pairs_of


class GetStatus(Command, frozen=True, kw_only=True):
    """Ask for the state of the modem."""

    name = "getstatus"
    parse = replies.pairs_of


class GetIo(Command, frozen=True, kw_only=True):
    """Ask for the inputs and outputs."""

    name = "getio"
    parse = replies.pairs_of


class GetRecord(Command, frozen=True, kw_only=True):
    """Have the device make a record of high priority and send it."""

    name = "getrecord"
    silent_in = frozenset({ALL_FAMILIES})


class CpuReset(Command, frozen=True, kw_only=True):
    """Restart the device; the connection breaks, and the device comes back."""

    name = "cpureset"
    silent_in = frozenset({ALL_FAMILIES})


class DeleteRecords(Command, frozen=True, kw_only=True):
    """Delete all records that the device has stored."""

    name = "deleterecords"
    silent_in = OLD_FAMILIES


def value_text(value: str | int | float | bool) -> str:
    """A parameter's value as it is sent: switches are 1 and 0."""
    return str(int(value) if isinstance(value, bool) else value)


def _one_of(name: str, value: object, other: str, other_value: object) -> None:
    if (value is UNSET) == (other_value is UNSET):
        raise ValueError(f"exactly one of {name} and {other} is needed")


def _check_count(items: Sequence[object], family: str) -> None:
    if family in OLD_FAMILIES and len(items) > 1:
        raise CommandError(f"devices of the {family} family take one parameter in a command, not {len(items)}")
