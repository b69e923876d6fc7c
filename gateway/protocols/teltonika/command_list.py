"""Which commands there are for a model, by name, and how they are described to clients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from attrs import frozen

from gateway.protocols.teltonika import commands
from gateway.protocols.teltonika.avl_ids import find_model
from gateway.protocols.teltonika.commands import Command, CommandError, Reply

COMMANDS: tuple[type[Command], ...] = (
    commands.Custom,
    commands.GetParam,
    commands.SetParam,
    commands.SetDigOut,
    commands.GetVer,
    commands.GetInfo,
    commands.GetGps,
    commands.GetStatus,
    commands.GetIo,
    commands.ReadIo,
    commands.GetRecord,
    commands.CpuReset,
    commands.DeleteRecords,
)
ADDRESS = ["connection"]
"""How a command reaches a device: flespi's word; it also has sms."""


@frozen
class Request:
    """A command for one device, ready to be sent: ``payload`` in ``codec_id``; ``reply`` says what its answer means."""

    payload: bytes
    codec_id: int
    is_answered: bool
    reply: Callable[[bytes], Reply]


@functools.cache
def commands_of(model: str | None) -> dict[str, type[Command]]:
    """The commands that devices of this model have, by name; None, or an unknown one: those of the FMB family."""
    found = find_model(model)
    return {command.name: command for command in COMMANDS if command.is_for(found)}


def make_command(name: str, properties: Mapping[str, Any], model: str | None) -> Command:
    """The command ``name`` with these properties, for this model. Raises CommandError, in flespi's words."""
    kind = commands_of(model).get(name)
    if kind is None:
        raise _invalid(name, f"command definition {name} is not found")
    try:
        command = msgspec.convert(properties, kind)
        command.payload(find_model(model).family)
    except (msgspec.ValidationError, CommandError) as error:
        raise _invalid(name, str(error)) from None
    return command


def request_of(name: str, properties: Mapping[str, Any], model: str | None) -> Request:
    """The same, ready to be sent. Raises CommandError."""
    command = make_command(name, properties, model)
    family = find_model(model).family
    return Request(command.payload(family), command.codec, command.is_answered(family), command.reply)


def _invalid(name: str, reason: str) -> CommandError:
    return CommandError(f"command {name} properties validation failed: {reason}")


@functools.cache
def describe_commands(model: str | None) -> tuple[dict[str, Any], ...]:
    """Each command as flespi describes it: ``name``, ``address``, ``schema`` (JSON Schema of the properties),
    ``examples``. Not to be changed."""
    return tuple(_description(kind) for kind in commands_of(model).values())


def _description(kind: type[Command]) -> dict[str, Any]:
    examples = [{"properties": properties} for properties in kind.examples]
    return {"name": kind.name, "address": ADDRESS, "schema": schema_of(kind), "examples": examples}


def schema_of(kind: type[Command]) -> dict[str, Any]:
    """The JSON Schema of a command's properties, complete in itself."""
    (schema,), definitions = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    own: dict[str, Any] = {**definitions.pop(schema["$ref"].rpartition("/")[2]), **kind.also, "title": kind.name}
    return {**own, "$defs": definitions} if definitions else own
