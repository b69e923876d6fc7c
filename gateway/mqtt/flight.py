"""A batch of messages over one connection, for who must know what the broker says to each of them.

:class:`~gateway.mqtt.link.Link` is for what publishes all the time; it takes reason codes as it sees fit. Here they are
given to who asked, with the broker's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.errors import BrokerUnavailable
from gateway.mqtt.connection import Connection
from gateway.mqtt.packets import publish_head, read_puback

FAILURE = 0x80
"""Reason codes from here on are refusals (MQTT 5, 3.4.2.1)."""
NOT_AUTHORIZED, TOPIC_INVALID, TOO_LARGE, FORMAT_INVALID = 0x87, 0x90, 0x95, 0x99
WORDS_MOST = 300
"""Characters of a broker's words that are kept."""


class Publication(NamedTuple):
    """A message with QoS 1. ``topic`` is packed; ``properties`` with their length, empty in MQTT 3.1.1."""

    topic: bytes
    payload: bytes
    properties: bytes = b""

    @property
    def size(self) -> int:
        """Of the packet, up to four bytes more than it has."""
        return 7 + len(self.topic) + len(self.payload) + len(self.properties)


class TalkingConnection(Connection):
    """Keeps what a broker says to its refusals: ``words`` by packet id."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.words: dict[int, str] = {}

    def read_puback(self, packet: bytes) -> tuple[int, int]:
        packet_id, reason = read_puback(packet)
        if reason >= FAILURE:
            self.words[packet_id] = words_of(packet)
        return packet_id, reason


class Flight:
    """``window`` messages unacknowledged at most, in order; packet ids are places in the batch, from 1.

    A refusal whose code is not among ``goes_on`` ends it: no more are sent, and what was sent is waited for.
    """

    def __init__(
        self,
        connection: TalkingConnection,
        publications: Sequence[Publication],
        *,
        first_byte: int,
        window: int,
        goes_on: Collection[int] = (),
    ) -> None:
        self.answers: dict[int, int] = {}
        """Places in the batch, with the reason codes."""
        self.refused: list[int] = []
        """Places whose refusals ended it."""
        self._connection = connection
        self._publications = publications
        self._first_byte = first_byte
        self._window = window
        self._goes_on = goes_on
        self._sent = 0
        self._end = len(publications)
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until all that was sent is answered. Raises BrokerUnavailable when the connection ends before that.

        After that, and where it is cancelled, the connection cannot be used for another flight.
        """
        connection = self._connection
        connection.words.clear()
        connection.on_pubacks = self._take
        connection.on_room = self._go_on
        try:
            self._go_on()
            await self._finished
        finally:
            connection.on_pubacks = lambda pubacks: None
            connection.on_room = lambda: None

    def reason(self, place: int) -> str:
        """What the broker said to a message that it refused."""
        code = self.answers[place]
        words = self._connection.words.get(place + 1, "")
        return f"{name_of(code)} (0x{code:02x}){f': {words}' if words else ''}"

    def topic(self, place: int) -> str:
        """Of a message."""
        return self._publications[place].topic[2:].decode()

    def _go_on(self) -> None:
        connection = self._connection
        if not connection.is_alive:
            if not self._finished.done():
                self._finished.set_exception(BrokerUnavailable("the connection to the broker is gone"))
            return
        last = min(self._end, len(self.answers) + self._window)
        while self._sent < last and not connection.is_paused:
            topic, payload, properties = self._publications[self._sent]
            self._sent += 1
            packet_id = self._sent.to_bytes(2, "big")
            connection.send(publish_head(self._first_byte, topic, packet_id, properties, len(payload)), payload)
        if len(self.answers) >= self._sent >= self._end and not self._finished.done():
            self._finished.set_result(None)

    def _take(self, pubacks: list[tuple[int, int]]) -> None:
        for packet_id, code in pubacks:
            place = packet_id - 1
            if not 0 <= place < self._sent or place in self.answers:
                continue
            self.answers[place] = code
            if code >= FAILURE and code not in self._goes_on:
                self.refused.append(place)
                self._end = min(self._end, self._sent)
        self._go_on()


def name_of(code: int) -> str:
    """A reason code of a PUBACK in words."""
    if code == TOO_LARGE:
        return "Packet too large"  # Mosquitto says it in a PUBACK, where the standard does not have it
    try:
        return str(ReasonCode(PacketTypes.PUBACK, identifier=code))
    except KeyError:
        return "unknown reason code"


def words_of(packet: bytes) -> str:
    """The reason string of a PUBACK (MQTT 5, 3.4.2.2.2); empty where there is none that can be read."""
    at = 2 if packet[1] < 0x80 else 3 if packet[2] < 0x80 else 4
    properties = Properties(PacketTypes.PUBACK)
    try:
        properties.unpack(packet[at + 3 :])
    except Exception:  # paho has many for what is wrong; the code says enough
        return ""
    text = str(getattr(properties, "ReasonString", ""))[:WORDS_MOST]
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)
