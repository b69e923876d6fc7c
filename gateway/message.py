"""A message: a flat dict of parameters, JSON outside. What holds for every message, whatever protocol it came by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway.errors import DecodeError, PeerError

Message = dict[str, Any]

KiB = 1024

BYTES_MOST = 64 * KiB
"""Of a message as JSON that somebody makes: as much as a packet of a tracker may have."""
PARAMETERS_MOST = 1024
"""As many as telemetry keeps."""
NAME_MOST = 128
"""Characters of a parameter's name."""
LEVELS_MOST = 8
"""Of arrays and objects in each other, the message itself included."""
LATEST = 2**32 - 1
"""The year 2106."""
TIMES = ("timestamp", "timestamp.key")

POSITION = "position."
LATITUDE = "position.latitude"
LONGITUDE = "position.longitude"

# What orjson and most readers hold; beyond, a number becomes text.
_LOWEST_INTEGER, _HIGHEST_INTEGER = -(2**63), 2**64 - 1


class MessageError(PeerError):
    """A message that did not come from a tracker is none that can be taken. ``field`` names the parameter."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


def encode(message: Mapping[str, Any]) -> bytes:
    """``message`` as JSON text in UTF-8.

    Never fails, and never has NaN or an infinity: what JSON cannot hold is null, or text (plugins and API clients can
    put anything into a message).
    """
    try:
        return orjson.dumps(message)
    except TypeError:
        return orjson.dumps(_encodable(message))


def encode_many(messages: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Each of ``messages`` as JSON text."""
    return [encode(message) for message in messages]


def decode(text: bytes | str) -> Message:
    """The message in JSON ``text``. Raises DecodeError where that is no JSON object."""
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DecodeError(f"not JSON: {error}", error.pos) from error
    if not isinstance(message, dict):
        raise DecodeError("not a JSON object")
    return message


def _encodable(value: Any, depth: int = 0) -> Any:
    if depth > 100:
        return None
    if isinstance(value, Mapping):
        return {_as_text(key): _encodable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_encodable(item, depth + 1) for item in value]
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int) and _LOWEST_INTEGER <= value <= _HIGHEST_INTEGER:
        return value
    return _as_text(value)


def _as_text(value: Any) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def apply_position_rules(message: Message) -> Message:
    """Take a position that cannot be one out of ``message``, in place; applying it again changes nothing.

    Latitude and longitude are removed when one of them is no number, zero, or outside of WGS-84, and the message says
    so: ``position.valid`` false, ``position.skipped`` true (flespi, "Message - basic information unit").
    """
    if LATITUDE not in message and LONGITUDE not in message:
        return message
    if not has_coordinates(message):
        message.pop(LATITUDE, None)
        message.pop(LONGITUDE, None)
        message["position.valid"] = False
        message["position.skipped"] = True
    return message


def has_coordinates(message: Mapping[str, Any]) -> bool:
    """Whether it has a latitude and a longitude that can be."""
    return _is_degrees(message.get(LATITUDE), 90) and _is_degrees(message.get(LONGITUDE), 180)


def _is_degrees(value: Any, limit: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value != 0 and -limit <= value <= limit


def message_key(message: Mapping[str, Any]) -> float:
    """What tells a device's messages apart: ``timestamp.key`` where there is one, else ``timestamp``."""
    key: float = message["timestamp.key"] if "timestamp.key" in message else message["timestamp"]
    return key


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> Message:
    """Two messages with the same key as one: the same parameters overridden by ``new``, the others of both."""
    return {**old, **new}


def position_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """The virtual parameter ``position``: what the message has of ``position.*``, without the prefix."""
    return {name[len(POSITION) :]: value for name, value in message.items() if name.startswith(POSITION)}


def check_bounds(message: Mapping[str, Any]) -> None:
    """What holds for messages of others than trackers: how much they have, names that are safe in topics, times.

    Raises MessageError.
    """
    if len(message) > PARAMETERS_MOST:
        raise MessageError(f"the message has {len(message)} parameters; {PARAMETERS_MOST} are possible")
    for name in message:
        if len(name) > NAME_MOST or not is_safe(name):
            raise MessageError(
                f"a parameter's name has 1 to {NAME_MOST} printable characters, without / # +", name[:NAME_MOST]
            )
    for name in TIMES:
        value = message.get(name, 0.0)
        if type(value) not in (int, float) or not 0 <= value <= LATEST:
            raise MessageError(f"{name} should be a number: UNIX seconds, from 0 to {LATEST}", name)
    if any(is_deeper(value, LEVELS_MOST - 1) for value in message.values()):
        raise MessageError(f"the message is nested deeper than {LEVELS_MOST} levels")
    size = len(encode(message))
    if size > BYTES_MOST:
        raise MessageError(f"the message has {size} bytes; {BYTES_MOST} are possible")


def is_safe(name: str) -> bool:
    """Whether ``name`` can be one level of a topic: not empty, printable, without ``#``, ``+`` and ``/``."""
    return bool(name) and name.isprintable() and not any(sign in name for sign in "#+/")


def is_deeper(value: Any, levels: int) -> bool:
    """Whether arrays and objects stand in each other more than ``levels`` times."""
    if not isinstance(value, dict | list):
        return False
    if levels == 0:
        return True
    return any(is_deeper(item, levels - 1) for item in (value.values() if isinstance(value, dict) else value))
