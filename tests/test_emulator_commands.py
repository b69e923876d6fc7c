"""What a virtual tracker answers to commands."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.emulator.commands import BAD_SYNTAX, UNKNOWN, Commands, Reply
from gateway.emulator.group import Group
from gateway.protocols.teltonika.frame import build_frame
from gateway.protocols.teltonika.wire_commands import (
    CODEC_12,
    CODEC_14,
    NOT_MY_IMEI,
    RESPONSE,
    decode_command,
    encode_command,
)
from tests.builders import FrameFactory

IMEI = "352093081452251"
NOW = 1_763_709_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def some_commands(clock: Clock | None = None, **group: Any) -> Commands:
    record = FrameFactory().record(0x8E, n1=[(1, 1), (239, 1)], n2=[(9, 7)], timestamp=1_700_000_000_000)
    return Commands(IMEI, Group(model="FMC130", **group), lambda: record, clock or Clock())


def request(text: str, codec: int = CODEC_12, imei: str = IMEI, type: int = 5) -> bytes:
    return build_frame(encode_command(codec, {"type": type, "imei": imei, "payload": text.encode()}))


def message_of(reply: Reply | None) -> dict[str, Any]:
    assert reply is not None
    return dict(decode_command(reply.data[8:-4])["messages"][0])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("getver", "Hw:FMC130 Mod:15 IMEI:352093081452251 Init:2025-11-21 7:10 Uptime:0"),
        ("getinfo", "RTC:2025/11/21 7:10"),
        ("getinfo", "GPS:3 SAT:11"),
        ("getgps", "GPS:1 Sat:11 Lat:54.687200 Long:25.279700 Alt:112 Speed:50 Dir:90 Date:2023/11/14 Time:22:13:20"),
        ("getio", "DI1:1 DI2:0 DI3:0 AIN1:7 AIN2:0 DO1:0 DO2:0"),
        ("getparam 1001", "Param ID:1001 Val:10"),
        ("getparam 113;2006", "Param ID:113 Val:1;Param ID:2006 Val:0"),
        ("setparam 1001:25;11000:x", "New value 1001:25;11000:x"),
        ("setdigout 1", "DOUT1:1 Timeout:INFINITY"),
        ("setdigout ?1 ? 30", "DOUT1:IGNORED DOUT2:1 Timeout:30s"),
        ("setdigout", BAD_SYNTAX),
        ("setdigout 2", BAD_SYNTAX),
        ("setdigout 1 soon", BAD_SYNTAX),
        ("getparam", BAD_SYNTAX),
        ("setparam 1001", BAD_SYNTAX),
        ("GETVER", UNKNOWN),
        ("make coffee", UNKNOWN),
    ],
)
def test_a_command_is_answered_as_the_vendor_s_devices_do(text: str, answer: str) -> None:
    """Commands are case-sensitive there."""
    assert answer in some_commands().obey(text)


def test_a_parameter_that_was_set_is_told() -> None:
    commands = some_commands()
    commands.obey("setparam 1001:25")
    assert commands.obey("getparam 1001") == "Param ID:1001 Val:25"


@pytest.mark.parametrize("codec", [CODEC_12, CODEC_14])
def test_the_answer_comes_in_the_codec_of_the_question(codec: int) -> None:
    reply = some_commands().reply(request(" getio\r\n", codec))
    assert reply is not None
    assert (reply.text, reply.restarts) == ("getio", False)
    message = message_of(reply)
    assert (message["type"], message["payload"].decode()) == (RESPONSE, reply.answer)
    assert message.get("imei", IMEI) == IMEI


def test_a_command_for_another_imei_is_refused() -> None:
    """Type 0x11, this device's IMEI, no text."""
    message = message_of(some_commands().reply(request("setdigout 1", CODEC_14, "352093081452468")))
    assert (message["type"], message["imei"], message["payload"]) == (NOT_MY_IMEI, IMEI, b"")


@pytest.mark.parametrize(
    "frame",
    [request("getver", type=6), request("getver")[:-1] + b"\0", build_frame(b"\x0c\x01"), build_frame(b"\x08\0\0")],
    ids=["a response", "wrong CRC", "too short", "no command"],
)
def test_what_is_no_command_is_not_answered(frame: bytes) -> None:
    assert some_commands().reply(frame) is None


def test_a_set_output_shows_in_what_is_recorded_until_its_time_is_over() -> None:
    clock = Clock()
    commands = some_commands(clock)
    record = FrameFactory().record(0x8E)
    assert commands.overlay(record) is record
    commands.obey("setdigout 1? 30")
    shown = commands.overlay(record)
    assert dict(shown["n1"])[179] == 1
    assert shown["total"] == record["total"] + 1
    assert "DO1:1 DO2:0" in commands.obey("getio")
    clock.now += 31
    assert dict(commands.overlay(record)["n1"])[179] == 0


def test_codec_8_has_no_room_for_the_third_output() -> None:
    commands = some_commands(codec="8")
    commands.obey("setdigout 111")
    ids = {avl_id for avl_id, _ in commands.overlay(FrameFactory().record(8))["n1"]}
    assert ids == {239, 240, 179, 180}


def test_a_restart_is_not_answered_and_begins_anew() -> None:
    clock = Clock()
    commands = some_commands(clock)
    commands.obey("setdigout 1")
    clock.now += 60
    reply = commands.reply(request("cpureset"))
    assert reply is not None
    assert (reply.restarts, reply.data) == (True, b"")
    assert "Uptime:0 " in commands.obey("getver")
    assert commands.output(1) == 0
