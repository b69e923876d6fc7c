"""Which parameters are meant: ``can.*,position.speed``, with the wildcards of expressions; ``all`` means all."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.expressions.wildcard import has_wildcards, wildcard

ALL = "all"
REMEMBERED = 10_000
"""Names whose answer is remembered; trackers send the same ones again and again."""


class Masks:
    """Names of parameters, some of which stand for many. ``Masks([])`` chooses nothing."""

    def __init__(self, masks: Iterable[str]) -> None:
        self.texts = tuple(mask for mask in masks if mask)
        self._is_all = ALL in self.texts or "*" in self.texts
        self._names = frozenset(self.texts)
        self._tests = [wildcard(mask) for mask in self.texts if has_wildcards(mask)]
        self._known: dict[str, bool] = {}

    @classmethod
    def parse(cls, text: str) -> Masks:
        """From a list with commas; spaces around a name do not count."""
        return cls(part.strip() for part in text.split(","))

    def choose(self, name: str) -> bool:
        """Whether ``name`` is meant."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = self._known[name] = self._is_all or name in self._names or any(test(name) for test in self._tests)
        return known

    @property
    def plain(self) -> list[str] | None:
        """The names, where none stands for many; else None."""
        return None if self._is_all or self._tests else list(self.texts)
