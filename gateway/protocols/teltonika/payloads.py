"""Structured values other than beacons: crash traces, fault codes, coordinates as text, buttons, operators.

Functions that find something else than they expect raise DecodeError; the caller then keeps the raw value.
"""

from __future__ import annotations

import re
import struct
from typing import Any

from gateway.errors import DecodeError
from gateway.protocols.teltonika.values import ascii_text

_AXES = ("x", "y", "z")
_OBD_CODE = re.compile(r"[PCBU][0-9A-F]{4}(-[0-9A-F]{2})?")
_ISO_6709 = re.compile(r"([+-])(\d\d)(\d\d)(\d\d\.\d+)([+-])(\d{3})(\d\d)(\d\d\.\d+)([+-]\d+\.\d+)/")


def read_text(data: bytes) -> str:
    """Printable ASCII. Raises DecodeError."""
    text = ascii_text(data)
    if text is None:
        raise DecodeError("not printable text")
    return text


def read_trace(data: bytes) -> list[dict[str, float]]:
    """AVL id 257: samples of 6 bytes, oldest first, each X, Y and Z as int16 in mg; here in g. Raises DecodeError."""
    if len(data) % 6:
        raise DecodeError("a crash trace is not made of samples of 6 bytes")
    return [
        dict(zip(_AXES, (axis / 1000 for axis in sample), strict=True)) for sample in struct.iter_unpack(">3h", data)
    ]


def read_axes(value: int) -> tuple[float, float, float]:
    """AVL ids 258 and 259: two bytes of zeros, then X, Y and Z as int16 in mg; here in g. Raises DecodeError."""
    zeros, x, y, z = struct.unpack(">H3h", value.to_bytes(8, "big"))
    if zeros:
        raise DecodeError("no zeros before three axes")
    return x / 1000, y / 1000, z / 1000


def read_vector(value: int) -> tuple[float, float, float, float]:
    """AVL ids 1429 and 1432: X, Y and Z as int16 and the length of the vector as uint16, in mg; here in g."""
    x, y, z, length = struct.unpack(">3hH", value.to_bytes(8, "big"))
    return x / 1000, y / 1000, z / 1000, length / 1000


def read_alcohol(value: int) -> tuple[float, int]:
    """AVL id 285: 14 bits of alcohol in the blood, in thousandths of a permille, and 2 bits of how it was tested."""
    return (value >> 2) / 1000, value & 3


def read_fault_codes(data: bytes, separators: str = "") -> list[dict[str, str]]:
    """Fault codes as text with commas or ``separators`` between them (AVL ids 281, 282, 525, 10494, 10496).

    Raises DecodeError.
    """
    codes = [code.strip() for code in re.split(f"[,;{re.escape(separators)}]", read_text(data))]
    return [_fault_code(code) for code in codes if code]


def _fault_code(code: str) -> dict[str, str]:
    return {"code": code, "standard": "OBDII"} if _OBD_CODE.fullmatch(code.upper()) else {"code": code}


def read_fault_number(value: int) -> list[dict[str, str]]:
    """A fault code of SAE J1939 as the four bytes that it has on the bus (AVL ids 10493 and 10495); 0 is none."""
    return [{"code": f"{value:08x}", "standard": "J1939"}] if value else []


def read_iso6709(data: bytes) -> dict[str, Any]:
    """AVL id 387, ``+DDMMSS.SSSS+DDDMMSS.SSSS+AAA.AAA/``: the text, degrees and meters. Raises DecodeError."""
    text = read_text(data)
    found = _ISO_6709.fullmatch(text)
    if found is None:
        raise DecodeError("not coordinates as in ISO 6709")
    return {
        "ascii": text,
        "latitude": _degrees(*found.group(1, 2, 3, 4)),
        "longitude": _degrees(*found.group(5, 6, 7, 8)),
        "altitude": float(found[9]),
    }


def _degrees(sign: str, degrees: str, minutes: str, seconds: str) -> float:
    return float(f"{sign}1") * (int(degrees) + int(minutes) / 60 + float(seconds) / 3600)


def read_operator(value: int) -> tuple[str, int, int]:
    """AVL id 241: a decimal MCC with two or three digits of MNC behind it, as text and both apart. Raises DecodeError.

    The value is a number, so the zero that the code of a test network begins with is not sent.
    """
    code = f"{value:05d}"
    if not value or len(code) > 6:
        raise DecodeError("not an operator's code")
    return code, int(code[:3]), int(code[3:])


def read_button(data: bytes) -> tuple[int, int]:
    """AVL id 389 of asset trackers: button and action, half a byte each. Raises DecodeError."""
    if len(data) != 1:
        raise DecodeError("a button click is one byte")
    return data[0] >> 4, data[0] & 15


def read_proximity(data: bytes) -> tuple[str, str]:
    """AVL id 875: who came too near, as (what it is, text). Raises DecodeError.

    Older firmware sends a MAC address, newer an IMEI in hexadecimal, both as text.
    """
    text = read_text(data)
    if re.fullmatch(r"[0-9A-Fa-f]{12}", text):
        return "mac.address", text
    return "ident", str(int(text, 16)) if re.fullmatch(r"[0-9A-Fa-f]{14}", text) else text


def read_digits(value: int) -> str:
    """An IMEI or IMSI of 15 digits in 8 bytes, as a number or with one digit in each half byte. Raises DecodeError."""
    if value < 10**15:
        return f"{value:015d}" if value else ""
    digits = f"{value:016x}".strip("f").removeprefix("0")
    if not digits.isdecimal():
        raise DecodeError("not decimal digits")
    return digits


def read_fms_version(value: int) -> str:
    """AVL id 109: four digits of ASCII, ``ab.cd``. Raises DecodeError."""
    text = read_text(value.to_bytes(4, "big"))
    if not re.fullmatch(r"[0-9A-Za-z]{4}", text):
        raise DecodeError("not a version of four digits")
    return f"{text[:2]}.{text[2:]}"


def read_name(data: bytes) -> str:
    """A driver's name: the first byte is the part of ISO 8859 that the others are in. Raises DecodeError.

    Firmware exists that leaves that byte out: a first byte that is no part of ISO 8859 belongs to the name.
    """
    part = data[0] if data and 1 <= data[0] <= 16 and data[0] != 12 else 0
    try:
        text = data[1:].decode(f"iso8859-{part}") if part else data.decode("iso8859-1")
    except UnicodeDecodeError as error:
        raise DecodeError("not a name in ISO 8859") from error
    text = text.strip("\0 ")
    if not text.isprintable():
        raise DecodeError("not a name")
    return text
