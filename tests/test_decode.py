"""``python -m gateway.decode``: what it finds out by itself, what it shows, and how it says what is broken."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import decode
from gateway.errors import DecodeError
from gateway.protocols.teltonika.datagram import build_datagram
from gateway.protocols.teltonika.frame import build_frame
from gateway.protocols.teltonika.wire_commands import CODEC_12, RESPONSE, encode_command
from tests.builders import IMEI, FrameFactory
from tests.test_beacons import VECTORS


def decoded(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert decode.main(list(arguments)) == 0
    return json.loads(capsys.readouterr().out)


def broken(capsys: pytest.CaptureFixture[str], text: str) -> str:
    assert decode.main([text]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.strip()


def test_a_frame_is_shown_with_fields_wire_values_and_messages(capsys: pytest.CaptureFixture[str]) -> None:
    shown = decoded(capsys, VECTORS["wiki-codec8-tcp-1"]["hex"])
    assert (shown["transport"], shown["data_length"], shown["codec_id"], shown["count"]) == ("tcp", 54, 8, 1)
    assert (shown["preamble"], shown["crc"], shown["count_again"]) == ("00000000", "0000c7cf", 1)
    assert shown["records"][0]["n2"] == [[66, 24079]]
    assert shown["messages"][0]["external.powersource.voltage"] == 24.079


def test_the_model_decides_what_ids_mean(capsys: pytest.CaptureFixture[str]) -> None:
    frame = FrameFactory().packet(records=[FrameFactory().record(n1=[(71, 3)])]).hex()
    assert decoded(capsys, frame, "--model", "FMC650")["messages"][0]["gnss.state.enum"] == 3
    assert decoded(capsys, frame, "--model", "FMB120")["messages"][0]["onewire.sensor.serial.4"] == "03"


def test_a_login_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Its length fits that of a datagram; digits tell it apart."""
    shown = decoded(capsys, "000F333536333037303432343431303133")
    assert shown == {"transport": "tcp", "kind": "login", "length": 15, "ident": "356307042441013"}


def test_a_datagram_is_shown_with_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    shown = decoded(capsys, VECTORS["wiki-codec8-udp"]["hex"])
    assert (shown["transport"], shown["packet_id"], shown["avl_packet_id"]) == ("udp", "cafe", 5)
    assert shown["ident"] == shown["messages"][0]["ident"] == "352093086403655"


def test_white_space_is_ignored_and_standard_input_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("00 0F 33353633\n3037303432 343431303133\n"))
    assert decoded(capsys)["ident"] == "356307042441013"
    assert decoded(capsys, "000F33353633", "3037303432343431303133")["ident"] == "356307042441013"


def test_a_stream_is_shown_in_its_order(capsys: pytest.CaptureFixture[str]) -> None:
    """Messages behind a login name their tracker."""
    tracker = FrameFactory()
    data = tracker.ping + tracker.login() + tracker.packet() + tracker.packet()
    shown = decoded(capsys, data.hex())
    assert [item["kind"] for item in shown] == ["ping", "login", "frame", "frame"]
    assert shown[3]["messages"][0]["ident"] == IMEI


def test_a_command_is_shown_as_text_if_it_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    body = encode_command(CODEC_12, {"type": RESPONSE, "payload": b"OK\r\n"}, {"type": 13, "payload": b"\x01\xff"})
    shown = decoded(capsys, build_frame(body).hex())
    assert shown["commands"] == [
        {"type": 6, "payload": "4f4b0d0a", "text": "OK\r\n"},
        {"type": 13, "payload": "01ff"},
    ]


def test_a_bare_body_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert decoded(capsys, VECTORS["pdf-fm1100-array-4-records"]["hex"])["count"] == 4


def test_a_wrong_crc_is_said_with_its_byte(capsys: pytest.CaptureFixture[str]) -> None:
    text = broken(capsys, VECTORS["alim-bad-crc-08"]["hex"])
    assert text == "byte 48: CRC is 0000f23a, the body's is 0000f22a"


def test_what_is_wrong_in_a_body_is_said_with_the_byte_of_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    frame = FrameFactory().packet(count_again=9)
    assert broken(capsys, frame.hex()).startswith("byte ")
    assert "counts disagree" in broken(capsys, frame.hex())
    datagram = build_datagram(IMEI, b"\x99\x00\x00", 1, 1)
    assert broken(capsys, datagram.hex()) == "byte 23: unknown codec"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0x00zz", "byte 1: 'z' is not a hexadecimal digit"),
        ("000", "byte 1: half a byte at the end"),
        (" ", "byte 0: nothing to decode"),
        ("000f3335", "byte 4: an IMEI of 15 digits ends too early"),
        ("000f33ff", "byte 3: byte ff of an IMEI is not a digit"),
        ("474554202f", "byte 0: neither a login nor a frame nor a datagram"),
        ("0000000000000010", "byte 8: data field length says 16, the frame ends too early"),
        ("000000", "byte 3: data field length says 0, the frame ends too early"),
    ],
)
def test_what_is_broken_is_said_with_the_byte(capsys: pytest.CaptureFixture[str], text: str, said: str) -> None:
    assert broken(capsys, text) == said


@given(st.binary(min_size=1, max_size=80))
def test_any_bytes_are_explained_or_refused(data: bytes) -> None:
    """Refused at a byte that is there, or just behind the last one."""
    offset: int | None = 0
    try:
        assert json.loads(decode.to_json(decode.explain(data)))
    except DecodeError as error:
        offset = error.offset
    assert offset is not None
    assert 0 <= offset <= len(data)


def test_it_is_a_program() -> None:
    """Run as documented, from the root of the project."""
    program = [sys.executable, "-m", "gateway.decode"]
    good = subprocess.run([*program, "000F333536333037303432343431303133"], capture_output=True, check=False)
    assert (good.returncode, json.loads(good.stdout)["kind"]) == (0, "login")
    assert subprocess.run([*program, "zz"], capture_output=True, check=False).returncode == 1
