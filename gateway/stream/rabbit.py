"""A connection to RabbitMQ with a channel that confirms what is published. aiormq, below aio-pika, speaks AMQP.

aio-pika's own connections restore themselves, and its exchanges publish one message at a time; a stream does the one
itself and needs the other in batches. All errors of the library end here.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiormq
from aiormq import spec
from aiormq.abc import ChannelFrame, FrameType
from aiormq.channel import Channel
from aiormq.connection import TransportFactory
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelClosed,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    DeliveryError,
    InvalidFrameError,
    PublishError,
)
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from yarl import URL

from gateway.errors import RemoteError, RemoteRefused, RemoteUnavailable
from gateway.stream.bounded import open_bounded

CLOSE_TIME = 3.0
FRAME_MOST = 4 * 1024 * 1024
"""Bytes of a frame that RabbitMQ may announce: its own bound is 128 KiB, and a message that it returns has 1 MiB."""
PRECONDITION_FAILED = 406
"""What RabbitMQ closes the channel with when a message is too large, or its properties cannot be."""
NO_ROUTE = 312
AT_ONCE = 50
"""Messages that are made ready until trackers have their turn, some 3 ms."""
CODES = {
    ChannelAccessRefused: 403,
    ChannelNotFoundEntity: 404,
    ChannelLockedResource: 405,
    ChannelPreconditionFailed: PRECONDITION_FAILED,
}
"""The library has classes for them, and drops the numbers."""

Confirmation = asyncio.Future[Any]

# it warns of each attempt, with tracebacks; what comes of it is told once, as the stream's error
logging.getLogger("aiormq").setLevel(logging.CRITICAL)


class Publication(NamedTuple):
    """A message; ``properties`` are its own."""

    exchange: str
    routing_key: str
    body: bytes
    properties: spec.Basic.Properties


class _Transport(TransportFactory):
    """Keeps the socket, to cut it when its other side answers nothing."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.writer: asyncio.StreamWriter | None = None
        self._context = context

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self.writer = await open_bounded(url.host or "", url.port or 0, self._context, FRAME_MOST)
        return reader, self.writer


class RabbitLink:
    """``url`` has credentials, virtual host, heartbeat and name; ``context`` is for TLS."""

    def __init__(self, url: URL, context: ssl.SSLContext | None) -> None:
        self._transport = _Transport(context)
        self._connection = aiormq.Connection(url, transport_factory=self._transport)
        self._channel: Channel | None = None
        self._id = secrets.token_hex(8)
        self._published = 0

    async def open(self) -> Channel:
        """The channel, for declarations. Raises RemoteUnavailable."""
        with border():
            try:
                await self._connection.connect()
            except InvalidFrameError as error:
                if "Connection.OpenOk" not in str(error):
                    raise
                # the library does not keep the words with which RabbitMQ closed it
                raise RemoteUnavailable(
                    f"RabbitMQ closed the connection to virtual host {self._connection.vhost!r}: "
                    "it is not there, or the user may not use it"
                ) from None
            return await self.channel()

    async def channel(self) -> Channel:
        """The channel, a new one where RabbitMQ has closed it."""
        if self._channel is None or self._channel.is_closed:
            with border():
                channel = await self._connection.channel()
                assert isinstance(channel, Channel)
                self._channel = channel
        return self._channel

    async def close(self) -> None:
        """Say goodbye; cut the connection where that takes long. Never raises."""
        writer = self._transport.writer
        if writer is None:
            return
        closing = asyncio.gather(self._connection.close(), return_exceptions=True)
        try:
            await asyncio.wait([closing], timeout=CLOSE_TIME)
        finally:
            writer.transport.abort()
            closing.cancel()
        await asyncio.wait([closing], timeout=CLOSE_TIME)

    async def publish(
        self, publications: Sequence[Publication], sent: list[Confirmation], *, is_mandatory: bool
    ) -> None:
        """Send them in order; ``sent`` gets a future for each. :func:`answers_of` says what became of it.

        This is the library's ``basic_publish`` for many: that one makes a task, two locks and a system call of each
        message, and takes twice the time. Where it breaks off, the connection has to be closed.
        """
        channel = await self.channel()
        with border():
            async with channel.lock:
                for begin in range(0, len(publications), AT_ONCE):
                    frames = [
                        frame
                        for one in publications[begin : begin + AT_ONCE]
                        for frame in self._frames(channel, one, sent, is_mandatory)
                    ]
                    await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames))

    def _frames(
        self, channel: Channel, one: Publication, sent: list[Confirmation], is_mandatory: bool
    ) -> list[FrameType]:
        """Of a message, whose confirmation is expected from now on."""
        channel.delivery_tag += 1
        self._published += 1
        message_id = one.properties.message_id = f"{self._id}-{self._published:x}"
        confirmation = channel.create_future()
        channel.confirmations[channel.delivery_tag] = confirmation
        # by which the library knows what was returned
        channel.message_id_delivery_tag[message_id] = channel.delivery_tag
        confirmation.add_done_callback(lambda _: channel.message_id_delivery_tag.pop(message_id, None))
        sent.append(confirmation)
        most = channel.max_content_size
        return [
            spec.Basic.Publish(exchange=one.exchange, routing_key=one.routing_key, mandatory=is_mandatory),
            ContentHeader(properties=one.properties, body_size=len(one.body)),
            *[ContentBody(one.body[begin : begin + most]) for begin in range(0, len(one.body), most)],
        ]


