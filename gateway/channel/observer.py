"""What happens to connections, told to whoever keeps it: one method for each occasion.

:class:`Observer` itself keeps nothing; :class:`gateway.channel.recorder.Recorder` writes logs and traffic. No method
waits or raises. Only :meth:`~Observer.received` and :meth:`~Observer.sent` are on the way of every packet, and only
where the channel's ``packets_ttl`` asks for it.
"""

from __future__ import annotations

from typing import Protocol as Interface

from attrs import frozen

from gateway.store.event_codes import CloseCode
from gateway.store.items import Channel

SHOWN_BYTES = 256
"""Of bytes that were not understood, in the event log."""


@frozen
class Decision:
    """Whether an ident is welcome; None: that cannot be said just now, and the tracker must come again.

    ``reason`` tells a person why, and what to do; ``code`` is why its connection is closed.
    """

    is_welcome: bool | None
    reason: str = ""
    code: CloseCode = CloseCode.NOT_AUTHENTICATED
    is_registered: bool = False


def packets_ttl(channel: Channel) -> int:
    """Seconds that all traffic of the channel's idents is kept; 0: only what is rare is."""
    value = channel.configuration.get("packets_ttl", 0)
    return value if type(value) is int and value > 0 else 0


class Party(Interface):
    """A connection, or the sender of a datagram, as observers see it."""

    @property
    def channel(self) -> Channel:
        """As it is now."""

    @property
    def id(self) -> int:
        """Unique; 0 on UDP."""

    @property
    def ident(self) -> str | None:
        """Who it is, once it was let in."""

    @property
    def peer(self) -> str:
        """``ip:port``."""

    @property
    def transport_kind(self) -> str:
        """tcp, ssl, unix, udp."""


class Counted(Party, Interface):
    """A connection with what passed over it: messages, bytes."""

    @property
    def claimed(self) -> str | None:
        """Who it said it is."""

    @property
    def duration(self) -> float:
        """Seconds since it began."""

    @property
    def msgs(self) -> int: ...

    @property
    def recv(self) -> int: ...

    @property
    def send(self) -> int: ...


@frozen
class Sender:
    """Who sent a datagram."""

    channel: Channel
    ident: str | None
    peer: str
    id: int = 0
    transport_kind: str = "udp"


class Observer:
    """Sees everything, keeps nothing."""

    def accepted(self, party: Party) -> None:
        """A connection was let in."""

    def turned_away(self, party: Party, why: str) -> None:
        """There was no room for a connection."""

    def noted(self, party: Party, ident: str, decision: Decision) -> None:
        """Somebody said to be ``ident``; on UDP with each datagram."""

    def identified(self, party: Party, login: bytes, verdict: bytes) -> None:
        """A connection was let in as ``party.ident``; the bytes of both sides."""

    def refused(self, party: Party, ident: str, login: bytes, verdict: bytes, decision: Decision) -> None:
        """It was not."""

    def closed(self, party: Counted, code: CloseCode, why: str) -> None:
        """A connection ended."""

    def violated(self, party: Party, reason: str, unread: bytes) -> None:
        """Bytes that are no protocol; ``unread`` is their beginning."""

    def rejected(self, party: Party, reason: str, frame: bytes, is_parked: bool) -> None:
        """A packet that was not taken: to be sent again, or parked and acknowledged."""

    def received(self, party: Party, data: bytes) -> None:
        """All bytes of an ident, in pieces of any size."""

    def sent(self, party: Party, data: bytes) -> None:
        """All answers to an ident."""

    def answered(self, party: Party, data: bytes) -> None:
        """The answer to a packet that was parked."""
