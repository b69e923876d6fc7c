"""Messages as a broker for MQTT gets them: topics, and the properties of MQTT 5."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from gateway.mqtt.flight import Publication
from gateway.mqtt.packets import USER_PROPERTY, packed_text, timestamp_of, variable_length
from gateway.mqtt.topics import is_safe_level
from gateway.stream.target import Outgoing, StreamInfo
from gateway.stream.template import Template

TOPICS_KEPT = 10_000
"""Of a stream, for those who send often."""
YIELD_AFTER = 500
"""Messages made ready until trackers have their turn, some 3 ms."""

CONTENT_TYPE = b"\x03" + packed_text("application/json")
MESSAGE_EXPIRY = b"\x02"
CID = USER_PROPERTY + packed_text("cid") + packed_text("1")
TIMESTAMP = USER_PROPERTY + packed_text("timestamp")

Placed = tuple[int, Publication]
"""With its place in the batch."""


class Publications:
    """Of one stream; ``config`` is that of its type."""

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        self._config = config
        self._template = Template(config.topic, stream, no_id="0", no_name="-")
        expiry = MESSAGE_EXPIRY + config.message_expiry.to_bytes(4, "big") if config.message_expiry else b""
        self._properties = expiry + CONTENT_TYPE + CID
        self._topics: dict[tuple[tuple[str, str], ...], bytes | str] = {}

    async def ready(self, batch: Sequence[Outgoing], rejections: dict[int, str], broker_most: int) -> list[Placed]:
        """What can be published; the reasons why others cannot go to ``rejections``.

        ``broker_most``: bytes of a packet that the broker takes.
        """
        most = min(broker_most, self._config.maximum_packet_size or broker_most)
        ready = []
        for index, outgoing in enumerate(batch):
            if index % YIELD_AFTER == YIELD_AFTER - 1:
                await asyncio.sleep(0)
            if index in rejections:
                continue
            topic = self._topic(outgoing)
            if isinstance(topic, str):
                rejections[index] = topic
                continue
            publication = Publication(topic, outgoing.text, self._properties_of(outgoing))
            if publication.size > most:
                rejections[index] = f"it makes a packet of {publication.size} bytes, and the broker takes {most}"
                continue
            ready.append((index, publication))
        return ready

    def _topic(self, outgoing: Outgoing) -> bytes | str:
        """Packed; text says why there is none."""
        values = self._template.values(outgoing)
        topic = self._topics.get(values)
        if topic is None:
            if len(self._topics) >= TOPICS_KEPT:
                self._topics.clear()
            topic = self._topics[values] = self._packed(values)
        return topic

    def _packed(self, values: tuple[tuple[str, str], ...]) -> bytes | str:
        for name, value in values:
            if not is_safe_level(value):
                return f"{name} {value[:100]!r} cannot be in a topic: it should be printable, without '#', '+' and '/'"
        return packed_text(self._template.filled(values))

    def _properties_of(self, outgoing: Outgoing) -> bytes:
        """The user properties are those of the gateway's own broker, which are flespi's."""
        if self._config.version == 4:
            return b""
        timestamp = self._timestamp(outgoing)
        length = len(self._properties) + (len(TIMESTAMP) + 2 + len(timestamp) if timestamp else 0)
        if not timestamp:
            return variable_length(length) + self._properties
        return b"".join((variable_length(length), self._properties, TIMESTAMP, packed_text(timestamp)))

    @staticmethod
    def _timestamp(outgoing: Outgoing) -> bytes:
        if outgoing.original is None:
            return timestamp_of(outgoing.text)
        timestamp = outgoing.original.get("timestamp")
        return repr(timestamp).encode() if isinstance(timestamp, int | float) else b""
