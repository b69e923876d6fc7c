"""What a worker tells the first process: which connections it has, how they are doing, and what happens to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.channel.connection import TrackerConnection
from gateway.channel.connections import Connections, Limits
from gateway.channel.observer import Counted, Decision, Observer, Party
from gateway.store.event_codes import CloseCode
from gateway.workers import wire
from gateway.workers.asking import Send


class FrontConnections(Connections):
    """The worker's connections; the first process knows of each."""

    def __init__(self, limits: Limits, send: Send, now: Callable[[], float]) -> None:
        super().__init__(limits, lambda protocol_id, ident, is_connected: None, now)
        self._send = send
        self._told: dict[TrackerConnection, tuple[int, int, int]] = {}

    def add(self, connection: TrackerConnection) -> bool:
        if not super().add(connection):
            return False
        self._told[connection] = (0, 0, 0)
        self._send(
            wire.Opened(
                connection.id, connection.channel.id, connection.peer, connection.host, connection.transport_kind
            )
        )
        return True

    def identify(self, connection: TrackerConnection, key: tuple[int, str]) -> None:
        super().identify(connection, key)
        self._send(wire.Identified(connection.id, key[1]))

    def remove(self, connection: TrackerConnection) -> None:
        if connection in self:
            self.report(connection)
        super().remove(connection)
        self._told.pop(connection, None)

    def report(self, connection: TrackerConnection) -> None:
        """Say how it is doing, if something has happened."""
        counts = (connection.msgs, connection.recv, connection.send)
        if self._told.get(connection) != counts:
            self._told[connection] = counts
            self._send(wire.Counted(connection.id, self._now() - connection.seen, *counts))

    def report_all(self) -> None:
        """The same of all."""
        for connection in list(self):
            self.report(connection)


class FrontObserver(Observer):
    """Tells the first process."""

    def __init__(self, send: Send, connections: Callable[[], Connections]) -> None:
        self._send = send
        self._connections = connections

    def _tell(self, party: Party, occasion: str, *details: Any) -> None:
        number = party.id
        if not number and party.ident is not None:  # of a packet, which knows its ident and not its connection
            connection = self._connections().of_ident(party.channel.protocol_id, party.ident)
            number = connection.id if connection is not None else 0
        if number:
            told = [msgspec.to_builtins(one, builtin_types=(bytes,)) for one in details]
            self._send(wire.Told(number, occasion, told))

    def noted(self, party: Party, ident: str, decision: Decision) -> None:
        self._tell(party, "noted", ident, decision)

    def identified(self, party: Party, login: bytes, verdict: bytes) -> None:
        self._tell(party, "identified", login, verdict)

    def refused(self, party: Party, ident: str, login: bytes, verdict: bytes, decision: Decision) -> None:
        self._tell(party, "refused", ident, login, verdict, decision)

    def closed(self, party: Counted, code: CloseCode, why: str) -> None:
        self._send(wire.Ended(party.id, int(code), why))

    def violated(self, party: Party, reason: str, unread: bytes) -> None:
        self._tell(party, "violated", reason, unread)

    def rejected(self, party: Party, reason: str, frame: bytes, is_parked: bool) -> None:
        self._tell(party, "rejected", reason, frame, is_parked)

    def received(self, party: Party, data: bytes) -> None:
        self._tell(party, "received", data)

    def sent(self, party: Party, data: bytes) -> None:
        self._tell(party, "sent", data)

    def answered(self, party: Party, data: bytes) -> None:
        self._tell(party, "answered", data)
