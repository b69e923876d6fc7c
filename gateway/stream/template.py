"""Topics and routing keys: text in which ``%ident%`` and the like stand for what a message has."""

from __future__ import annotations

import re

from gateway.errors import ItemError
from gateway.stream.target import Outgoing, StreamInfo

NAMES = ("ident", "device.id", "channel.id", "device.name", "stream.id")
SHOWN = ", ".join(f"%{name}%" for name in NAMES)
PLACES_MOST = 10
NO_ID, NO_NAME = "0", "-"
"""What stands for the id or name of a device where there is none, or of a channel."""
_PLACE = re.compile(r"%([^%]*)%")


def check_template(text: str, field: str) -> None:
    """Raises ItemError that names ``field``."""
    places = _PLACE.findall(text)
    unknown = [name for name in places if name not in NAMES]
    if unknown:
        raise ItemError(f"has %{unknown[0]}%; what is replaced are {SHOWN}", field)
    if len(places) > PLACES_MOST:
        raise ItemError(f"should have at most {PLACES_MOST} of {SHOWN}", field)


class Template:
    """One of a stream; ``text`` was checked."""

    def __init__(self, text: str, stream: StreamInfo) -> None:
        self._parts = _PLACE.split(text.replace("%stream.id%", str(stream.id)))
        self._names = tuple(self._parts[1::2])

    def values(self, outgoing: Outgoing) -> tuple[tuple[str, str], ...]:
        """Names and values of what is replaced, in order."""
        return tuple([(name, _value(name, outgoing)) for name in self._names])

    def filled(self, values: tuple[tuple[str, str], ...]) -> str:
        """The text with these values."""
        parts = self._parts.copy()
        parts[1::2] = [value for _, value in values]
        return "".join(parts)


def _value(name: str, outgoing: Outgoing) -> str:
    if name == "ident":
        return outgoing.ident
    if name == "device.id":
        return str(outgoing.device_id) if outgoing.device_id else NO_ID
    if name == "channel.id":
        return str(outgoing.channel_id or outgoing.source.get("channel.id") or NO_ID)
    return str(outgoing.source.get("device.name") or NO_NAME)
