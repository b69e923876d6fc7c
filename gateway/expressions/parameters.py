"""How a parameter is found in a message.

Messages are flat, with dots in the names. An item of the API is not, and a message may hold objects: where there is no
parameter of the whole name, the longest beginning that is one is opened, so ``configuration.ident`` and
``ble.beacons.0.id`` find what one would expect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.errors import MissingParameter
from gateway.expressions.context import Context

Message = Mapping[str, Any]
Run = Callable[[Message, Context], Any]

MISSING: Any = object()
_INDEX_MOST = 6
"""Digits of a place in an array."""


def finder(name: str) -> Callable[[Message], Any]:
    """Finds the parameter ``name``, or :data:`MISSING`."""
    if "." not in name:
        return lambda message: message.get(name, MISSING)
    parts = name.split(".")

    def find(message: Message) -> Any:
        value = message.get(name, MISSING)
        return _open(message, parts) if value is MISSING else value

    return find


def _open(value: Any, parts: Sequence[str]) -> Any:
    while parts:
        if isinstance(value, Mapping):
            length = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in value), 0)
            if not length:
                return MISSING
            value, parts = value[".".join(parts[:length])], parts[length:]
        elif isinstance(value, list) and len(parts[0]) <= _INDEX_MOST and parts[0].isdecimal():
            index, parts = int(parts[0]), parts[1:]
            if index >= len(value):
                return MISSING
            value = value[index]
        else:
            return MISSING
    return value


def required(name: str, column: int) -> Run:
    """``name``: an error where it is missing."""
    find = finder(name)

    def run(message: Message, context: Context) -> Any:
        try:
            return message[name]
        except KeyError:
            value = find(message)
        if value is MISSING:
            raise MissingParameter(column, f"the message has no {name}")
        return value

    return run


def optional(name: str) -> Run:
    """``$name``: null where it is missing."""
    find = finder(name)

    def run(message: Message, context: Context) -> Any:
        value = find(message)
        return None if value is MISSING else value

    return run


def previous(name: str, column: int) -> Run:
    """``#name``: of the message before; an error where it is missing, or no such message is known."""
    find = finder(name)

    def run(message: Message, context: Context) -> Any:
        if context.previous is None:
            raise MissingParameter(column, "no previous message is known here")
        value = find(context.previous)
        if value is MISSING:
            raise MissingParameter(column, f"the previous message has no {name}")
        return value

    return run


def present(names: Sequence[str]) -> Run:
    """``exists("a", "b")``: whether all of them are there."""
    if len(names) == 1:
        find = finder(names[0])
        return lambda message, context: find(message) is not MISSING
    finders = [finder(name) for name in names]
    return lambda message, context: all(find(message) is not MISSING for find in finders)
