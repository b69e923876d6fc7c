"""Which messages are for a stream, and in which form it sends them.

A stream is linked with channels and devices. Of a device that it is linked with, it gets the device's messages, and not
those of the channel as well. It gets what came since it was linked, and nothing of the time when it was disabled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import orjson
from attrs import define, field, frozen

from gateway.expressions import Expression
from gateway.store.items import Items, Stream
from gateway.store.keys import ShardKeys
from gateway.store.masks import Masks
from gateway.store.reader import LogEntry
from gateway.stream.target import Conversion, Outgoing

MICROSECONDS, MILLISECONDS = 1_000_000, 1000
"""In the ids of the channels' logs, and of the device log."""


def moment_of(entry: LogEntry, is_device: bool) -> float:
    """When the entry was written, in UNIX seconds."""
    return int(entry.id.partition("-")[0]) / (MILLISECONDS if is_device else MICROSECONDS)


@frozen
class Selection:
    """Of one stream."""

    stream: Stream
    items: Items
    keys: ShardKeys

    def logs(self) -> dict[str, int]:
        """The logs that have something for the stream, with their owners."""
        links = self.items.links
        found = {self.keys.channel_log(id): id for id in links.of("streams", self.stream.id, "channels")}
        if links.of("streams", self.stream.id, "devices"):
            found[self.keys.device_log] = 0
        return found

    def begin(self, log: str) -> str:
        """The id in a log after which the stream begins, where it has no cursor yet."""
        links = self.items.links
        if log == self.keys.device_log:
            at = min((link.at for link in links.of("streams", self.stream.id, "devices").values()), default=0.0)
            return f"{int(at * MILLISECONDS)}-0"
        channel_id = self.logs().get(log)
        link = links.of("streams", self.stream.id, "channels").get(channel_id) if channel_id is not None else None
        return f"{int(link.at * MICROSECONDS) if link is not None else 0}-0"

    def wants(self, entry: LogEntry) -> bool:
        """Whether the messages of an entry are for the stream."""
        is_device = entry.stream == self.keys.device_log
        moment = moment_of(entry, is_device)
        if any(start <= moment and (end is None or moment < end) for start, end in self.stream.pauses if start):
            return False
        if is_device:
            return self._is_linked("devices", entry.owner, moment)
        return self._is_linked("channels", entry.owner, moment) and not self._comes_as_device(entry, moment)

    def _is_linked(self, to: str, id: int, moment: float) -> bool:
        link = self.items.links.of("streams", self.stream.id, to).get(id)
        return link is not None and moment >= link.at

    def _comes_as_device(self, entry: LogEntry, moment: float) -> bool:
        channel = self.items.logged_channel(entry.owner)
        device = self.items.device_for(channel.protocol_id, entry.ident) if channel is not None else None
        return device is not None and self._is_linked("devices", device.id, moment)


@define
class Form:
    """What becomes of a message before it is sent: ``validate`` leaves some out, ``conversion`` changes others."""

    validate: Expression | None = None
    conversion: Conversion | None = None
    _masks: Masks | None = field(init=False, default=None)
    _rename: Callable[[str], str] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        if self.conversion is None:
            return
        self._masks = Masks(self.conversion.fields) if self.conversion.fields else None
        self._rename = _RENAMED.get(self.conversion.dots)

    @property
    def is_plain(self) -> bool:
        """Whether messages are sent as they are stored, and need not be decoded."""
        return self.validate is None and self._masks is None and self._rename is None

    def take(self, entry: LogEntry, text: bytes, is_device: bool, received: float) -> Outgoing | None:
        """A stored message as it is sent; None: it is not."""
        ids = (entry.owner, 0) if is_device else (0, entry.owner)
        if self.is_plain:
            return Outgoing(text, entry.ident, *ids, received)
        message = orjson.loads(text)
        if self.validate is not None and not self.validate.is_true(message):
            return None
        if self._masks is None and self._rename is None:
            return Outgoing(text, entry.ident, *ids, received)
        return Outgoing(orjson.dumps(self._converted(message)), entry.ident, *ids, received, message)

    def _converted(self, message: Mapping[str, Any]) -> dict[str, Any]:
        masks, rename = self._masks, self._rename
        chosen = message if masks is None else {name: value for name, value in message.items() if masks.choose(name)}
        return dict(chosen) if rename is None else {rename(name): value for name, value in chosen.items()}


@lru_cache(maxsize=10_000)
def _underscored(name: str) -> str:
    return name.replace(".", "_")


@lru_cache(maxsize=10_000)
def _camelcased(name: str) -> str:
    first, *others = name.split(".")
    return first + "".join(part[:1].upper() + part[1:] for part in others)


_RENAMED: dict[str, Callable[[str], str]] = {"underscore": _underscored, "camelcase": _camelcased}
