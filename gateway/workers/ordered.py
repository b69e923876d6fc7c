"""Commands that come over the pipe: each goes out when its connection's line is free, and its answer goes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define

from gateway.channel.lines import Lines, Link, Stranger
from gateway.errors import GatewayError
from gateway.store.item import Device
from gateway.store.items import Channel
from gateway.workers import wire
from gateway.workers.asking import Doorkeeper, Send

LATE_COMMAND = 1.0
"""Seconds after which a command that could not go out yet, and is not waited for any longer, is dropped."""


@define(eq=False)
class Pending:
    """A command of the first process on its way to a tracker."""

    number: int
    payload: bytes
    codec_id: int
    at: float
    is_sent: bool = False
    is_abandoned: bool = False


class FrontLines(Lines):
    """Commands go out when the line is free; answers go to the first process."""

    def __init__(self, send: Send, doorkeeper: Doorkeeper, now: Callable[[], float]) -> None:
        self._send = send
        self._doorkeeper = doorkeeper
        self._now = now
        self._lines: dict[int, Any] = {}
        """By line: the connection."""
        self._pending: dict[Any, list[Pending]] = {}
        """By connection, in order. Several: the first process waits for none that has no answer."""
        self._strangers: dict[Any, Stranger] = {}

    # -- what connections say

    def connected(self, device: Device, channel: Channel, link: Link) -> None:
        self._lines[device.id] = link

    def met(self, stranger: Stranger, channel: Channel, link: Link) -> bool:
        self._lines[stranger.line_id] = link
        self._strangers[link] = stranger
        return True

    def model_of(self, channel: Channel, ident: str) -> str | None:
        return self._doorkeeper.of(channel.id, ident).model

    def disconnected(self, device_id: int, link: Link) -> None:
        if self._lines.get(device_id) is link:
            del self._lines[device_id]
        self._pending.pop(link, None)
        self._strangers.pop(link, None)

    def line_changed(self, device_id: int) -> None:
        link = self._lines.get(device_id)
        if link is not None:
            self._try(link)

    def answered(self, device_id: int, link: Any, payload: bytes, refusal: str) -> bool:
        """What nobody waits for is a message, which the connection makes of it."""
        waiting = self._pending.get(link)
        if not waiting or not waiting[0].is_sent:
            return False
        pending = waiting.pop(0)
        if pending.is_abandoned:
            return False
        said = {"codec_id": pending.codec_id, "type": 6, "payload": payload}
        self._send(wire.Answered(link.id, pending.number, payload, refusal, said))
        return True

    # -- what the first process says

    def command(self, link: Any, command: wire.Command) -> None:
        """Send it as soon as that can be."""
        pending = Pending(command.number, command.payload, command.codec_id, self._now())
        self._pending.setdefault(link, []).append(pending)
        self._try(link)

    def abandon(self, link: Any) -> None:
        """The answer to the last one is not waited for; if it was not even sent, it is dropped if that was long ago."""
        waiting = self._pending.get(link)
        if not waiting:
            return
        pending = waiting[-1]
        if pending.is_sent:
            self._abandon(link, pending)
        elif self._now() - pending.at > LATE_COMMAND:
            waiting.remove(pending)
        else:
            pending.is_abandoned = True

    def model(self, link: Any, model: str | None) -> None:
        """A tracker without a device is of this model."""
        stranger = self._strangers.get(link)
        if stranger is not None:
            self._doorkeeper.has_model(link.channel.id, stranger.ident, model)
            stranger.told()

    def _try(self, link: Any) -> None:
        waiting = self._pending.get(link, [])
        while (pending := next((one for one in waiting if not one.is_sent), None)) and link.may_send_command:
            del waiting[: waiting.index(pending)]  # what those still say is late, as their session knows
            try:
                link.send_command(pending.payload, pending.codec_id)
            except GatewayError as error:
                waiting.remove(pending)
                self._send(wire.Answered(link.id, pending.number, b"", str(error), None))
                continue
            pending.is_sent = True
            if pending.is_abandoned:
                self._abandon(link, pending)

    def _abandon(self, link: Any, pending: Pending) -> None:
        pending.is_abandoned = True
        try:
            link.abandon_command()
        except GatewayError:  # its answer has just come
            waiting = self._pending.get(link, [])
            if pending in waiting:
                waiting.remove(pending)
