"""The bodies of Codec 12, 13, 14 and 15: commands, their responses, and what devices pass on from a serial port.

Names and order are those of the Teltonika wiki, page Codec; all integers are big-endian::

    codec id 1 | quantity 1: 1 | messages | quantity 2: 1        (the quantity is 1 in practice)

    Codec 12  0x0C  both ways         type 1 | size 4 | payload
    Codec 13  0x0D  device to server  type 1 | size 4 | timestamp 4 | payload
    Codec 14  0x0E  both ways         type 1 | size 4 | IMEI 8 | payload
    Codec 15  0x0F  device to server  type 1 | size 4 | timestamp 4 | IMEI 8 | payload

The size counts everything behind it. Types: 05 request, 06 response, 0x11 "not my IMEI" (Codec 14); others are serial
data. The payload is usually ASCII without terminator, but may be binary: it stays bytes. These bodies are rare, so the
grammar is not compiled: interpreted, it checks more (a compiled ``Bytes`` accepts fewer bytes than it asked for).

A body is a dict of ``codec_id``, ``count``, ``messages`` and ``count_again``; a message is a dict of ``type``,
``payload`` and, where the codec has them, ``imei`` (digits), ``timestamp`` and ``timestamp_size``.
"""

from __future__ import annotations

from typing import Any

from construct import (
    Adapter,
    Array,
    Bytes,
    Check,
    Const,
    Construct,
    GreedyBytes,
    IfThenElse,
    Int8ub,
    Int32ub,
    Int64ub,
    Peek,
    Prefixed,
    Rebuild,
    Struct,
    Terminated,
    len_,
    this,
)

from gateway.errors import DecodeError, EncodeError
from gateway.protocols.teltonika import border

CommandBody = dict[str, Any]
Message = dict[str, Any]

CODEC_12 = 0x0C
CODEC_13 = 0x0D
CODEC_14 = 0x0E
CODEC_15 = 0x0F

REQUEST = 0x05
RESPONSE = 0x06
NOT_MY_IMEI = 0x11


class PackedImei(Adapter):  # type: ignore[misc]  # construct has no types
    """``0352093081452251`` in eight bytes: one digit a nibble behind a 0. A first digit that is not 0 is kept."""

    def _decode(self, obj: bytes, context: Any, path: str) -> str:
        return obj.hex().removeprefix("0")

    def _encode(self, obj: str, context: Any, path: str) -> bytes:
        return bytes.fromhex(obj.rjust(16, "0"))


class TimestampSize(Adapter):  # type: ignore[misc]
    """4, or 8 where eight bytes follow that are milliseconds between 2004 and 2109; nothing is consumed.

    Until May 2021 the wiki gave Codec 13 eight bytes of milliseconds, since then four of seconds. Read as seconds, such
    milliseconds would be a quarter of an hour of January 1970 (0x100 to 0x3FF).
    """

    def _decode(self, obj: int | None, context: Any, path: str) -> int:
        return 8 if obj is not None and 2**40 <= obj < 2**42 else 4

    def _encode(self, obj: int | None, context: Any, path: str) -> int | None:
        return obj


IMEI = "imei" / PackedImei(Bytes(8))
PAYLOAD = "payload" / GreedyBytes

CONTENTS: dict[int, Construct] = {
    CODEC_12: Struct(PAYLOAD),
    CODEC_13: Struct(
        "timestamp_size" / TimestampSize(Peek(Int64ub)),
        "timestamp" / IfThenElse(this.timestamp_size == 8, Int64ub, Int32ub),
        PAYLOAD,
    ),
    CODEC_14: Struct(IMEI, PAYLOAD),
    CODEC_15: Struct("timestamp" / Int32ub, IMEI, PAYLOAD),
}


def _body(codec_id: int) -> Construct:
    return Struct(
        "codec_id" / Const(codec_id, Int8ub),
        "count" / Rebuild(Int8ub, len_(this.messages)),
        "messages" / Array(this.count, Struct("type" / Int8ub, "content" / Prefixed(Int32ub, CONTENTS[codec_id]))),
        "count_again" / Rebuild(Int8ub, this.count),
        Check(this.count == this.count_again),
        Terminated,
    )


BODIES: dict[int, Construct] = {codec_id: _body(codec_id) for codec_id in CONTENTS}


def decode_command(body: bytes) -> CommandBody:
    """The body of a frame of Codec 12 to 15. Raises DecodeError.

    ``timestamp`` is in seconds, or in milliseconds where ``timestamp_size`` is 8.
    """
    grammar = BODIES.get(body[0]) if body else None
    if grammar is None:
        raise DecodeError("unknown codec" if body else "ends too early", 0)
    parsed = border.parse(grammar, body)
    messages = [_flat(message.type, message.content) for message in parsed.messages]
    return {"codec_id": parsed.codec_id, "count": parsed.count, "messages": messages, "count_again": parsed.count_again}


def encode_command(codec_id: int, *messages: Message) -> bytes:
    """The body that carries ``messages``, each a dict as :func:`decode_command` gives it. Raises EncodeError."""
    grammar = BODIES.get(codec_id)
    if grammar is None:
        raise EncodeError(f"unknown command codec {codec_id!r}")
    nested = [{"type": message.get("type"), "content": message} for message in messages]
    return border.build(grammar, {"codec_id": codec_id, "messages": nested})


def _flat(kind: int, content: Message) -> Message:
    """An interpreted Struct leaves its stream under ``_io``."""
    return {"type": kind, **{name: value for name, value in content.items() if not name.startswith("_")}}
