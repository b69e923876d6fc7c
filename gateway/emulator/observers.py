"""What hears of each event of a group's links: the counters, and a person who looks at a single tracker."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from gateway.emulator.commands import Reply
from gateway.emulator.device import Device
from gateway.emulator.packets import Packet
from gateway.emulator.recorder import IGNITION, Record
from gateway.emulator.tally import Tally
from gateway.protocols.teltonika.wire import decode_packet


class Counting:
    """Keeps a group's tally; what a link tells is not shown."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self._rejected: set[str] = set()

    def connected(self, device: Device) -> None:
        self._rejected.discard(device.imei)
        self.tally.rejected = len(self._rejected)
        self.tally.connected += 1
        self.tally.connections += 1

    def disconnected(self, device: Device) -> None:
        self.tally.connected -= 1

    def sent(self, device: Device, data: bytes, again: bool) -> None:
        self.tally.bytes_sent += len(data)
        self.tally.packets_sent_again += again

    def acknowledged(self, device: Device, packet: Packet, seconds: float) -> None:
        self.tally.latencies.add(seconds)

    def refused(self, device: Device, packet: Packet, count: int) -> None:
        """The connection ends, and the packet comes again: that is counted there."""

    def command_received(self, device: Device, reply: Reply | None, frame: bytes) -> None:
        self.tally.commands += 1

    def lost(self, device: Device, reason: str, retry_in: float) -> None:
        """Counted by what is sent again."""

    def rejected(self, device: Device) -> None:
        self._rejected.add(device.imei)
        self.tally.rejected = len(self._rejected)

    def faulted(self, device: Device, fault: str) -> None:
        self.tally.faults[fault] += 1


class Talking(Counting):
    """Prints a line for each event as well; with ``quiet`` only what went wrong."""

    def __init__(self, tally: Tally, quiet: bool = False, out: TextIO | None = None) -> None:
        super().__init__(tally)
        self._quiet = quiet
        self._out = out or sys.stdout

    def connected(self, device: Device) -> None:
        super().connected(device)
        if not self._quiet:
            self._print(device, "connected, the ident is accepted")

    def acknowledged(self, device: Device, packet: Packet, seconds: float) -> None:
        super().acknowledged(device, packet, seconds)
        if not self._quiet:
            counts = f"{plural(packet.count or 0, 'record')}, {len(packet.data)} bytes"
            self._print(device, f"{counts}, acknowledged after {seconds * 1e3:.1f} ms; {_describe(packet)}")

    def refused(self, device: Device, packet: Packet, count: int) -> None:
        super().refused(device, packet, count)
        self._print(device, f"{plural(packet.count or 0, 'record')} sent, {count} acknowledged: all will be sent again")

    def command_received(self, device: Device, reply: Reply | None, frame: bytes) -> None:
        super().command_received(device, reply, frame)
        if reply is None:
            self._print(device, f"what is no command came: {frame.hex()}")
        else:
            self._print(device, f"command {reply.text!r}, answered {reply.answer!r}")

    def lost(self, device: Device, reason: str, retry_in: float) -> None:
        super().lost(device, reason, retry_in)
        waiting = plural(self.tally.waiting, "record")
        self._print(device, f"no link: {reason}; {waiting} waiting, next attempt in {retry_in:.1f} s")

    def faulted(self, device: Device, fault: str) -> None:
        super().faulted(device, fault)
        if not self._quiet:
            self._print(device, f"fault: {fault.replace('_', ' ')}")

    def _print(self, device: Device, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {device.imei} {text}", file=self._out, flush=True)


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _describe(packet: Packet) -> str:
    record: Record = decode_packet(packet.body)["records"][-1]
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record["timestamp"] / 1000))
    position = f"{record['latitude'] / 1e7:.5f} {record['longitude'] / 1e7:.5f}"
    ignition = dict(record["n1"]).get(IGNITION)
    engine = "" if ignition is None else f", ignition {'on' if ignition else 'off'}"
    return f"{at}Z at {position}, {record['speed']} km/h{engine}"
