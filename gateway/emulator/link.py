"""A device's connection: bytes between its session and a socket, and the clocks of a tracker's modem.

The response timeout (no verdict or acknowledgement in time: close, connect, send the same again), pings and the open
link timeout. Plain asyncio, so that a fleet of these and a server's reactor stay apart. A link has one timer, which is
moved only when it fires too early: ten thousand links then cost the event loop little, however often they send.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import cast

from gateway.emulator.commands import Commands
from gateway.emulator.device import AckReceived, CommandReceived, DatagramDevice, Device, Event, State, VerdictReceived
from gateway.emulator.faults import happens, segments, spoil_codec, spoil_crc
from gateway.emulator.packets import Packet, framed
from gateway.emulator.surroundings import End, Surroundings
from gateway.errors import ProtocolViolation
from gateway.protocols.teltonika.frame import PING


class Link(asyncio.Protocol, asyncio.DatagramProtocol):
    """One connection, until ``on_end`` is called with the reason, exactly once.

    Datagrams need no connection: there a missing acknowledgement is no end, the packet is sent again.
    """

    __slots__ = (
        "_around", "_commands", "_deadline", "_device", "_idle_since", "_loop",
        "_on_end", "_on_idle", "_pieces", "_random", "_sent_at", "_timer", "_transport", "ended", "is_silent",
        "was_accepted",
    )  # fmt: skip

    def __init__(
        self,
        device: Device,
        commands: Commands | None,
        around: Surroundings,
        random: Random,
        on_end: Callable[[End, str], None],
        on_idle: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._device = device
        self._commands = commands
        self._around = around
        self._random = random
        self._on_end = on_end
        self._on_idle = on_idle
        self._transport: asyncio.Transport | asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._idle_since = 0.0
        self._sent_at = 0.0
        self._pieces: list[bytes] = []
        self.is_silent = False
        self.was_accepted = False
        self.ended = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast(asyncio.Transport | asyncio.DatagramTransport, transport)
        if self.ended:
            opened.abort()
            return
        self._transport = opened
        login = self._device.connect()
        if login:
            self._write(login)
            self._wait(self._around.timing.response_timeout)
        else:
            self._rest()
            self.send()

    def data_received(self, data: bytes) -> None:
        if self.is_silent:
            return
        self._device.receive_data(data)
        try:
            while not self.ended and (event := self._device.next_event()) is not None:
                self._react(event)
        except ProtocolViolation as violation:
            self.end(End.TROUBLE, str(violation))

    def datagram_received(self, data: bytes, address: object) -> None:
        self.data_received(data)

    def error_received(self, error: Exception) -> None:
        refused = isinstance(error, ConnectionRefusedError)
        self.end(End.REFUSED if refused else End.TROUBLE, "connection refused" if refused else str(error))

    def connection_lost(self, error: Exception | None) -> None:
        self.end(End.TROUBLE, str(error) if error else "the server closed the connection")

    # What the tracker calls

    def send(self) -> None:
        """Send what is due; called again whenever there is a new record."""
        if self._transport is None or self.ended or self.is_silent:
            return
        while (packet := self._device.next_packet()) is not None:
            self._transmit(packet)
            if self._device.state is State.WAITS_FOR_ACK:
                return
        if self._device.state is State.IDLE:
            if self._device.is_done:
                self.end(End.DONE)
            elif not self.ended:
                self._on_idle()

    def end(self, end: End, reason: str = "") -> None:
        """End the connection; harmless where it has ended."""
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._device.disconnect()
        if self._transport is not None and not self.is_silent:
            self._transport.close()
        self._on_end(end, reason)

    def drop(self) -> None:
        """Close what a silent link left open."""
        if self._transport is not None:
            self._transport.abort()

    # Reactions

    def _react(self, event: Event) -> None:
        if isinstance(event, CommandReceived):
            self._obey(event.frame)
        elif isinstance(event, AckReceived):
            self._acknowledged(event)
        elif isinstance(event, VerdictReceived) and event.accepted:
            self._accepted()
        else:
            self._around.observer.rejected(self._device)
            self.end(End.REJECTED, "the ident is rejected (verdict 00)")

    def _accepted(self) -> None:
        self._is_welcome()
        self._rest()
        self.send()

    def _is_welcome(self) -> None:
        """By a verdict; with datagrams, which have none, by the first acknowledgement."""
        if not self.was_accepted:
            self.was_accepted = True
            self._around.observer.connected(self._device)

    def _acknowledged(self, ack: AckReceived) -> None:
        if ack.is_right:
            self._is_welcome()
            self._around.observer.acknowledged(self._device, ack.packet, time.perf_counter() - self._sent_at)
            self._rest()
            self.send()
        else:
            self._around.observer.refused(self._device, ack.packet, ack.count)
            self.end(End.TROUBLE, f"{ack.count} records were acknowledged instead of {ack.expected}")

    def _obey(self, frame: bytes) -> None:
        reply = self._commands.reply(frame) if self._commands is not None else None
        self._around.observer.command_received(self._device, reply, frame)
        if reply is None:
            return
        if reply.restarts:
            self.end(End.TROUBLE, "restarted by cpureset")
        elif reply.data:
            self._write(reply.data)

    # Sending

    def _transmit(self, packet: Packet) -> None:
        again = self._device.sent_before is packet
        self._device.was_sent(packet)
        self._sent_at = time.perf_counter()
        self._wait(self._around.timing.response_timeout)
        data = packet.data if packet.count is None else self._with_faults(packet, again)
        self._around.observer.sent(self._device, packet.data, again)
        if data:
            self._write(data)
        if self._happens("silence"):
            self.is_silent = True

    def _with_faults(self, packet: Packet, again: bool) -> bytes:
        """What goes out instead of the packet; nothing where the link was cut."""
        data = packet.data
        if self._happens("cut"):
            self._write(data[: self._random.randrange(len(data))])
            self._loop.call_soon(self.end, End.TROUBLE, "the link was cut (fault)")
            return b""
        if not again and self._happens("unknown_codec"):
            self._device.disregard_ack()
            return self._with_unknown_codec(packet)
        if not again and self._happens("duplicate"):
            self._device.disregard_ack()
        if not self._is_datagram and self._happens("bad_crc"):
            return spoil_crc(data)
        return data

    def _with_unknown_codec(self, packet: Packet) -> bytes:
        body = spoil_codec(packet.body)
        return packet.data[: -len(body)] + body if self._is_datagram else framed(body)

    def _happens(self, fault: str) -> bool:
        if not happens(getattr(self._around.faults, fault), self._random):
            return False
        self._around.observer.faulted(self._device, fault)
        return True

    def _write(self, data: bytes) -> None:
        if self._around.tap is not None:
            self._around.tap(self._device.imei, data)
        if self._is_datagram:
            cast(asyncio.DatagramTransport, self._transport).sendto(data)
        elif not self._around.faults.segments:
            cast(asyncio.Transport, self._transport).write(data)
        else:
            self._pieces += segments(data, self._around.faults.segments)
            self._write_piece()

    def _write_piece(self) -> None:
        """One piece a turn of the event loop, so that each has a chance to travel alone."""
        if self.ended or not self._pieces:
            return
        cast(asyncio.Transport, self._transport).write(self._pieces.pop(0))
        self._loop.call_soon(self._write_piece)

    @property
    def _is_datagram(self) -> bool:
        """asyncio's transports of datagrams are no DatagramTransport before Python 3.13, so the device is asked."""
        return isinstance(self._device, DatagramDevice)

    # Clocks

    def _wait(self, seconds: float) -> None:
        """Until an answer comes; the timer that runs is left alone if it fires before."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._arm()

    def _rest(self) -> None:
        """Nothing is awaited: the clocks of an idle link."""
        self._idle_since = self._loop.time()
        timing = self._around.timing
        spans = [span for span in (timing.ping_interval, timing.open_link_timeout) if span]
        if spans:
            self._wait(min(spans))
        else:
            self._deadline = float("inf")

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now < self._deadline:
            if self._deadline != float("inf"):
                self._arm()
        elif self._device.state is State.IDLE:
            self._idle(now)
        else:
            self._no_answer()

    def _idle(self, now: float) -> None:
        timing = self._around.timing
        until_close = timing.open_link_timeout - (now - self._idle_since)
        if timing.open_link_timeout and until_close <= 0:
            self.end(End.IDLE, "open link timeout")
            return
        if timing.ping_interval and not self._is_datagram:
            self._write(PING)
        spans = [timing.ping_interval] if timing.ping_interval else []
        self._wait(min([*spans, until_close] if timing.open_link_timeout else spans))

    def _no_answer(self) -> None:
        seconds = f"within {self._around.timing.response_timeout:g} s"
        if self._device.state is State.WAITS_FOR_VERDICT:
            self.end(End.TROUBLE, f"no verdict {seconds}")
        elif self._is_datagram and not self.is_silent:
            self._device.connect()
            self.send()
        else:
            self.end(End.TROUBLE, f"no acknowledgement {seconds}")