async def answers_of(sent: Sequence[Confirmation], found: dict[int, RemoteError | None]) -> None:
    """Wait for all confirmations; ``found`` has them by place, also when this is cancelled. None: it was confirmed.

    RemoteRefused with status 406 or 312 speaks of the message. Where the channel or the connection ended, all that
    was not confirmed has that error.
    """
    try:
        await asyncio.wait(sent)
    finally:
        for place, one in enumerate(sent):
            if not one.done():
                one.cancel()
            elif one.cancelled():
                found[place] = error_of(asyncio.CancelledError())
            else:
                error = one.exception()
                found[place] = error_of(error) if error is not None else None


@contextmanager
def border() -> Iterator[None]:
    """The library's errors become ours."""
    try:
        yield
    except (AMQPError, OSError, EOFError, RuntimeError) as error:
        raise error_of(error) from None
    except asyncio.CancelledError as error:
        # the library cancels what waits for a connection that ends, and that is not the end of the stream
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise error_of(error) from None


def error_of(error: BaseException) -> RemoteError:
    """What went wrong, with RabbitMQ's words."""
    if isinstance(error, PublishError):
        return RemoteRefused(_returned(error), status=NO_ROUTE)
    if isinstance(error, DeliveryError):
        return RemoteRefused("RabbitMQ does not take a message (basic.nack): a queue is full, or cannot store it")
    if isinstance(error, ChannelClosed):
        return RemoteRefused(f"RabbitMQ closed the channel: {_words(error)}", status=CODES.get(type(error), 0))
    if isinstance(error, ConnectionClosed):
        return RemoteUnavailable(f"RabbitMQ closed the connection: {_words(error)}")
    if isinstance(error, AMQPError | OSError):
        return RemoteUnavailable(_words(error))
    # the library ends what waits for a connection that is gone with CancelledError, RuntimeError, or a bare Exception
    return RemoteUnavailable("the connection to RabbitMQ is gone")


def _returned(error: PublishError) -> str:
    frame = error.frame
    assert isinstance(frame, spec.Basic.Return)
    return (
        f"RabbitMQ returned a message: {frame.reply_code} {frame.reply_text}: "
        f"no queue is bound to exchange {frame.exchange!r} for the routing key {frame.routing_key!r}"
    )


def _words(error: BaseException) -> str:
    return " ".join(str(one) for one in error.args if one is not None) or type(error).__name__
