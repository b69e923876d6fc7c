"""What is around a link: how its group times and spoils things, who watches, and why it is over."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

import attrs

from gateway.emulator.commands import Reply
from gateway.emulator.device import Device
from gateway.emulator.group import Faults, Timing
from gateway.emulator.packets import Packet

Tap = Callable[[str, bytes], None]
"""Is told the ident and the bytes of everything that is sent."""


class End(Enum):
    """Why a link is over."""

    DONE = auto()  # the device has nothing more to send, now and ever
    IDLE = auto()  # the open link timeout
    REJECTED = auto()  # verdict 00
    TROUBLE = auto()
    REFUSED = auto()  # nothing listens there


class Observer(Protocol):
    """What wants to know how the links of a group are doing; ``seconds`` is the time to the acknowledgement."""

    def connected(self, device: Device) -> None: ...
    def sent(self, device: Device, data: bytes, again: bool) -> None: ...
    def acknowledged(self, device: Device, packet: Packet, seconds: float) -> None: ...
    def refused(self, device: Device, packet: Packet, count: int) -> None: ...
    def command_received(self, device: Device, reply: Reply | None, frame: bytes) -> None: ...
    def disconnected(self, device: Device) -> None: ...
    def lost(self, device: Device, reason: str, retry_in: float) -> None: ...
    def rejected(self, device: Device) -> None: ...
    def faulted(self, device: Device, fault: str) -> None: ...


@attrs.frozen
class Surroundings:
    """What all links of a group share."""

    timing: Timing
    faults: Faults
    observer: Observer
    tap: Tap | None = None
    tries_after_rejection: bool = False  # as devices do it, as long as there is something to record
