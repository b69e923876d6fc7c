"""Names at the target that differ from message to message: ``%ident%`` and the like in a text stand for what it has."""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.errors import ItemError
from gateway.stream.target import Outgoing, StreamInfo

NAMES = ("ident", "device.id", "channel.id", "device.name", "stream.id")
SHOWN = "%ident%, %device.id%, %channel.id%, %device.name% and %stream.id%"
PLACES_MOST = 10
_PLACE = re.compile(f"%({'|'.join(map(re.escape, NAMES))})%")
_UNKNOWN = re.compile(r"%(?![0-9A-Fa-f]{2}[\w.-]*%[0-9A-Fa-f]{2})([A-Za-z][\w.-]*)%")
"""A name between two signs, unless both begin a percent-encoded character of an address, as in ``%c3%a9``."""


def check_template(text: str, field: str) -> None:
    """Raises ItemError that names ``field``."""
    parts = _PLACE.split(text)
    unknown = next(filter(None, map(_UNKNOWN.search, parts[::2])), None)
    if unknown is not None:
        raise ItemError(f"has {unknown[0]}; what is replaced are {SHOWN}", field)
    if len(parts) // 2 > PLACES_MOST:
        raise ItemError(f"should have at most {PLACES_MOST} of {SHOWN}", field)


def fixed_begin(text: str) -> str:
    """What it begins with whatever the message is: all of it, where nothing is replaced."""
    return _PLACE.split(text, maxsplit=1)[0]


class Template:
    """One of a stream; ``text`` was checked.

    ``no_id`` and ``no_name`` stand for the id or name of a device where there is none, and for the id of a channel.
    ``clean`` makes a value fit for the place where it goes.
    """

    def __init__(
        self, text: str, stream: StreamInfo, *, no_id: str = "", no_name: str = "", clean: Callable[[str], str] = str
    ) -> None:
        self._parts = _PLACE.split(text.replace("%stream.id%", str(stream.id)))
        self._names = tuple(self._parts[1::2])
        self._no_id, self._no_name = no_id, no_name
        self._clean = clean
        self.is_fixed = not self._names
        """Whether it is the same for all messages of the stream."""

    def of(self, outgoing: Outgoing) -> str:
        """The text for a message."""
        return self._parts[0] if self.is_fixed else self.filled(self.values(outgoing))

    def values(self, outgoing: Outgoing) -> tuple[tuple[str, str], ...]:
        """Names and values of what is replaced, in order."""
        return tuple([(name, self._clean(self._value(name, outgoing))) for name in self._names])

    def filled(self, values: tuple[tuple[str, str], ...]) -> str:
        """The text with these values."""
        parts = self._parts.copy()
        parts[1::2] = [value for _, value in values]
        return "".join(parts)

    def _value(self, name: str, outgoing: Outgoing) -> str:
        if name == "ident":
            return outgoing.ident
        if name == "device.id":
            return str(outgoing.device_id or self._no_id)
        if name == "channel.id":
            return str(outgoing.channel_id or outgoing.source.get("channel.id") or self._no_id)
        return str(outgoing.source.get("device.name") or self._no_name)
