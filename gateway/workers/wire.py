"""What the first process and a worker say to each other, over a pair of sockets::

    first process                                            worker
    Setup (limits, log) ------------------------------------>
    Listen (a channel and its endpoints) ------------------->          endpoints are opened, on ports that are shared
          <----------------------------------- Opened (a connection)
          <----------------------------------- Ask (is this ident welcome?)
    Verdict ------------------------------------------------>
          <----------------------------------- Identified
          <----------------------------------- Store (messages of a packet), Park (bytes that nobody can decode)
    Stored (they are in the log, or will never be) --------->          the tracker gets its acknowledgement
    Command ------------------------------------------------>          it goes out when the line is free
          <----------------------------------- Answered
    Close -------------------------------------------------->
          <----------------------------------- Ended

A connection has a number that its worker gives it. Each message is a MessagePack array behind its length in four bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

SIZE = 4
MESSAGE_MOST = 64 * 1024 * 1024
"""Bytes of one message; a packet's messages are some hundred kilobytes at most."""


class Message(Struct, tag=True, array_like=True):
    """Base of all."""


# -- from the first process


class Setup(Message):
    """The first one. ``limits``: as :class:`gateway.channel.connections.Limits`."""

    number: int
    limits: dict[str, float]
    log_format: str
    log_level: str


class Listen(Message):
    """A channel as it is now, as JSON, with the endpoints that are shared; ``channel`` empty: it is no more."""

    channel_id: int
    channel: bytes
    specs: list[str]


class Gate(Message):
    """Whether trackers' data can be taken, and why not."""

    is_open: bool
    reason: str


class Verdict(Message):
    """The answer to :class:`Ask`. ``device``: the device of this ident as JSON; empty: there is none.

    ``model``: what a tracker without a device said that it is.
    """

    question: int
    is_welcome: bool | None
    reason: str
    code: int
    is_registered: bool
    device: bytes
    model: str | None


class Stored(Message):
    """The answer to :class:`Store` and :class:`Park`; ``error`` empty: it is in the log."""

    job: int
    error: str


class Close(Message):
    """Close this connection; ``is_abort``: at once."""

    connection: int
    why: str
    code: int
    is_routine: bool
    is_abort: bool


class StopTaking(Message):
    """Take nothing more from this connection; what was taken is still acknowledged."""

    connection: int


class Command(Message):
    """Send this to the tracker, as soon as the line is free. ``number`` is another one for each of a connection."""

    connection: int
    number: int
    payload: bytes
    codec_id: int


class Abandon(Message):
    """The answer to the last command is not waited for any longer, or none is due."""

    connection: int


class Model(Message):
    """A tracker without a device has said which model it is."""

    connection: int
    model: str | None


class Stop(Message):
    """End in order: take nothing more, wait for what is being stored, ``seconds`` at most, and close all."""

    seconds: float


# -- from a worker


class Ready(Message):
    """It has what :class:`Setup` said."""


class Opened(Message):
    """A connection came."""

    connection: int
    channel_id: int
    peer: str
    host: str
    transport_kind: str


class Ask(Message):
    """Is this ident welcome?"""

    question: int
    channel_id: int
    ident: str


class Identified(Message):
    """The connection was let in as this ident."""

    connection: int
    ident: str


class Store(Message):
    """The messages of a packet: JSON texts without ``server.timestamp``, one a line. ``count`` of them."""

    job: int
    channel_id: int
    ident: str
    count: int
    texts: bytes


class Park(Message):
    """Bytes that nobody can decode."""

    job: int
    channel_id: int
    ident: str
    frame: bytes
    reason: str


class Answered(Message):
    """The tracker's response to a command. ``said`` is it as a message, should nobody wait for it any longer."""

    connection: int
    number: int
    payload: bytes
    refusal: str
    said: Any


class Told(Message):
    """Something for the observer: the name of its method, and what it is given beside the connection."""

    connection: int
    occasion: str
    details: list[Any]


class Counted(Message):
    """How a connection is doing: seconds since its last byte, messages, bytes in and out."""

    connection: int
    silence: float
    msgs: int
    recv: int
    send: int


class Ended(Message):
    """A connection ended."""

    connection: int
    code: int
    why: str


class Figures(Message):
    """What its counters and histograms grew by: name, labels, and a number, or the buckets and the sum.

    Sent once a second also where they did not grow: a worker that says nothing is stuck.
    """

    counters: list[tuple[str, list[tuple[str, str]], int]]
    histograms: list[tuple[str, list[tuple[str, str]], list[int], float]]


class Line(Message):
    """A line for the diagnostic log."""

    text: str


class NotListening(Message):
    """An endpoint that could not be opened."""

    channel_id: int
    reason: str


ToWorker = Setup | Listen | Gate | Verdict | Stored | Close | StopTaking | Command | Abandon | Model | Stop
FromWorker = (
    Ready | Opened | Ask | Identified | Store | Park | Answered | Told | Counted | Ended | Figures | Line | NotListening
)

encoder = msgspec.msgpack.Encoder()
to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def pack(message: Message) -> bytes:
    """With its length before it."""
    body = encoder.encode(message)
    return len(body).to_bytes(SIZE, "big") + body
