"""The commands: properties, texts on the wire, replies."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.emulator.commands import Commands
from gateway.emulator.group import Group
from gateway.protocols.teltonika import commands as c
from gateway.protocols.teltonika.avl_ids import find_model
from gateway.protocols.teltonika.command_list import COMMANDS, make_command
from gateway.protocols.teltonika.commands import Command, CommandError
from tests.builders import FrameFactory

IMEI = "352093081452251"


def payload(name: str, family: str = "FMB", **properties: Any) -> bytes:
    return make_command(name, properties, None).payload(family)


@pytest.mark.parametrize(
    ("name", "properties", "text"),
    [
        ("custom", {"text": "getvin"}, b"getvin"),
        ("custom", {"text": "flush\r\n"}, b"flush\r\n"),
        ("custom", {"hex": "DEADbeef"}, b"\xde\xad\xbe\xef"),
        ("getparam", {"param": 2004}, b"getparam 2004"),
        ("getparam", {"params": [2004, 2005]}, b"getparam 2004;2005"),
        ("setparam", {"param": 1000, "value": 300}, b"setparam 1000:300"),
        ("setparam", {"param": 2004, "value": ""}, b"setparam 2004:"),
        ("setparam", {"param": 2000, "value": True}, b"setparam 2000:1"),
        (
            "setparam",
            {"params": [{"param": 2004, "value": "gw.example.com"}, {"param": 2005, "value": 5027}]},
            b"setparam 2004:gw.example.com;2005:5027",
        ),
        ("setdigout", {"states": "1"}, b"setdigout 1"),
        ("setdigout", {"states": "?1", "seconds": [None, 30]}, b"setdigout ?1 ? 30"),
        ("readio", {"id": 66}, b"readio 66"),
        *((name, {}, name.encode()) for name in ("getver", "getinfo", "getgps", "getstatus", "getio", "getrecord")),
        ("cpureset", {}, b"cpureset"),
        ("deleterecords", {}, b"deleterecords"),
    ],
)
def test_a_command_has_the_text_of_the_vendor(name: str, properties: dict[str, Any], text: bytes) -> None:
    assert payload(name, **properties) == text


def test_old_families_want_spaces_and_numbers() -> None:
    """FM1100's manual: ``setparam 1245 127.0.0.1``; FMB630's: ``setdigout 0010 0 0 5 0``."""
    assert payload("setparam", "FM36", param=1245, value="127.0.0.1") == b"setparam 1245 127.0.0.1"
    assert payload("setdigout", "FM63XY", states="0010", seconds=[None, None, 5]) == b"setdigout 0010 0 0 5"


@pytest.mark.parametrize("properties", [{"params": [1, 2]}, {"params": [2004, 2005, 2006]}])
def test_old_families_take_one_parameter_at_a_time(properties: dict[str, Any]) -> None:
    with pytest.raises(CommandError, match="devices of the FM36 family take one parameter in a command, not"):
        make_command("getparam", properties, "FM3612")
    assert make_command("getparam", {"params": [1245]}, "FM3612").payload("FM36") == b"getparam 1245"


@pytest.mark.parametrize(
    ("name", "properties", "reason"),
    [
        ("custom", {}, "exactly one of text and hex is needed"),
        ("custom", {"text": "a", "hex": "00"}, "exactly one of text and hex is needed"),
        ("custom", {"text": ""}, "length >= 1"),
        ("custom", {"text": "x" * 1025}, "length <= 1024"),
        ("custom", {"hex": "abc"}, "matching regex"),
        ("custom", {"hex": "xy"}, "matching regex"),
        ("custom", {"payload": "getver"}, "unknown field `payload`"),
        ("custom", {"text": "a", "codec": 13}, "Invalid enum value 13"),
        ("getparam", {}, "exactly one of param and params"),
        ("getparam", {"params": []}, "length >= 1"),
        ("getparam", {"params": [1] * 51}, "length <= 50"),
        ("getparam", {"param": -1}, ">= 0"),
        ("getparam", {"param": "2004"}, "Expected `int`"),
        ("setparam", {"param": 1}, "param and value belong together"),
        ("setparam", {"value": 1, "params": [{"param": 1, "value": 1}]}, "param and value belong together"),
        ("setparam", {"param": 1, "value": "a;2:b"}, "matching regex"),
        ("setparam", {"param": 1, "value": "a\n"}, "line ends and other control characters"),
        ("setparam", {"param": 1, "value": "a\r\nb"}, "line ends and other control characters"),
        ("setparam", {"param": 1, "value": None}, "Expected"),
        ("setdigout", {}, "missing required field `states`"),
        ("setdigout", {"states": "2"}, "matching regex"),
        ("setdigout", {"states": "1\n"}, "control characters"),
        ("setdigout", {"states": "1", "seconds": [1, 2]}, "seconds names 2 outputs, states only 1"),
        ("setdigout", {"states": "1", "seconds": [-1]}, ">= 0"),
        ("readio", {"id": 0}, ">= 1"),
        ("getver", {"text": "x"}, "unknown field"),
    ],
)
def test_wrong_properties_are_refused_with_the_reason(name: str, properties: dict[str, Any], reason: str) -> None:
    """Nothing of it reaches a device."""
    with pytest.raises(CommandError, match=f"^command {name} properties validation failed: .*{re.escape(reason)}"):
        make_command(name, properties, None)


def test_every_command_can_be_had_in_codec_14() -> None:
    for kind in COMMANDS:
        command = make_command(kind.name, {**kind.examples[0], "codec": 14}, None)
        assert command.codec == 14


@pytest.mark.parametrize(
    ("kind", "family", "is_answered"),
    [
        (c.CpuReset, "FMB", False),
        (c.GetRecord, "FTX", False),
        (c.DeleteRecords, "FMX6", True),
        (c.DeleteRecords, "FM63XY", False),
        (c.GetVer, "FM36", True),
    ],
)
def test_some_commands_are_never_answered(kind: type[Command], family: str, is_answered: bool) -> None:
    """The vendor's tables say which."""
    assert kind().is_answered(family) is is_answered


