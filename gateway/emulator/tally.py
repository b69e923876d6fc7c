"""What a group of trackers has done so far, in numbers that can be added up over processes."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import attrs

_SHORTEST = 1e-5  # s
_STEPS = 16  # buckets to a doubling: a quantile is right to 4 %
_BUCKETS = 400  # up to five minutes


class Latencies:
    """How long acknowledgements took, as counts in buckets that grow: memory stays, whatever comes."""

    __slots__ = ("counts", "longest")

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        bucket = int(_STEPS * math.log2(seconds / _SHORTEST)) if seconds > _SHORTEST else 0
        self.counts[min(bucket, _BUCKETS)] += 1
        self.longest = max(self.longest, seconds)

    def quantile(self, fraction: float) -> float:
        """The time in seconds that ``fraction`` of the acknowledgements did not exceed; 0 where there were none."""
        left = fraction * self.counts.total()
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return min(self.longest, _SHORTEST * 2 ** ((bucket + 1) / _STEPS))
        return 0.0

    def merge(self, other: Latencies) -> None:
        self.counts += other.counts
        self.longest = max(self.longest, other.longest)


@attrs.define
class Tally:
    """One group's. ``connected``, ``rejected`` (their last login was) and ``finished`` count trackers, the rest what
    happened since the start.

    ``bytes_sent`` has everything, logins and repetitions included.
    """

    name: str = ""
    devices: int = 0
    connected: int = 0
    finished: int = 0
    recorded: int = 0
    acknowledged: int = 0
    dropped: int = 0
    packets: int = 0
    packets_sent_again: int = 0
    connections: int = 0
    rejected: int = 0
    commands: int = 0
    bytes_sent: int = 0
    faults: Counter[str] = attrs.field(factory=Counter)
    latencies: Latencies = attrs.field(factory=Latencies)

    @property
    def waiting(self) -> int:
        """Records that are neither acknowledged nor dropped."""
        return self.recorded - self.acknowledged - self.dropped

    @property
    def is_all_acknowledged(self) -> bool:
        return self.acknowledged == self.recorded and not self.rejected

    def merge(self, other: Tally) -> None:
        """Add another one's numbers."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults += other.faults
        self.latencies.merge(other.latencies)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: seconds, counts, and the latencies as quantiles."""
        latencies = self.latencies
        return {
            "name": self.name,
            **{name: getattr(self, name) for name in _NUMBERS},
            "waiting": self.waiting,
            "faults": dict(self.faults),
            "ack_seconds": {
                "p50": latencies.quantile(0.5),
                "p99": latencies.quantile(0.99),
                "longest": latencies.longest,
            },
        }


_NUMBERS = tuple(field.name for field in attrs.fields(Tally) if field.default == 0)


def merged(tallies: list[Tally], name: str = "") -> Tally:
    """All of them as one."""
    total = Tally(name=name)
    for tally in tallies:
        total.merge(tally)
    return total
