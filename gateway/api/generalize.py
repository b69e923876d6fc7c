"""Fewer messages: one for each interval of time and device (flespi's parameter ``generalize`` of device messages).

Intervals are counted from the beginning of 1970. What stands for an interval has the times of its first message; with a
``method``, it has all parameters of the interval's messages: numbers as their average, minimum or maximum, others as
they came first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

from gateway import message as msg

Message = dict[str, Any]

AS_THEY_ARE = frozenset({"timestamp", "timestamp.key", "server.timestamp", "position.direction"})
"""Times stay those of the first message; and between 359 and 1 degree lies not 180."""
NAMES, CHOICES = ".id", ".enum"
"""Numbers that are names for something end like this."""

COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "average": lambda known, value: known + value,
    "minimum": min,
    "maximum": max,
}


@define
class _Interval:
    """What is known of one device in an interval: its first message, and the numbers so far, with how many they are."""

    first: Message
    numbers: dict[str, Any] = field(factory=dict)
    counts: dict[str, int] = field(factory=dict)


class Generalizer:
    """Takes messages in order of time, ``is_reverse`` in the opposite one."""

    def __init__(self, seconds: int, method: str | None, is_reverse: bool) -> None:
        self._seconds = seconds
        self._method = method
        self._is_reverse = is_reverse
        self._number: int | None = None
        self._open: dict[Any, _Interval] = {}

    def add(self, message: Message) -> list[Message]:
        """Gives the messages of the interval that ended before this one."""
        number = int(msg.message_key(message) // self._seconds)
        ended = self.end() if number != self._number else []
        self._number = number
        device = message.get("device.id")
        interval = self._open.get(device)
        if interval is None:
            interval = self._open[device] = _Interval(message)
        elif self._method is not None:
            first, last = (message, interval.first) if self._is_reverse else (interval.first, message)
            interval.first = {**last, **first}
        elif self._is_reverse:
            interval.first = message
        if self._method is not None:
            self._count(interval, message)
        return ended

    def _count(self, interval: _Interval, message: Message) -> None:
        combine = COMBINE[self._method or "average"]
        for name, value in message.items():
            if type(value) not in (int, float) or name in AS_THEY_ARE or name.endswith((NAMES, CHOICES)):
                continue
            known = interval.numbers.get(name)
            interval.numbers[name] = value if known is None else combine(known, value)
            interval.counts[name] = interval.counts.get(name, 0) + 1

    def end(self) -> list[Message]:
        """The messages that stand for the interval that is over."""
        ended = [self._summary(interval) for interval in self._open.values()]
        self._open.clear()
        return sorted(ended, key=msg.message_key, reverse=self._is_reverse)

    def _summary(self, interval: _Interval) -> Message:
        numbers = interval.numbers
        if self._method == "average":
            numbers = {name: value / interval.counts[name] for name, value in numbers.items()}
        return {**interval.first, **numbers}
