"""What a tracker says unasked, as a message: what its serial port passes on (Codec 12, 13, 15), answers to nobody.

Parameters: ``codec.id``, ``payload.text`` where the bytes are text, else ``payload.hex`` (lower case, as flespi's
parameter of this name), ``payload.type.enum``, the type byte: 5, 6, or a mode of the serial port. ``payload.imei``,
where Codec 14 or 15 names another IMEI than the login did.

``timestamp`` is the tracker's where the codec has one (13, 15), else that of reception. Such a one is in whole seconds,
and what a port passes on comes many times a second: ``timestamp.key`` tells the messages of a second apart, so that
they are not merged with each other or with a record. It has the second of the tracker, the fraction of reception.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

WHITE = str.maketrans("", "", "\r\n\t")
"""Control characters that text may have."""
MILLISECONDS_SIZE = 8
"""``timestamp_size`` of Codec 13 as it was until 2021."""


def message_of(said: Mapping[str, Any], ident: str, received: float) -> dict[str, Any]:
    """The message of ``said``, the dict of a CommandReceived, without what only the channel knows of it.

    ``received`` is its ``server.timestamp``, in seconds, unique within the channel.
    """
    message = {
        "codec.id": said["codec_id"],
        "payload.type.enum": said["type"],
        "timestamp": received,
        **payload_parameters(said["payload"]),
    }
    if said.get("imei", ident) != ident:
        message["payload.imei"] = said["imei"]
    if "timestamp" in said:
        seconds = said["timestamp"]
        if said.get("timestamp_size") == MILLISECONDS_SIZE:
            seconds = seconds / 1000 if seconds % 1000 else seconds // 1000
        message["timestamp"] = seconds
        message["timestamp.key"] = math.floor(seconds) + round(received % 1, 6)
    return message


def payload_parameters(payload: bytes) -> dict[str, str]:
    """``payload.text`` or ``payload.hex``."""
    text = text_of(payload)
    return {"payload.hex": payload.hex()} if text is None else {"payload.text": text}


def text_of(payload: bytes) -> str | None:
    """The bytes as text in UTF-8 with no control characters but those of line ends and tabs; None: they are none."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    return text if text.translate(WHITE).isprintable() else None
