"""What people write, as the API wants it: times, durations, FIELD=VALUE."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from gateway.admin.client import AdminError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
DURATION = re.compile(r"(?P<count>\d+(\.\d+)?)(?P<unit>[smhdw])", re.ASCII)
NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)

TEXTS = frozenset(
    {
        *("name", "info", "protocol_name", "type_name", "validate_message"),
        *("configuration.ident", "configuration.unknown_ident", "configuration.expression"),
    }
)
"""Fields that are texts, whatever they look like: an ident of digits is not a number."""
LISTS = frozenset({"configuration.listen", "ips"})
"""Lists of texts; several are written with commas between."""
TIMES = frozenset({"expire"})
"""Moments; a duration counts from now on."""


def moment(text: str) -> float:
    """UNIX seconds of ``2026-11-21T02:50``, ``02:50`` (today), ``1795000000.5``, or ``2h`` (ago). Raises ValueError."""
    text = text.strip()
    duration = DURATION.fullmatch(text)
    if duration is not None:
        return time.time() - float(duration["count"]) * UNITS[duration["unit"]]
    if NUMBER.fullmatch(text):
        return float(text)
    if text == "now":
        return time.time()
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text, re.ASCII):
        text = f"{datetime.now():%Y-%m-%d} {'0' if text[1] == ':' else ''}{text}"
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} should be like 2026-11-21T02:50, 02:50, 2h (ago), or UNIX seconds") from None


def assigned(arguments: Sequence[str], aliases: Mapping[str, str]) -> dict[str, Any]:
    """The object that ``name=Car configuration.listen=tcp:5028,udp:5028`` describes; dots lead into objects.

    ``aliases`` are short names of fields. Raises AdminError.
    """
    made: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name:
            raise AdminError(f"{argument!r} should be like FIELD=VALUE")
        path = aliases.get(name, name)
        _put(made, path, _value(path, text), argument)
    if not made:
        raise AdminError("nothing to do: give FIELD=VALUE, such as name=Car")
    return made


def _put(made: dict[str, Any], path: str, value: Any, argument: str) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        made = made.setdefault(parent, {})
        if not isinstance(made, dict):
            raise AdminError(f"{argument!r}: {parent} was given a value of its own before")
    made[last] = value


def _value(path: str, text: str) -> Any:
    if path in LISTS:
        return [part.strip() for part in text.split(",") if part.strip()]
    if path in TEXTS:
        return text
    duration = DURATION.fullmatch(text)
    seconds = int(float(duration["count"]) * UNITS[duration["unit"]]) if duration is not None else 0
    if duration is not None and path.endswith("ttl"):
        return seconds
    if path in TIMES:
        return int(time.time()) + seconds if duration is not None else _time(path, text)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _time(path: str, text: str) -> int:
    try:
        return int(moment(text))
    except ValueError as error:
        raise AdminError(f"{path}: {error}") from None
