"""The two things in Redis that messages are read from: a device's sorted set, and a channel's log.

An entry of a log is a packet: its id is the time of its last message in microseconds, and the messages before it have
the microseconds before. Packets do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define, field, frozen

from gateway.store.hidden import Range
from gateway.store.ordered import FOREVER, Page, Source

MICROSECONDS = 1_000_000
PACKETS_OF_A_PAGE = 100
"""A packet can have 255 messages."""


def microseconds(seconds: float) -> int:
    """A time as messages are ordered by it."""
    return max(0, min(FOREVER, round(seconds * MICROSECONDS)))


@frozen
class Span:
    """A range of time in microseconds, both ends included; ``is_reverse``: the latest first."""

    low: int = 0
    high: int = FOREVER
    is_reverse: bool = False

    @classmethod
    def of(cls, start: float | None, end: float | None, is_reverse: bool = False) -> Span:
        """From seconds; None: without a bound."""
        low = 0 if start is None else microseconds(start)
        return cls(low, FOREVER if end is None else microseconds(end), is_reverse)

    def since(self, low: int) -> Span:
        """What of it is not before ``low``."""
        return Span(max(self.low, low), self.high, self.is_reverse)


@define(eq=False, kw_only=True)
class SortedMessages(Source):
    """A device's messages, by their key."""

    key: str
    span: Span

    @classmethod
    def of(cls, key: str, span: Span) -> SortedMessages:
        """What the sorted set ``key`` has in ``span``."""
        return cls(-span.high if span.is_reverse else span.low, key=key, span=span)

    def command(self, count: int) -> tuple[Any, ...]:
        """See :class:`~gateway.store.ordered.Source`."""
        if self.span.is_reverse:
            return ("ZREVRANGEBYSCORE", self.key, -self.bound, self.span.low, "WITHSCORES", "LIMIT", 0, count)
        return ("ZRANGEBYSCORE", self.key, self.bound, self.span.high, "WITHSCORES", "LIMIT", 0, count)

    def rows(self, answer: Any, count: int) -> Page:
        """See :class:`~gateway.store.ordered.Source`."""
        sign = -1 if self.span.is_reverse else 1
        keys = [sign * int(float(score)) for score in answer[1::2]]
        if keys:
            self.bound = keys[-1] + 1
        self.is_exhausted = len(keys) < count
        return Page(keys, answer[0::2])


@define(eq=False, kw_only=True)
class Packets(Source):
    """A channel's messages, by ``server.timestamp``.

    A packet may reach beyond the late end of the span. Its entry lies outside of the range of ids then, and is read by
    itself: ``at_edge``, after all others; before them, where the span is reverse.
    """

    key: str
    span: Span
    hidden: list[Range] = field(factory=list)
    at_edge: bool = False

    @classmethod
    def of(cls, key: str, span: Span, hidden: Sequence[Range]) -> Packets:
        """What the stream ``key`` has in ``span`` and not in ``hidden``."""
        shown = span.since(max((range.high + 1 for range in hidden if range.low == 0), default=0))
        source = cls(shown.low, PACKETS_OF_A_PAGE, key=key, span=shown)
        source.hidden = [range for range in hidden if range.low <= shown.high and range.high >= shown.low]
        if shown.is_reverse:
            source.bound = -shown.high
            source.at_edge = shown.high < FOREVER
        return source

    def command(self, count: int) -> tuple[Any, ...]:
        """See :class:`~gateway.store.ordered.Source`."""
        if self.at_edge:
            edge = -self.bound if self.span.is_reverse else self.span.high + 1
            return ("XRANGE", self.key, edge, "+", "COUNT", 1)
        if self.span.is_reverse:
            return ("XREVRANGE", self.key, -self.bound, self.span.low, "COUNT", count)
        return ("XRANGE", self.key, self.bound, self.span.high, "COUNT", count)

    def rows(self, answer: Any, count: int) -> Page:
        """See :class:`~gateway.store.ordered.Source`."""
        page = Page()
        low, high = (self.span.low, -self.bound) if self.span.is_reverse else (self.bound, self.span.high)
        first = last = None
        for entry_id, fields in answer:
            texts = fields[b"messages"].split(b"\n")
            last = int(entry_id.partition(b"-")[0])
            first = last - len(texts) + 1
            self._add(page, first, texts, self._shown(range(max(low, first), min(high, last) + 1)))
        if self.span.is_reverse:
            self._step_back(first, is_last=len(answer) < count)
        else:
            self._step_on(last, is_last=len(answer) < count)
        return page

    def _shown(self, keys: Iterable[int]) -> list[int]:
        if not self.hidden:
            return list(keys)
        return [key for key in keys if not any(range.low <= key <= range.high for range in self.hidden)]

    def _add(self, page: Page, first: int, texts: list[bytes], keys: list[int]) -> None:
        if self.span.is_reverse:
            keys.reverse()
        page.texts += [texts[key - first] for key in keys]
        page.keys += [-key for key in keys] if self.span.is_reverse else keys

    def _step_on(self, last: int | None, *, is_last: bool) -> None:
        if last is not None:
            self.bound = last + 1
        if self.at_edge:
            self.is_exhausted = True
        elif is_last:
            self.at_edge = self.span.high < FOREVER
            self.is_exhausted = not self.at_edge

    def _step_back(self, first: int | None, *, is_last: bool) -> None:
        if first is not None:
            self.bound = max(self.bound, 1 - first)
        self.is_exhausted = is_last and not self.at_edge
        self.at_edge = False

    def go_back_to(self, key: int) -> None:
        """See :class:`~gateway.store.ordered.Source`."""
        super().go_back_to(key)
        self.at_edge = self.span.is_reverse
