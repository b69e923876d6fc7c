"""What a connection is to those who command devices: a line on which one command at a time goes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Interface

from attrs import frozen

from gateway.store.items import Channel, Device


class Link(Interface):
    """A connection, as :class:`gateway.store.dispatcher.Link` wants it."""

    @property
    def may_send_command(self) -> bool:
        """Whether a command can go out just now."""

    def send_command(self, payload: bytes, codec_id: int) -> None:
        """Send it. Raises GatewayError where that cannot be."""

    def abandon_command(self) -> None:
        """Its answer is not waited for any longer, or none is due. Raises GatewayError."""


@frozen
class Stranger:
    """A tracker that was let in although no device has its ident.

    ``line_id`` takes the place of the device's id, and is none: it is below 0. ``told`` is called when its model is
    known.
    """

    line_id: int
    ident: str
    told: Callable[[], None]


class Lines:
    """Commands nobody; :class:`gateway.channel.commanded.CommandedLines` does. No method waits or raises."""

    def connected(self, device: Device, channel: Channel, link: Link) -> None:
        """The device has this connection now."""

    def met(self, stranger: Stranger, channel: Channel, link: Link) -> bool:
        """A tracker without a device has this connection now; True: it has a line, too, for it is asked something."""
        return False

    def model_of(self, channel: Channel, ident: str) -> str | None:
        """The model that a tracker without a device said that it is, where the channel asks for it."""
        return None

    def disconnected(self, device_id: int, link: Link) -> None:
        """The connection is gone, or about to be."""

    def line_changed(self, device_id: int) -> None:
        """A command can go out, after one was refused because something else was under way."""

    def answered(self, device_id: int, link: Link, payload: bytes, refusal: str) -> bool:
        """The response to the last command; ``refusal``: why the device does not obey. False: nobody waits for it."""
        return False
