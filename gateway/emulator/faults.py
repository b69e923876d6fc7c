"""What goes wrong between a device and its server, on request. What goes wrong in a record is the recorder's.

Nothing here changes the packet that the device keeps: what it sends again is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import Any, get_type_hints

import attrs

from gateway.emulator.group import Faults
from gateway.errors import ConfigError

UNKNOWN_CODEC = 0x55  # no document of Teltonika's has a codec of this number

NONE = Faults()
_FIELDS: dict[str, attrs.Attribute[Any]] = {field.name.replace("_", "-"): field for field in attrs.fields(Faults)}
_TYPES = get_type_hints(Faults)


def parse_faults(texts: Iterable[str]) -> Faults:
    """``["cut:0.01", "segments:7,bad-crc:0.02"]`` as faults. Raises ConfigError."""
    values: dict[str, Any] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, _, value = part.partition(":")
        field = _FIELDS.get(name)
        if field is None:
            raise ConfigError(f"{name!r} is not a fault; there are {', '.join(_FIELDS)}")
        values[field.name] = _value(name, field, value)
    return Faults(**values)


def describe_faults() -> str:
    """A line for each fault."""
    return "\n".join(f"  {name:<18}{field.metadata['doc']}" for name, field in _FIELDS.items())


def happens(probability: float, random: Random) -> bool:
    """Throw the dice; without a probability they are not even taken in hand."""
    return probability > 0 and random.random() < probability


def spoil_crc(frame: bytes) -> bytes:
    """The same frame with a wrong CRC."""
    return frame[:-1] + bytes([frame[-1] ^ 0xFF])


def spoil_codec(body: bytes) -> bytes:
    """The same body in a codec that nobody knows."""
    return bytes([UNKNOWN_CODEC]) + body[1:]


def segments(data: bytes, size: int) -> Iterator[bytes]:
    """``data`` in pieces of ``size`` bytes; whole where that is 0."""
    size = size or len(data)
    return (data[begin : begin + size] for begin in range(0, len(data), size))


def _value(name: str, field: attrs.Attribute[Any], text: str) -> Any:
    check = field.metadata["check"]
    try:
        value = _TYPES[field.name](text)
    except ValueError:
        raise ConfigError(
            f"fault {name} needs a number, as in {name}:{1 if field.default else 0}, not {text!r}"
        ) from None
    problem = check(value) if check else None
    if problem:
        raise ConfigError(f"fault {name}: {text} should be {problem}")
    return value
