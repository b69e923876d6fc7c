"""A device's messages: one for each key (``timestamp``, or ``timestamp.key`` where given), ordered by it.

A sorted set holds the JSON texts under the key in microseconds: one command reads a range, and a message that merges
into an earlier one replaces it. What the registrar changes for a batch goes into one transaction together with the
device log and the registrar's cursor, so that it happens once, whoever is killed when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from redis.asyncio.client import Pipeline

from gateway.errors import StoreFull
from gateway.message import decode, message_key
from gateway.store.changes import MICROSECONDS, DeviceChange, DeviceState, score
from gateway.store.connection import Client, store_errors
from gateway.store.items import Device
from gateway.store.keys import ShardKeys
from gateway.store.telemetry import decode_values, encode_value

__all__ = ["MICROSECONDS", "DeviceChange", "DeviceMessages", "DeviceState", "score"]

ROTATE_CHUNK = 256
"""Messages looked at in one step when the oldest have to go."""
DAY = 86400.0


def _received(text: bytes, now: float) -> float:
    """When a stored message came; ``now`` where it does not say so."""
    return float(decode(text).get("server.timestamp", now))


class DeviceMessages:
    """Reads and writes the messages of a shard's devices."""

    def __init__(self, redis: Client, keys: ShardKeys) -> None:
        self._redis = redis
        self._keys = keys

    async def load_states(self, device_ids: Iterable[int]) -> dict[int, DeviceState]:
        """Telemetry and newest message of each device, in one round trip. Raises StoreError."""
        ids = list(device_ids)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for device_id in ids:
                    pipe.hgetall(self._keys.telemetry(device_id))
                    pipe.zrange(self._keys.messages(device_id), -1, -1, withscores=True)
                answers = await pipe.execute()
        return {
            device_id: DeviceState(decode_values(telemetry), int(newest[0][1]) if newest else 0)
            for device_id, telemetry, newest in zip(ids, answers[0::2], answers[1::2], strict=True)
        }

    async def find(self, wanted: Mapping[int, Iterable[int]]) -> dict[tuple[int, int], bytes]:
        """Of ``{device id: scores}``, the messages that are stored, by (device id, score). Raises StoreError."""
        pairs = [(device_id, at) for device_id, scores in wanted.items() for at in scores]
        if not pairs:
            return {}
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for device_id, at in pairs:
                    pipe.execute_command("ZRANGEBYSCORE", self._keys.messages(device_id), at, at)
                answers = await pipe.execute()
        return {pair: found[0] for pair, found in zip(pairs, answers, strict=True) if found}

    async def find_merged(self, pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], set[str]]:
        """Of (device id, score) pairs, the fingerprints of those that were merged. Raises StoreError."""
        wanted = list(pairs)
        if not wanted:
            return {}
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for device_id, at in wanted:
                    pipe.hget(self._keys.merged(device_id), str(at))
                answers = await pipe.execute()
        return {pair: set(text.decode().split()) for pair, text in zip(wanted, answers, strict=True) if text}

    async def commit(
        self,
        changes: Iterable[DeviceChange],
        cursors: Mapping[str, str],
        also: Callable[[Pipeline], None] = lambda pipe: None,
    ) -> None:
        """Store ``changes`` and move the registrar's cursors, and what ``also`` puts into the transaction: all of it or
        nothing. Raises StoreError."""
        with store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                for change in changes:
                    self._queue(pipe, change)
                also(pipe)
                if cursors:
                    pipe.hset(self._keys.cursors, mapping=dict(cursors))
                await pipe.execute()

    def _queue(self, pipe: Pipeline, change: DeviceChange) -> None:
        key = self._keys.messages(change.device_id)
        if change.replaced:
            pipe.zrem(key, *change.replaced.values())
        if change.stored:
            pipe.execute_command("ZADD", key, *(part for pair in change.stored.items() for part in pair))
            growth = sum(map(len, change.stored.values())) - sum(map(len, change.replaced.values()))
            pipe.hincrby(self._keys.sizes, str(change.device_id), growth)
        if change.merged:
            texts: dict[Any, Any] = {str(at): " ".join(sorted(prints)) for at, prints in change.merged.items()}
            pipe.hset(self._keys.merged(change.device_id), mapping=texts)
        if change.forgotten:
            pipe.hdel(self._keys.telemetry(change.device_id), *sorted(change.forgotten))
        if change.telemetry:
            fields: dict[Any, Any] = {name: encode_value(ts, value) for name, (ts, value) in change.telemetry.items()}
            pipe.hset(self._keys.telemetry(change.device_id), mapping=fields)
        if change.logged:
            entry = ("device", change.device_id, "ident", change.ident, "messages", b"\n".join(change.logged))
            pipe.execute_command("XADD", self._keys.device_log, "*", *entry)

    async def range(
        self, device_id: int, start: float = 0, end: float | None = None, *, count: int = 1000, reverse: bool = False
    ) -> list[bytes]:
        """Up to ``count`` messages with keys from ``start`` to ``end`` (seconds, inclusive). Raises StoreError."""
        low, high = score(start), "+inf" if end is None else score(end)
        key = self._keys.messages(device_id)
        with store_errors():
            if reverse:
                found: list[bytes] = await self._redis.zrevrangebyscore(key, high, low, start=0, num=count)
            else:
                found = await self._redis.zrangebyscore(key, low, high, start=0, num=count)
        return found

    async def overdue(self, devices: Sequence[Device], now: float) -> list[Device]:
        """Those of ``devices`` that :meth:`trim`, :meth:`trim_future` or :meth:`clear` has something to do for.

        Raises StoreError.
        """
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for device in devices:
                    key = self._keys.messages(device.id)
                    pipe.zcount(key, "-inf", f"({score(now - device.messages_ttl)}" if device.messages_ttl else "+inf")
                    pipe.zcount(key, score(now + DAY), "+inf")
                pipe.hmget(self._keys.sizes, [str(device.id) for device in devices])
                *counts, sizes = await pipe.execute()
        return [
            device
            for device, old, future, size in zip(devices, counts[0::2], counts[1::2], sizes, strict=True)
            if old or future or 0 < device.messages_rotate < int(size or 0)
        ]

    async def clear(self, device_id: int) -> None:
        """Remove all messages of a device. Raises StoreError."""
        with store_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.unlink(self._keys.messages(device_id), self._keys.merged(device_id))
                pipe.hdel(self._keys.sizes, str(device_id))
                await pipe.execute()

    async def trim(self, device_id: int, *, before: float, rotate: int) -> int:
        """Remove messages with keys before ``before`` (seconds), and the oldest beyond ``rotate`` bytes.

        0 for either: no such limit. Gives how many went. Raises StoreError.
        """
        removed = await self._remove_until(device_id, score(before)) if before > 0 else 0
        if rotate > 0:
            removed += await self._rotate(device_id, rotate)
        return removed

    async def trim_future(self, device_id: int, *, now: float, ttl: float) -> int:
        """Remove messages whose timestamp lies ahead of ``now`` by more than a day, ``ttl`` seconds after they came.

        A clock that is ahead by years would keep them for as long. Raises StoreError.
        """
        key = self._keys.messages(device_id)
        with store_errors():
            found = await self._redis.zrangebyscore(key, score(now + DAY), "+inf", start=0, num=ROTATE_CHUNK)
        return await self._remove(device_id, [text for text in found if _received(text, now) < now - ttl])

    async def _remove_until(self, device_id: int, end: int) -> int:
        removed = 0
        while True:
            with store_errors():
                old = await self._redis.zrangebyscore(
                    self._keys.messages(device_id), "-inf", f"({end}", start=0, num=ROTATE_CHUNK
                )
            removed += await self._remove(device_id, old)
            if len(old) < ROTATE_CHUNK:
                return removed

    async def _rotate(self, device_id: int, rotate: int) -> int:
        removed = 0
        while True:
            with store_errors():
                excess = int(await self._redis.hget(self._keys.sizes, str(device_id)) or 0) - rotate
                oldest = (
                    await self._redis.zrange(self._keys.messages(device_id), 0, ROTATE_CHUNK - 1) if excess > 0 else []
                )
            going = []
            for text in oldest:
                if excess <= 0:
                    break
                going.append(text)
                excess -= len(text)
            if not going:
                return removed
            removed += await self._remove(device_id, going)

    async def _remove(self, device_id: int, texts: list[bytes]) -> int:
        """Remove them and their bytes from the count; a Redis that is full does only the first, which helps it."""
        if not texts:
            return 0
        key = self._keys.messages(device_id)
        scores = [str(score(message_key(decode(text)))) for text in texts]
        try:
            with store_errors():
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.zrem(key, *texts)
                    pipe.hdel(self._keys.merged(device_id), *scores)
                    pipe.hincrby(self._keys.sizes, str(device_id), -sum(map(len, texts)))
                    await pipe.execute()
        except StoreFull:
            with store_errors():
                await self._redis.zrem(key, *texts)
        return len(texts)
