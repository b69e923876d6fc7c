"""What streams and webhooks have brought to an HTTP server of the tests."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from integration.stored import Times
from tests.targets.http import Answer, Asked, HttpTarget


class Inbox:
    """Takes all that comes to ``target`` and answers 200 after ``delay`` seconds.

    :ivar times: ident -> times of records in milliseconds, in the order in which they came, repetitions included
    :ivar messages: the messages themselves
    """

    def __init__(self, target: HttpTarget, delay: float = 0.0) -> None:
        self.times: Times = defaultdict(list)
        self.messages: list[dict[str, Any]] = []
        self._target = target
        self._answer = Answer(delay=delay)
        target.default = self._take

    def _take(self, asked: Asked) -> Answer:
        for message in asked.json():
            self.messages.append(message)
            self.times[message["ident"]].append(round(message["timestamp"] * 1000))
        return self._answer

    async def more(self) -> None:
        """Wait for the next batch."""
        await self._target.until(len(self._target.requests) + 1)

    async def has(self, wanted: Mapping[str, Sequence[int]], timeout: float = 40) -> None:
        """Wait until everything has come, what is there several times so many times."""
        counts = {ident: Counter(times) for ident, times in wanted.items()}
        await self._target.until(
            lambda _: (
                all(len(self.times[ident]) >= len(times) for ident, times in wanted.items())
                and all(count <= Counter(self.times[ident]) for ident, count in counts.items())
            ),
            timeout,
        )

    def repeated(self, wanted: Mapping[str, Sequence[int]]) -> int:
        """How many messages came more than was wanted."""
        return len(self.messages) - sum(map(len, wanted.values()))
