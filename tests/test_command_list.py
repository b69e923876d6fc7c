"""Which model has which commands, and how clients are told."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest

from gateway.protocols.teltonika.command_list import COMMANDS, commands_of, describe_commands, make_command
from gateway.protocols.teltonika.commands import CommandError
from gateway.protocols.teltonika.device_types import device_types

NAMES = {kind.name for kind in COMMANDS}


def test_no_two_commands_have_one_name() -> None:
    assert len(NAMES) == len(COMMANDS)


def test_every_device_type_has_its_commands() -> None:
    """All of them take custom, getparam and setparam, as flespi's do."""
    for kind in device_types().values():
        assert {"custom", "getparam", "setparam", "getver"} <= commands_of(kind.model).keys() <= NAMES


def test_a_model_that_is_not_known_has_all() -> None:
    """As one of the FMB family."""
    assert commands_of(None).keys() == commands_of("FMB120").keys() == NAMES
    assert NAMES - commands_of("ATC700").keys() == {"setdigout"}


@pytest.mark.parametrize(("name", "model"), [("engine.relay", None), ("", None), ("setdigout", "ATC700")])
def test_a_command_that_a_model_does_not_have_is_refused_in_flespi_s_words(name: str, model: str | None) -> None:
    reason = f"command {name} properties validation failed: command definition {name} is not found"
    with pytest.raises(CommandError) as caught:
        make_command(name, {}, model)
    assert str(caught.value) == reason


def test_the_description_is_complete_json() -> None:
    """Every property is described in place, or in the description itself."""
    for description in describe_commands("FMB120"):
        assert description["name"] in NAMES
        assert description["address"] == ["connection"]
        schema = json.loads(json.dumps(description["schema"]))
        assert schema["additionalProperties"] is False
        assert schema["description"].endswith(".")
        jsonschema_rs.meta.validate(schema)


def test_the_examples_follow_the_schema_and_can_be_sent() -> None:
    for description in describe_commands("FMB120"):
        for example in description["examples"]:
            jsonschema_rs.validate(description["schema"], example["properties"])
            assert make_command(description["name"], example["properties"], "FMB120").payload("FMB")


@pytest.mark.parametrize(
    ("name", "properties"),
    [
        ("custom", {}),
        ("custom", {"text": "a", "hex": "00"}),
        ("getparam", {"ids": [1]}),
        ("setdigout", {"states": "x"}),
    ],
)
def test_what_is_refused_does_not_follow_the_schema(name: str, properties: dict[str, object]) -> None:
    """A client that checks its forms by the schema finds the same."""
    schema = next(one["schema"] for one in describe_commands(None) if one["name"] == name)
    assert not jsonschema_rs.is_valid(schema, properties)
    with pytest.raises(CommandError):
        make_command(name, properties, None)
