"""Streams on real logs, without trackers: a test writes to the logs what the gateway would have written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from gateway.store.event_codes import EventCode
from gateway.store.items import Device, Items, Link, Stream
from gateway.store.keys import ShardKeys
from gateway.stream.protocols import find_protocols
from gateway.stream.state import StreamState
from gateway.stream.streams import Streams

KEYS = ShardKeys()
PROTOCOLS = find_protocols()
NOW = 1_795_000_000.0
RETRY = 0.02
Message = dict[str, Any]


class Carrier:
    """A store with one channel and a device, and the streams of it."""

    def __init__(self, redis) -> None:
        self.redis = redis
        self.time = NOW
        self.items = Items(redis, now=lambda: self.time)
        self.events: list[tuple[str, int, int, dict[str, Any]]] = []
        self.streams = self.new_streams()
        self._written = 0

    def new_streams(self) -> Streams:
        """As after a start of the gateway."""
        return Streams(
            self.redis, KEYS, self.items, PROTOCOLS, self._record, now=lambda: self.time, retry_first=RETRY
        )  # fmt: skip

    def _record(self, kind: str, item_id: int, code: int, **fields: Any) -> None:
        self.events.append((kind, item_id, code, fields))

    async def open(self) -> None:
        await self.items.load()
        await self.items.create_channel(name="trackers", protocol_id=14)
        await self.streams.start()

    async def close(self) -> None:
        await self.streams.stop()

    async def kill(self) -> dict[bytes, bytes]:
        """End the senders, as if they had not been: the cursors are those of before."""
        before = await self.redis.hgetall(KEYS.cursors)
        await self.streams.stop()
        return before

    # -- items

    async def device(self, ident: str) -> Device:
        return await self.items.create_device(ident=ident, name=ident, protocol_id=14, device_type_id=303)

    async def stream(self, protocol: str, configuration: dict[str, Any], **values: Any) -> Stream:
        """A stream of the channel."""
        stream = await self.items.create_stream(
            name=protocol, protocol=protocol, configuration=configuration, **values
        )  # fmt: skip
        await self.link(stream, "channels", 1)
        return stream

    async def link(self, stream: Stream, to: str, to_id: int) -> None:
        await self.items.links.put([Link("streams", stream.id, to, to_id)])
        await asyncio.sleep(0.01)

    # -- messages

    async def receive(self, *messages: Message, ident: str = "1", channel_id: int = 1) -> None:
        """One packet of a tracker, into the channel's log."""
        stamp = self._stamp(len(messages))
        texts = [
            _text({"ident": ident, "channel.id": channel_id, "timestamp": (stamp + n) / 1e6,
                   "server.timestamp": (stamp + n) / 1e6, **message})
            for n, message in enumerate(messages)
        ]  # fmt: skip
        fields = {"ident": ident, "messages": b"\n".join(texts)}
        await self.redis.xadd(KEYS.channel_log(channel_id), fields, id=f"{stamp + len(messages) - 1}-0")
        self.streams.news.ring()

    async def register(self, *messages: Message, device_id: int = 1, ident: str = "1") -> None:
        """What the registrar made of it, into the device log."""
        stamp = self._stamp(len(messages))
        texts = [
            _text({"ident": ident, "device.id": device_id, "channel.id": 1, "timestamp": (stamp + n) / 1e6,
                   "server.timestamp": (stamp + n) / 1e6, **message})
            for n, message in enumerate(messages)
        ]  # fmt: skip
        fields = {"device": device_id, "ident": ident, "messages": b"\n".join(texts)}
        await self.redis.xadd(KEYS.device_log, fields, id=f"{stamp // 1000}-{self._written}")
        self.streams.news.ring()

    def _stamp(self, count: int) -> int:
        self._written += 1000 + count
        return int(self.time * 1e6) + self._written

    # -- what came of it

    def state(self, stream: Stream) -> StreamState:
        return self.streams.status(stream.id)

    def told(self, code: EventCode, stream: Stream) -> list[dict[str, Any]]:
        """The entries of this kind in the stream's log of events."""
        return [fields for kind, id, other, fields in self.events if (kind, id, other) == ("streams", stream.id, code)]

    async def until(self, is_done: Callable[[], Any], what: str, timeout: float = 15) -> None:
        """Wait for what no event tells of."""
        try:
            async with asyncio.timeout(timeout):
                while not is_done():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            states = {id: self.streams.status(id) for id in self.items.streams}
            raise AssertionError(f"not within {timeout:g} s: {what}; {states}; {self.events[-5:]}") from None


def _text(message: Message) -> bytes:
    return orjson.dumps(message)


def numbers(messages: Sequence[Message], ident: str | None = None, name: str = "n") -> list[int]:
    """What tests number their messages by, in order; of one ident, or of all."""
    return [message[name] for message in messages if ident is None or message["ident"] == ident]


def without_repetitions(values: Sequence[int]) -> list[int]:
    """Each at its first place: what was delivered again is allowed, and nothing else."""
    return list(dict.fromkeys(values))
