"""Failed authentications per address: who guesses keys is refused for a while. Pure; the time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from ipaddress import IPv6Address, ip_address

from attrs import define, field

FAILURES_MOST = 20
"""Within WINDOW, from one address."""
WINDOW = 60.0
BLOCKED_FOR = 60.0
ADDRESSES_MOST = 10_000
"""The one that failed longest ago is forgotten first."""


@define
class _Record:
    since: float
    count: int = 0
    keys: set[bytes] = field(factory=set)
    blocked_until: float = 0.0


class Failures:
    """What each address did wrong.

    A success forgives nothing: who has a token of his own could go on guessing another. The same wrong key counts once
    in a window: a program that was left with an old token must not lock out all that shares its address.
    """

    def __init__(self, most: int = FAILURES_MOST, window: float = WINDOW, blocked_for: float = BLOCKED_FOR) -> None:
        self._most = most
        self._window = window
        self._blocked_for = blocked_for
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        """Addresses remembered."""
        return len(self._records)

    def is_blocked(self, address: str, now: float) -> bool:
        """Whether this address is refused without a look at its key. ``now``: any clock, in seconds."""
        if not self._records:
            return False
        record = self._records.get(_network(address))
        return record is not None and record.blocked_until - self._blocked_for <= now < record.blocked_until

    def failed(self, address: str, now: float, key: str = "") -> bool:
        """Count a failure with ``key`` (without one, each counts); whether the address is blocked by it."""
        record = self._record(_network(address), now)
        if key:
            digest = sha256(key.encode(errors="surrogatepass")).digest()[:8]
            if digest in record.keys:
                return False
            record.keys.add(digest)
        record.count += 1
        if record.count >= self._most:
            record.blocked_until = now + self._blocked_for
            record.since, record.count = record.blocked_until, 0
            record.keys.clear()
            return True
        return False

    def _record(self, network: str, now: float) -> _Record:
        record = self._records.get(network)
        if record is None or not record.since - self._blocked_for <= now < record.since + self._window:
            record = self._records[network] = _Record(now)
        self._records.move_to_end(network)
        while len(self._records) > ADDRESSES_MOST:
            self._records.popitem(last=False)
        return record


def _network(address: str) -> str:
    """An IPv6 host has 2^64 addresses to guess from: they count as one."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped is not None else str(parsed.exploded)[:19] + "::/64"
    return address
