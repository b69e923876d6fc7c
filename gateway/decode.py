"""``python -m gateway.decode [HEX]``: what is in a packet or a login, as JSON; for whoever looks at a log or a capture.

Understands what a tracker sends over TCP (pings, a login, frames, also several behind each other), a datagram, and a
bare body from codec id to number of data 2; which of them it is, the bytes tell. Shown are the fields of the frame,
each record's wire values, and the messages that the gateway makes of them for ``--model``.

What is broken is said with the byte at which it is, counted from 0, on standard error; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from gateway.errors import DecodeError, ProtocolViolation
from gateway.protocols.teltonika import datagram, frame, wire
from gateway.protocols.teltonika.checksum import crc16
from gateway.protocols.teltonika.device_types import find_device_type
from gateway.protocols.teltonika.normalize import normalizer_for
from gateway.protocols.teltonika.wire_commands import BODIES as COMMAND_BODIES
from gateway.protocols.teltonika.wire_commands import decode_command

Shown = dict[str, Any]

_HEAD = 8  # preamble, data field length
_CRC = 4
_DATAGRAM_HEAD = 8  # length, packet id, not usable byte, AVL packet id, IMEI length


def read_hex(text: str) -> bytes:
    """The bytes that ``text`` writes in hexadecimal, white space anywhere. Raises DecodeError."""
    digits = "".join(text.split()).removeprefix("0x")
    wrong = re.search(r"[^0-9A-Fa-f]", digits)
    if wrong:
        raise DecodeError(f"{wrong[0]!r} is not a hexadecimal digit", wrong.start() // 2)
    if not digits:
        raise DecodeError("nothing to decode", 0)
    if len(digits) % 2:
        raise DecodeError("half a byte at the end", len(digits) // 2)
    return bytes.fromhex(digits)


def explain(data: bytes, model: str | None = None) -> list[Shown]:
    """All that is in ``data``, in its order. Raises DecodeError, whose offset is the byte in ``data``."""
    if data[0] in wire.RECORDS or data[0] in COMMAND_BODIES:
        return [{"transport": "none", "kind": "body", **_explain_body(data, 0, model, {})}]
    if _is_datagram(data):
        return [_explain_datagram(data, model)]
    return list(_explain_stream(data, model))


def _is_datagram(data: bytes) -> bool:
    """Its length fits, and it is no login, which fits as well."""
    return len(data) >= _DATAGRAM_HEAD and int.from_bytes(data[:2], "big") == len(data) - 2 and not data[2:].isdigit()


def _explain_stream(data: bytes, model: str | None) -> Iterator[Shown]:
    at = 0
    known: Shown = {}
    while at < len(data):
        if data[at : at + 1] == frame.PING:
            shown, size = {"transport": "tcp", "kind": "ping"}, 1
        elif not any(data[at : at + 4]):
            shown, size = _explain_frame(data, at, model, known)
        else:
            shown, size = _explain_login(data, at)
            known = {"ident": shown["ident"]}
        yield shown
        at += size


def _explain_login(data: bytes, at: int) -> tuple[Shown, int]:
    length = int.from_bytes(data[at : at + 2], "big")
    digits = data[at + 2 : at + 2 + length]
    if len(data) - at < 2 or not 1 <= length <= frame.MAX_IMEI_LENGTH:
        raise DecodeError("neither a login nor a frame nor a datagram", at)
    for offset, digit in enumerate(digits):
        if not chr(digit).isdigit():
            raise DecodeError(f"byte {digit:02x} of an IMEI is not a digit", at + 2 + offset)
    if len(digits) < length:
        raise DecodeError(f"an IMEI of {length} digits ends too early", len(data))
    return {"transport": "tcp", "kind": "login", "length": length, "ident": digits.decode("ascii")}, 2 + length


def _explain_frame(data: bytes, at: int, model: str | None, known: Shown) -> tuple[Shown, int]:
    length = int.from_bytes(data[at + 4 : at + _HEAD], "big")
    size = _HEAD + length + _CRC
    if len(data) - at < _HEAD or len(data) - at < size:
        raise DecodeError(f"data field length says {length}, the frame ends too early", len(data))
    whole = data[at : at + size]
    body, crc = frame.body_of(whole), int.from_bytes(whole[-_CRC:], "big")
    if crc != crc16(body):
        raise DecodeError(f"CRC is {crc:08x}, the body's is {crc16(body):08x}", at + size - _CRC)
    head = {"transport": "tcp", "kind": "frame", "preamble": whole[:4], "data_length": length}
    return {**head, **_explain_body(body, at + _HEAD, model, known), "crc": f"{crc:08x}"}, size


def _explain_datagram(data: bytes, model: str | None) -> Shown:
    try:
        event = datagram.receive_datagram(data)
    except ProtocolViolation as violation:
        raise DecodeError(str(violation), _DATAGRAM_HEAD) from violation
    head = {
        "transport": "udp",
        "kind": "datagram",
        "length": len(data) - 2,
        "packet_id": f"{event.packet_id:04x}",
        "avl_packet_id": event.avl_packet_id,
        "ident": event.ident,
    }
    return head | _explain_body(event.body, len(data) - len(event.body), model, {"ident": event.ident})


def _explain_body(body: bytes, at: int, model: str | None, known: Shown) -> Shown:
    try:
        if body and body[0] in COMMAND_BODIES:
            command = decode_command(body)
            commands = [_with_text(message) for message in command.pop("messages")]
            return {**command, "commands": commands}
        packet = wire.decode_packet(body)
    except DecodeError as error:
        raise DecodeError(error.reason, at + (error.offset or 0)) from error
    messages = [known | found for found in normalizer_for(model).normalize_all(packet["records"], packet["codec_id"])]
    return {**packet, "messages": messages}


def _with_text(message: Shown) -> Shown:
    payload = message["payload"]
    is_text = payload.isascii() and payload.decode("ascii").strip().isprintable()
    return {**message, "text": payload.decode("ascii")} if is_text else message


def to_json(shown: Sequence[Shown]) -> bytes:
    """One thing as an object, several as an array; bytes are hexadecimal text."""
    return orjson.dumps(shown[0] if len(shown) == 1 else list(shown), default=_as_text, option=orjson.OPT_INDENT_2)


def _as_text(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes | bytearray) else dict(value)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway.decode", description="Decode a Teltonika packet or login.")
    parser.add_argument("hex", nargs="*", metavar="HEX", help="hexadecimal, white space ignored (default: stdin)")
    parser.add_argument("--model", help="the device's model, as FMC130; it decides what AVL ids mean")
    options = parser.parse_args(arguments)
    if options.model is not None and find_device_type(options.model) is None:
        print(f"--model: there is no {options.model!r}; it should be like FMC130", file=sys.stderr)
        return 1
    try:
        shown = explain(read_hex(" ".join(options.hex) or sys.stdin.read()), options.model)
    except DecodeError as error:
        print(f"byte {error.offset}: {error.reason}", file=sys.stderr)
        return 1
    sys.stdout.write(to_json(shown).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
