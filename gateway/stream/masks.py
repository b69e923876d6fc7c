"""Names at the target that differ from message to message: ``%ident%``, ``%device.id%``, ``%channel.id%`` in a text."""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.stream.target import Outgoing

MASK = re.compile(r"%(ident|device\.id|channel\.id)%")


def has_masks(template: str) -> bool:
    """Whether there is anything to replace."""
    return MASK.search(template) is not None


def fixed_part(template: str) -> str:
    """What the text begins with whatever the message is."""
    mask = MASK.search(template)
    return template if mask is None else template[: mask.start()]


def filled(template: str, outgoing: Outgoing, quote: Callable[[str], str] = str) -> str:
    """The text for a message; ``quote`` makes a value safe for the place where it goes.

    Without a device ``%device.id%`` is empty, and so is ``%channel.id%`` of what was posted to a device.
    """
    if "%" not in template:
        return template
    return MASK.sub(lambda mask: quote(_value(mask[1], outgoing)), template)


def _value(name: str, outgoing: Outgoing) -> str:
    if name == "ident":
        return outgoing.ident
    if name == "device.id":
        return str(outgoing.device_id or "")
    return str(outgoing.channel_id or outgoing.source.get("channel.id", ""))
