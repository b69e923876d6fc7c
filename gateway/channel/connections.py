"""The connections of all channels: how many there may be, whose they are, and which of them are dead."""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from gateway import metrics
from gateway.channel.connection import TrackerConnection
from gateway.store.event_codes import CLOSE_REASONS, CloseCode
from gateway.store.items import Device
from gateway.store.log import ChannelClock

MICROSECONDS = 1_000_000

OnPresence = Callable[[int, str, bool], None]
"""Told (protocol id, ident, is connected) when a tracker comes and goes."""


@frozen
class Limits:
    """Bounds on trackers; the settings document them."""

    connections: int = 20000
    connections_per_address: int = 5000
    devices: int = 100000
    login_time: float = 30.0
    idle_time: float = 262800.0
    packet_size: int = 65536
    pending_packets_udp: int = 1000


class Connections:
    """All connections of all channels. The newest one of an ident wins."""

    log = Logger()

    def __init__(
        self,
        limits: Limits,
        on_presence: OnPresence,
        now: Callable[[], float],
        *,
        wall: Callable[[], float] = time.time,
        device_for: Callable[[int, str], Device | None] = lambda protocol_id, ident: None,
    ) -> None:
        """``now`` never jumps, ``wall`` is the time of day. ``device_for``: whose an ident is, by its protocol."""
        self._limits = limits
        self._on_presence = on_presence
        self._now = now
        self._wall = wall
        self._device_for = device_for
        self._ids = ChannelClock(wall)
        self._all: dict[TrackerConnection, None] = {}
        self._by_id: dict[int, TrackerConnection] = {}
        self._addresses: Counter[str] = Counter()
        self._counts: Counter[int] = Counter()
        self._by_ident: dict[tuple[int, str], TrackerConnection] = {}
        self.on_count: list[Callable[[int], None]] = []
        """Each is called with the id of a channel that has got, or lost, a connection."""

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, connection: object) -> bool:
        return connection in self._all

    def __iter__(self) -> Iterator[TrackerConnection]:
        return iter(self._all)

    def add(self, connection: TrackerConnection) -> bool:
        """Whether there is room for one more."""
        address = connection.host
        is_full = len(self._all) >= self._limits.connections
        if is_full or self._addresses[address] >= self._limits.connections_per_address:
            reason = "connections" if is_full else "connections_per_address"
            n = metrics.count("connections_refused", reason=reason)
            if n % 100 == 1:
                what = "connections" if is_full else f"connections_per_address ({address})"
                self.log.warn("refused a connection ({n}.): limits.{what} is reached", n=n, what=what)
            return False
        metrics.count("connections_accepted")
        connection.id = self._ids.reserve(1)
        connection.established = connection.id / MICROSECONDS
        self._all[connection] = None
        self._by_id[connection.id] = connection
        self._addresses[address] += 1
        self._add_to_channel(connection.channel.id, 1)
        return True

    def remove(self, connection: TrackerConnection) -> None:
        """It is closed."""
        if connection not in self._all:
            return
        del self._all[connection]
        del self._by_id[connection.id]
        self._add_to_channel(connection.channel.id, -1)
        address = connection.host
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]
        key = connection.key
        if key is not None and self._by_ident.get(key) is connection:
            del self._by_ident[key]
            self._on_presence(*key, False)

    def identify(self, connection: TrackerConnection, key: tuple[int, str]) -> None:
        """It said who it is: an older connection of the same tracker is dead, the tracker just knows it first."""
        older = self._by_ident.get(key)
        self._by_ident[key] = connection
        if older is not None:
            older.close("ident collision: a newer connection of the same tracker", CloseCode.IDENT_COLLISION)
        else:
            self._on_presence(*key, True)

    def _add_to_channel(self, channel_id: int, n: int) -> None:
        self._counts[channel_id] += n
        if not self._counts[channel_id]:
            del self._counts[channel_id]
        for changed in self.on_count:
            changed(channel_id)

    # -- for the API

    def count(self, channel_id: int) -> int:
        """The connections of a channel."""
        return self._counts[channel_id]

    def counts(self) -> Counter[int]:
        """The same of all channels that have any, by id; not to be changed."""
        return self._counts

    def is_connected(self, protocol_id: int, ident: str) -> bool:
        """Whether a tracker has a connection on which it was let in."""
        return (protocol_id, ident) in self._by_ident

    def find(self, id: int) -> TrackerConnection | None:
        """The one with this id."""
        return self._by_id.get(id)

    def of_ident(self, protocol_id: int, ident: str) -> TrackerConnection | None:
        """That of a tracker which was let in."""
        return self._by_ident.get((protocol_id, ident))

    def of_channel(self, channel_id: int) -> list[TrackerConnection]:
        """All of a channel, the oldest first."""
        return [connection for connection in self._all if connection.channel.id == channel_id]

    def describe(self, connection: TrackerConnection) -> dict[str, Any]:
        """As flespi's ``/connections``: times in UNIX seconds; ``msgs``, ``recv``, ``send`` and ``last_active`` are
        ours."""
        ident = connection.ident
        device = self._device_for(connection.channel.protocol_id, ident) if ident is not None else None
        return {
            "id": connection.id,
            "channel_id": connection.channel.id,
            "device_id": device.id if device is not None else None,
            "ident": ident,
            "source": connection.peer,
            "transport": connection.transport_kind,
            "established": connection.established,
            "last_active": self.last_active(connection),
            "msgs": connection.msgs,
            "recv": connection.recv,
            "send": connection.send,
            "meta": None,
            "secondary": False,
        }

    def last_active(self, connection: TrackerConnection) -> float:
        """When its last byte came, in UNIX seconds."""
        return round(self._wall() - (self._now() - connection.seen), 3)

    def close_by_id(self, id: int, code: CloseCode = CloseCode.USER_REQUEST) -> bool:
        """Close one; False: there is none with this id."""
        connection = self._by_id.get(id)
        if connection is not None:
            connection.close(CLOSE_REASONS[code], code)
        return connection is not None

    def close_ident(self, protocol_id: int, ident: str, code: int) -> None:
        """Close the connection of this tracker, if it has one; ``code`` is flespi's close code."""
        connection = self._by_ident.get((protocol_id, ident))
        if connection is not None:
            connection.close(CLOSE_REASONS[CloseCode(code)], CloseCode(code))

    # -- those that are dead

    def sweep(self) -> None:
        """Close what never logged in, what is silent for too long, and what hung up while we did not read."""
        now = self._now()
        for connection in list(self._all):
            silence = now - connection.seen
            if connection.ident is None and now - connection.since > self._limits.login_time:
                self._give_up(connection)
            elif silence > self._limits.idle_time:
                connection.abort(f"silent for {silence:.0f} s", CloseCode.INACTIVITY)
        for connection in _hung_up(self._all):
            connection.abort("the tracker hung up", CloseCode.BY_DEVICE)

    def _give_up(self, connection: TrackerConnection) -> None:
        said = connection.said()
        what = f"only {said.hex()}" if said else "nothing"
        why = f"no ident within {self._limits.login_time:.0f} s: it said {what}"
        connection.abort(why, CloseCode.INACTIVITY)


def _hung_up(connections: Iterable[TrackerConnection]) -> list[TrackerConnection]:
    """Connections whose peer closed while reading was paused, which hides it from the reactor. Linux only."""
    if not hasattr(select, "POLLRDHUP"):
        return []
    by_fd = {fd: connection for connection in connections if (fd := connection.paused_fd()) is not None}
    poll = select.poll()
    for fd in by_fd:
        poll.register(fd, select.POLLRDHUP)
    return [by_fd[fd] for fd, _event in poll.poll(0)]
