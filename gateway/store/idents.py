"""The idents that each channel has seen: since when, who was let in, who was not, and what can be done about it.

It answers the question "why does my tracker not appear?". All is in memory, for what comes by UDP is noted for each
datagram, and written to Redis in the background: at once where a verdict is new, otherwise now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

import orjson
from attrs import asdict, define, field, fields
from twisted.logger import Logger

from gateway import metrics
from gateway.aio import heed_cancellation
from gateway.errors import StoreError
from gateway.store.connection import Client, store_errors
from gateway.store.keys import ShardKeys

ACCEPTED, REFUSED, UNDECIDED = "accepted", "refused", "none"
"""Verdicts."""

IDENTS_MOST = 10_000
"""Of a channel, of each of two kinds: those of a device, and those of none. A fleet of any size does not push out the
one tracker that somebody looks for, nor does junk. The longest unseen go."""
IN_ALL_MOST = 200_000
"""Of all channels together, some 600 bytes each; beyond it a channel that gets a new one forgets its longest unseen."""
FLUSH_EVERY = 2.0
FLUSH_ROUTINE_EVERY = 300.0
"""Seconds between writes of what is new, and of what has only been seen once more."""
BATCH = 100
IDENT_MOST = 64


@define(slots=True)
class Seen:
    """An ident on a channel. Times in seconds; ``count``: logins, or datagrams; ``reason``: for people."""

    ident: str
    first: float
    last: float
    verdict: str = UNDECIDED
    reason: str = ""
    peer: str = ""
    transport: str = ""
    count: int = 0
    is_registered: bool = False


@define
class _Channel:
    """What one channel has seen."""

    registered: OrderedDict[str, Seen] = field(factory=OrderedDict)
    others: OrderedDict[str, Seen] = field(factory=OrderedDict)
    new: dict[str, None] = field(factory=dict)
    routine: dict[str, None] = field(factory=dict)
    gone: dict[str, None] = field(factory=dict)

    @property
    def size(self) -> int:
        return len(self.registered) + len(self.others)

    def find(self, ident: str) -> Seen | None:
        return self.registered.get(ident) or self.others.get(ident)

    def put(self, seen: Seen, most: int) -> int:
        """Keep it as the latest of its kind; gives how many idents there are more now."""
        before = self.size
        kind, other = (self.registered, self.others) if seen.is_registered else (self.others, self.registered)
        other.pop(seen.ident, None)
        kind[seen.ident] = seen
        kind.move_to_end(seen.ident)
        self.gone.pop(seen.ident, None)
        while len(kind) > most:
            self._forget_oldest(kind)
        return self.size - before

    def forget_oldest(self) -> None:
        """There are too many in all."""
        self._forget_oldest(self.others if len(self.others) > 1 else self.registered)

    def _forget_oldest(self, kind: OrderedDict[str, Seen]) -> None:
        ident, _ = kind.popitem(last=False)
        self.new.pop(ident, None)
        self.routine.pop(ident, None)
        self.gone[ident] = None


class SeenIdents:
    """One for all channels."""

    log = Logger()

    def __init__(
        self, redis: Client, keys: ShardKeys, *, now: Callable[[], float] = time.time, most: int = IDENTS_MOST
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._now = now
        self._most = most
        self._size = 0
        self._channels: dict[int, _Channel] = {}
        self._forgotten: list[int] = []

    async def load(self, channel_ids: Iterable[int]) -> None:
        """Read what was known before the last stop. Raises StoreError."""
        for channel_id in channel_ids:
            with store_errors():
                texts = await self._redis.hvals(self._keys.idents(channel_id))
            channel = self._channels.setdefault(channel_id, _Channel())
            for seen in sorted(map(_decoded, texts), key=lambda seen: seen.last):
                self._size += channel.put(seen, self._most)
            await asyncio.sleep(0)

    def note(
        self,
        channel_id: int,
        ident: str,
        verdict: str,
        reason: str,
        *,
        peer: str,
        transport: str,
        is_registered: bool,
    ) -> None:
        """``ident`` said who it is. Never waits, never raises."""
        channel = self._channels.get(channel_id)
        if channel is None:
            channel = self._channels[channel_id] = _Channel()
        now = self._now()
        ident = ident[:IDENT_MOST]
        seen = channel.find(ident)
        if seen is None:
            seen = Seen(ident, now, now)
        is_news = seen.verdict != verdict or seen.reason != reason
        seen.last, seen.verdict, seen.reason, seen.peer, seen.transport = now, verdict, reason, peer, transport
        seen.count += 1
        seen.is_registered = is_registered
        self._size += channel.put(seen, self._most)
        if self._size > IN_ALL_MOST and channel.size > 1:
            channel.forget_oldest()
            self._size -= 1
        (channel.new if is_news else channel.routine)[ident] = None

    def of_channel(self, channel_id: int) -> list[Seen]:
        """All idents of a channel, the latest last."""
        channel = self._channels.get(channel_id)
        if channel is None:
            return []
        return sorted([*channel.registered.values(), *channel.others.values()], key=lambda seen: seen.last)

    def find(self, channel_id: int, ident: str) -> Seen | None:
        """What is known of this one."""
        channel = self._channels.get(channel_id)
        return channel.find(ident) if channel is not None else None

    def forget_channel(self, channel_id: int) -> None:
        """The channel is deleted."""
        channel = self._channels.pop(channel_id, None)
        if channel is not None:
            self._size -= channel.size
            self._forgotten.append(channel_id)

    # -- in the background

    async def run(self) -> None:
        """Write to Redis until cancelled."""
        routine_at = self._now() + FLUSH_ROUTINE_EVERY
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            heed_cancellation()
            is_routine = self._now() >= routine_at
            if is_routine:
                routine_at = self._now() + FLUSH_ROUTINE_EVERY
            try:
                await self.flush(is_routine)
            except StoreError as error:
                n = metrics.count("journal_failures", journal="idents")
                if n % 100 == 1:
                    self.log.warn("idents seen wait for Redis ({n}.): {error}", n=n, error=str(error))

    async def flush(self, with_routine: bool = True) -> None:
        """Write what is new, and what was seen once more. Raises StoreError; what was not written stays."""
        while self._forgotten:
            with store_errors():
                await self._redis.unlink(self._keys.idents(self._forgotten[0]))
            self._forgotten.pop(0)
        for channel_id, channel in list(self._channels.items()):
            if with_routine:
                channel.new.update(channel.routine)
                channel.routine.clear()
            for _ in range(0, len(channel.new) + len(channel.gone), BATCH):
                if self._channels.get(channel_id) is channel:
                    await self._write(channel_id, channel)

    async def _write(self, channel_id: int, channel: _Channel) -> None:
        """What changes while Redis is waited for is new again."""
        new, gone = list(channel.new)[:BATCH], list(channel.gone)[:BATCH]
        for ident in new:
            del channel.new[ident]
        for ident in gone:
            del channel.gone[ident]
        found = {ident: seen for ident in new if (seen := channel.find(ident)) is not None}
        key = self._keys.idents(channel_id)
        try:
            with store_errors():
                async with self._redis.pipeline(transaction=False) as pipe:
                    if found:
                        pipe.hset(key, mapping={ident: orjson.dumps(asdict(seen)) for ident, seen in found.items()})
                    if gone:
                        pipe.hdel(key, *gone)
                    await pipe.execute()
        except StoreError:
            channel.new.update(dict.fromkeys(new))
            channel.gone.update({ident: None for ident in gone if channel.find(ident) is None})
            raise


_FIELDS = {attribute.name for attribute in fields(Seen)}


def _decoded(text: bytes) -> Seen:
    """As it is stored; keys of a later version are left alone."""
    return Seen(**{name: value for name, value in orjson.loads(text).items() if name in _FIELDS})