def test_a_device_without_outputs_has_no_setdigout() -> None:
    """Its dictionary names no output."""
    assert c.SetDigOut.is_for(find_model("FMB920"))
    assert c.SetDigOut.is_for(find_model(None))
    assert not c.SetDigOut.is_for(find_model("ATC700"))


def tracker() -> Commands:
    record = FrameFactory().record(0x8E, n1=[(1, 1), (239, 1)], n2=[(9, 7)], timestamp=1_700_000_000_000)
    return Commands(IMEI, Group(model="FMC130"), lambda: record, lambda: 1_763_709_000.0)


@pytest.mark.parametrize(
    ("name", "properties", "some"),
    [
        ("getver", {}, {"Hw": "FMC130", "IMEI": IMEI, "Init": "2025-11-21 7:10"}),
        ("getinfo", {}, {"RTC": "2025/11/21 7:10", "SAT": "11"}),
        ("getgps", {}, {"Lat": "54.687200", "Long": "25.279700", "Time": "22:13:20"}),
        ("getio", {}, {"DI1": "1", "AIN1": "7", "DO1": "0"}),
        ("getparam", {"params": [113, 2006]}, {"113": "1", "2006": "0"}),
        ("setparam", {"param": 2004, "value": "gw.example.com"}, {"2004": "gw.example.com"}),
    ],
)
def test_a_virtual_tracker_s_answers_are_understood(
    name: str, properties: dict[str, Any], some: dict[str, str]
) -> None:
    """Named commands and their replies, with the emulator at the other end."""
    command = make_command(name, properties, "FMC130")
    reply = command.reply(tracker().obey(command.payload("FMB").decode()).encode())
    assert isinstance(reply, dict)
    assert reply | some == reply


@pytest.mark.parametrize("name", ["getver", "getparam", "readio", "custom"])
def test_a_reply_in_another_form_is_kept_as_it_came(name: str) -> None:
    """Text where it is text."""
    properties = {"getparam": {"param": 1}, "readio": {"id": 1}, "custom": {"text": "x"}}.get(name, {})
    command = make_command(name, properties, None)
    assert command.reply(b"WARNING: Not Recognized\r\n") == "WARNING: Not Recognized\r\n"
    assert command.reply(b"\x01\x04\xff") == {"hex": "0104ff"}
    assert command.reply(b"") == ""


@given(st.sampled_from(COMMANDS), st.binary(max_size=200))
def test_whatever_a_device_replies_is_a_reply(kind: type[Command], data: bytes) -> None:
    """Nothing that a tracker sends raises, and JSON can hold it."""
    reply = make_command(kind.name, kind.examples[0], None).reply(data)
    assert msgspec.json.decode(msgspec.json.encode(reply)) == reply


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["text", "hex", "param", "params", "value", "states", "seconds", "id", "codec", "x"])


@given(st.sampled_from([kind.name for kind in COMMANDS]), st.dictionaries(FIELDS, JSON, max_size=3))
def test_whatever_a_client_sends_is_a_command_or_refused(name: str, properties: dict[str, Any]) -> None:
    """By CommandError alone."""
    try:
        command = make_command(name, properties, None)
    except CommandError:
        return
    assert command.payload("FMB")
