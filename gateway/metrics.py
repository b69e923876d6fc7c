"""Counters that any layer may raise.

Names are fixed texts, and labels are bounded (channel, reason): never an ident or an address.
"""

from __future__ import annotations

from collections import Counter

Key = tuple[str, tuple[tuple[str, str], ...]]

_counts: Counter[Key] = Counter()


def count(name: str, n: int = 1, **labels: str) -> int:
    """Add ``n`` to the counter and give its new value, so that a caller can log the first and every Nth."""
    key = (name, tuple(sorted(labels.items())))
    _counts[key] += n
    return _counts[key]


def value(name: str, **labels: str) -> int:
    """The counter's present value; 0 where it was never raised."""
    return _counts[name, tuple(sorted(labels.items()))]
