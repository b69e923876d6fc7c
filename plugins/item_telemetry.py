"""Plugin type ``item-telemetry``.

A value that was filled in becomes telemetry again, as if the tracker had sent it. So that it gets old all the same,
a parameter of the message says from when the filled values really are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import Meta

from gateway import plugin
from gateway.message import LATITUDE, LONGITUDE
from gateway.plugin import Context, Message, Plugin
from gateway.plugin.base import OBLIGATORY, Mask
from gateway.store.masks import Masks
from gateway.store.telemetry import POSITION, Values, time_of

TIMES = "item.telemetry.timestamps"
"""Object: the parameters that were filled in, and from when their values are."""
NEVER = OBLIGATORY | {"timestamp.key", "timestamp.original", POSITION, TIMES}
"""What belongs to one message, and ``position``, which is made of others."""
AGE_MOST = 10 * 365 * 86400
COORDINATES = {LATITUDE, LONGITUDE}


class ItemTelemetry(Plugin):
    """Fills parameters that a message lacks from the device's telemetry, with their last value. A record from before
    that value, such as one that the tracker kept while it had no connection, is not filled with it: it would come from
    the record's future."""

    class Config(plugin.Config):
        """The options."""

        parameters: Annotated[
            list[Mask],
            Meta(min_length=1, max_length=100, description="what is filled in: names, or masks such as can.*"),
        ]
        max_age: Annotated[
            Annotated[float, Meta(gt=0, le=AGE_MOST)] | None,
            Meta(description="seconds that a value may be older than the message; null: any"),
        ] = None

    needs_telemetry = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._masks = Masks(config.parameters)

    def process(self, message: Message, context: Context) -> Message:
        """What is missing, as far as telemetry has it from this time."""
        now = time_of(message) if _has_times(message) else None
        if now is None:
            return message
        filled = self._filled(message, context.telemetry, now)
        for name in filled:
            message[name] = context.telemetry[name][1]
        if filled and self.config.max_age is not None:
            known = message.get(TIMES)
            message[TIMES] = {**(known if isinstance(known, dict) else {}), **filled}
        return message

    def _filled(self, message: Message, values: Values, now: float) -> dict[str, float]:
        """Names of what can be filled in, and from when it is."""
        filled = {}
        for name in self._wanted(values):
            if name in message or name in NEVER or name not in values or values[name][0] > now:
                continue
            at = _origin(name, values)
            if self.config.max_age is None or now - at <= self.config.max_age:
                filled[name] = at
        if not _are_one_place(filled, values):
            for name in COORDINATES:
                filled.pop(name, None)
        return filled

    def _wanted(self, values: Values) -> Iterable[str]:
        plain = self._masks.plain
        return plain if plain is not None else [name for name in values if self._masks.choose(name)]


def _has_times(message: Message) -> bool:
    return all(type(message.get(name, 0.0)) in (int, float) for name in ("timestamp", "server.timestamp")) and (
        "timestamp" in message
    )


def _origin(name: str, values: Values) -> float:
    """From when a value is: what telemetry says, unless it was filled in then."""
    at = values[name][0]
    if TIMES in values:
        filled_at, times = values[TIMES]
        known: Any = times.get(name) if isinstance(times, dict) and filled_at == at else None
        if type(known) in (int, float) and known <= at:
            return float(known)
    return at


def _are_one_place(filled: dict[str, float], values: Values) -> bool:
    """Whether latitude and longitude are both to be filled in, and from the same message."""
    if len(COORDINATES & filled.keys()) != 2:
        return False
    return values[LATITUDE][0] == values[LONGITUDE][0]
