"""A tracker's side of Teltonika's protocol, without I/O and without a clock.

TCP::

    tracker -> server   u16 length, IMEI                                  login
    server -> tracker   01 accepted, 00 rejected                          verdict
    tracker -> server   frame with N records                              and then it waits:
    server -> tracker   u32 number of records accepted                    acknowledgement

UDP has neither login nor verdict, and the acknowledgement is a datagram that repeats the ids of the one it answers.

Stop-and-wait: the next packet is sent only when the one before is acknowledged. Until then its bytes are kept, and
after a new login exactly these bytes are sent again, so that a server can tell a repetition from news.
"""

from __future__ import annotations

from enum import Enum, auto

import attrs

from gateway.emulator.memory import PacketSource
from gateway.emulator.packets import Packet
from gateway.errors import DecodeError, ProtocolViolation
from gateway.protocols.teltonika import border
from gateway.protocols.teltonika.datagram import ACKNOWLEDGEMENT
from gateway.protocols.teltonika.frame import build_login

ACCEPTED, REJECTED = 1, 0
ACK_SIZE = 4
_FRAME_HEAD = 8  # preamble and data field length
_AROUND_BODY = 12  # the same and the CRC
_MAX_COMMAND = 64 * 1024
_PACKET_ID, _AVL_PACKET_ID = slice(2, 4), 5  # where a datagram has its ids


class State(Enum):
    """Where the conversation is. Only this file moves it."""

    OFFLINE = auto()
    WAITS_FOR_VERDICT = auto()
    IDLE = auto()
    WAITS_FOR_ACK = auto()


@attrs.frozen
class VerdictReceived:
    accepted: bool


@attrs.frozen
class AckReceived:
    """The server's number of records for ``packet``; only if it is ``expected`` the packet is done."""

    packet: Packet
    count: int

    @property
    def expected(self) -> int:
        return self.packet.count or 0

    @property
    def is_right(self) -> bool:
        return self.count == self.expected


@attrs.frozen
class CommandReceived:
    """A frame from the server (a command in Codec 12 or 14), unanswered."""

    frame: bytes


Event = VerdictReceived | AckReceived | CommandReceived


class Device:
    """One tracker's session with a server over TCP; its packets come from ``source``."""

    __slots__ = ("_buffer", "_settles", "imei", "sent_before", "source", "state")

    def __init__(self, imei: str, source: PacketSource) -> None:
        self.imei = imei
        self.source = source
        self.state = State.OFFLINE
        self.sent_before: Packet | None = None
        self._settles = True
        self._buffer = bytearray()

    @property
    def is_done(self) -> bool:
        """No more records will come, and every one is acknowledged (or was dropped)."""
        return self.source.is_done

    def connect(self) -> bytes:
        """A connection is up: the bytes of the login."""
        self._buffer.clear()
        self.state = State.WAITS_FOR_VERDICT
        return build_login(self.imei)

    def disconnect(self) -> None:
        """The connection is gone; what was on its way is sent again after the next login."""
        self.state = State.OFFLINE

    def next_packet(self) -> Packet | None:
        """What to send now, or None: nothing is due, or an answer is awaited.

        ``sent_before`` is this packet if it was sent before. What is never acknowledged is settled as it is sent.
        """
        if self.state is not State.IDLE or (packet := self.source.take()) is None:
            return None
        if packet.count is None:
            self.source.settle()
        else:
            self.state = State.WAITS_FOR_ACK
        return packet

    def was_sent(self, packet: Packet) -> None:
        """Remember that it is on its way: what is sent from now on is a repetition."""
        self.sent_before = packet

    def disregard_ack(self) -> None:
        """Whatever acknowledgement comes now, the packet stays and is sent again, as if it had got lost."""
        self._settles = False

    def receive_data(self, data: bytes) -> None:
        """Take what the server sent; ``next_event`` tells what it means."""
        self._buffer += data

    def next_event(self) -> Event | None:
        """The next thing that the server said; None when more bytes are needed.

        :raises ProtocolViolation: for bytes that a server may not send now
        """
        if not self._buffer:
            return None
        if self.state is State.WAITS_FOR_VERDICT:
            return self._verdict()
        if self._starts_like_frame():
            return self._command()
        if self.state is not State.WAITS_FOR_ACK:
            raise ProtocolViolation("unexpected bytes from the server", bytes(self._buffer[:16]).hex())
        return self._ack()

    def _verdict(self) -> VerdictReceived:
        verdict = self._buffer.pop(0)
        if verdict not in (ACCEPTED, REJECTED):
            raise ProtocolViolation("neither a verdict of 01 nor of 00", f"{verdict:02x}")
        self.state = State.IDLE if verdict == ACCEPTED else State.OFFLINE
        return VerdictReceived(verdict == ACCEPTED)

    def _ack(self) -> AckReceived | None:
        if len(self._buffer) < ACK_SIZE:
            return None
        count = int.from_bytes(self._buffer[:ACK_SIZE], "big")
        del self._buffer[:ACK_SIZE]
        return self._acknowledged(count)

    def _acknowledged(self, count: int) -> AckReceived:
        packet = self.source.pending
        assert packet is not None
        ack = AckReceived(packet, count)
        self.state = State.IDLE
        if ack.is_right and self._settles:
            self.source.settle()
        self._settles = True
        return ack

    def _starts_like_frame(self) -> bool:
        """Four zero bytes alone are an acknowledgement of nothing; with more behind them they are a preamble."""
        may_be_ack = self.state is State.WAITS_FOR_ACK and len(self._buffer) <= ACK_SIZE
        return not may_be_ack and not any(self._buffer[:ACK_SIZE])

    def _command(self) -> CommandReceived | None:
        if len(self._buffer) < _FRAME_HEAD:
            return None
        size = int.from_bytes(self._buffer[4:_FRAME_HEAD], "big") + _AROUND_BODY
        if size > _MAX_COMMAND:
            raise ProtocolViolation("too long a frame from the server", f"{size} bytes")
        if len(self._buffer) < size:
            return None
        frame = bytes(self._buffer[:size])
        del self._buffer[:size]
        return CommandReceived(frame)


class DatagramDevice(Device):
    """The same over UDP: each piece of received data is one datagram."""

    __slots__ = ()

    def connect(self) -> bytes:
        self._buffer.clear()
        self.state = State.IDLE
        return b""

    def next_event(self) -> Event | None:
        """What is no acknowledgement of the packet that is on its way is passed over: datagrams come late and twice."""
        answer = bytes(self._buffer)
        self._buffer.clear()
        pending = self.source.pending
        if pending is None or self.state is not State.WAITS_FOR_ACK:
            return None
        try:
            ack = border.parse(ACKNOWLEDGEMENT, answer)
        except DecodeError:
            return None
        ids = answer[_PACKET_ID], ack["avl_packet_id"]
        return self._acknowledged(ack["accepted"]) if ids == _ids_of(pending.data) else None


def _ids_of(datagram: bytes) -> tuple[bytes, int]:
    return datagram[_PACKET_ID], datagram[_AVL_PACKET_ID]
