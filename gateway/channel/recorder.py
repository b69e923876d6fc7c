"""The observer that keeps: the event log of channels and devices, the idents seen, the traffic."""

from __future__ import annotations

from typing import Any

from gateway.channel.observer import SHOWN_BYTES, Counted, Decision, Observer, Party, packets_ttl
from gateway.store.event_codes import CLOSE_REASONS, CloseCode, EventCode
from gateway.store.events import EventLog
from gateway.store.idents import ACCEPTED, REFUSED, UNDECIDED, SeenIdents
from gateway.store.items import Items
from gateway.store.traffic import RECEIVED, SENT, UDP, Traffic, Whose

VERDICTS = {True: ACCEPTED, False: REFUSED, None: UNDECIDED}


class Recorder(Observer):
    """One for all channels. ``items`` tell whose an ident is."""

    def __init__(self, items: Items, events: EventLog, traffic: Traffic, idents: SeenIdents) -> None:
        self._items = items
        self._events = events
        self._traffic = traffic
        self._idents = idents

    def accepted(self, party: Party) -> None:
        self._of_channel(EventCode.CONNECTION_ACCEPTED, party)

    def turned_away(self, party: Party, why: str) -> None:
        self._of_channel(EventCode.CONNECTION_CLOSED, party, close_code=int(CloseCode.CHANNEL_BLOCKED), reason=why)

    def noted(self, party: Party, ident: str, decision: Decision) -> None:
        self._idents.note(
            party.channel.id,
            ident,
            VERDICTS[decision.is_welcome],
            decision.reason,
            peer=party.peer,
            transport=party.transport_kind,
            is_registered=decision.is_registered,
        )

    def identified(self, party: Party, login: bytes, verdict: bytes) -> None:
        self._of_channel(EventCode.CONNECTION_IDENTIFIED, party, ident=party.ident)
        self._of_device(EventCode.DEVICE_CONNECTED, party, party.ident)
        self._traffic.connected(_whose(party, party.ident or ""), party.peer, login, verdict)

    def refused(self, party: Party, ident: str, login: bytes, verdict: bytes, decision: Decision) -> None:
        self._traffic.connected(_whose(party, ident), party.peer, login, verdict)

    def closed(self, party: Counted, code: CloseCode, why: str) -> None:
        ended = {
            "close_code": int(code),
            "duration": int(party.duration),
            "msgs": party.msgs,
            "recv": party.recv,
            "send": party.send,
            "reason": why or CLOSE_REASONS[code],
        }
        self._of_channel(EventCode.CONNECTION_CLOSED, party, ident=party.claimed, **ended)
        if party.claimed is not None:
            self._of_device(EventCode.DEVICE_DISCONNECTED, party, party.claimed, **ended)
            self._traffic.disconnected(_whose(party, party.claimed), why or CLOSE_REASONS[code])

    def violated(self, party: Party, reason: str, unread: bytes) -> None:
        data = unread[:SHOWN_BYTES]
        self._of_channel(EventCode.DATA_ERROR, party, ident=party.ident, reason=reason, data=data.hex())
        if party.ident is not None:
            self._record(party, RECEIVED, unread, reason)
            self._of_device(EventCode.PROCESSING_ERROR, party, party.ident, reason=reason, data=data.hex())

    def rejected(self, party: Party, reason: str, frame: bytes, is_parked: bool) -> None:
        told = f"{reason}: {'parked and acknowledged' if is_parked else 'not acknowledged'}"
        said = {"reason": told, "data": frame[:SHOWN_BYTES].hex(), "size": len(frame)}
        self._of_channel(EventCode.DATA_ERROR, party, ident=party.ident, **said)
        self._of_device(EventCode.PROCESSING_ERROR, party, party.ident, **said)
        if not is_parked:  # what is parked is shown from there, with its reason
            self._record(party, RECEIVED, frame, told)

    def received(self, party: Party, data: bytes) -> None:
        self._record(party, RECEIVED, data)

    def sent(self, party: Party, data: bytes) -> None:
        self._record(party, SENT, data)

    def answered(self, party: Party, data: bytes) -> None:
        self._record(party, SENT, data, "answer to a packet that was parked")

    # -- where it goes

    def _record(self, party: Party, type: int, data: bytes, reason: str = "") -> None:
        if party.ident is not None:
            kind = type + UDP if party.transport_kind == "udp" else type
            self._traffic.record(_whose(party, party.ident), kind, data, source=party.peer, reason=reason)

    def _of_channel(self, code: EventCode, party: Party, **fields: Any) -> None:
        self._events.record("channels", party.channel.id, code, **_of_party(party), **fields)

    def _of_device(self, code: EventCode, party: Party, ident: str | None, **fields: Any) -> None:
        device = self._items.find_device(party.channel.protocol_id, ident or "")
        if device is not None:
            fields = {**_of_party(party), "ident": ident, "channel_id": party.channel.id, **fields}
            self._events.record("devices", device.id, code, **fields)


def _of_party(party: Party) -> dict[str, Any]:
    fields: dict[str, Any] = {"source": party.peer, "transport": party.transport_kind or None}
    if party.id:
        fields["connection_id"] = party.id
    return fields


def _whose(party: Party, ident: str) -> Whose:
    return Whose(party.channel.id, ident, party.id, packets_ttl(party.channel))
