"""How Redis and the readers of the logs are doing: what is asked at each scrape of ``/metrics`` and by ``/health``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from gateway.errors import StoreError
from gateway.store.connection import Client, store_errors
from gateway.store.keys import ShardKeys
from gateway.store.messages import MICROSECONDS
from gateway.store.trim import MILLISECONDS

KEPT = 1.0
"""Seconds that an answer is given again: however many scrape, Redis is asked once a second at most."""
PATIENCE = 2.0
"""Seconds that Redis may take; a Prometheus server waits for ten by default, a load balancer less."""
COUNTED = 100
"""Undelivered entries of a log that are counted for each reader; more are estimated."""
COUNTED_IN_ALL = 500
"""Redis copies an entry to count it. Some 2 kB each: this is a megabyte in one reading, whatever number of logs."""

LOOK = """
local length = redis.call('XLEN', KEYS[1])
if length == 0 then return {0} end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1]
local answer = {length, first, last}
for i = 2, #ARGV do
  local cursor = redis.call('HGET', KEYS[2], ARGV[i] .. '|' .. KEYS[1]) or '0'
  local behind = redis.call('XRANGE', KEYS[1], '(' .. cursor, '+', 'COUNT', ARGV[1])
  answer[#answer + 1] = {#behind, behind[1] and behind[1][1] or ''}
end
return answer
"""
"""Keys: a log, the cursors. Arguments: how many entries to count, the names of the readers."""


@frozen
class ReaderLag:
    """``entries`` that the reader has not delivered, the first of which is ``seconds`` old."""

    reader: str
    entries: int
    seconds: float


@frozen
class LogState:
    """One log. ``log``: channels or devices; ``channel``: the channel's name, empty for the device log."""

    log: str
    channel: str
    length: int
    lags: tuple[ReaderLag, ...]


@frozen
class StoreState:
    """``reason`` says why Redis is not up; then the rest is empty. Memory in bytes; limit 0: none."""

    is_up: bool
    reason: str = ""
    memory: int = 0
    memory_limit: int = 0
    logs: tuple[LogState, ...] = ()


@frozen
class WatchedLog:
    """A log's stream, and the readers that must deliver it. ``ticks``: those of its ids in a second."""

    stream: str
    log: str
    channel: str
    readers: tuple[str, ...]
    ticks: int


class StoreWatch:
    """``channels`` gives the names of the channels that there are, by id; readers are named as for the trimmer."""

    def __init__(
        self,
        redis: Client,
        keys: ShardKeys,
        channels: Callable[[], Mapping[int, str]],
        *,
        channel_readers: Callable[[int], Sequence[str]],
        device_readers: Callable[[], Sequence[str]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._channels = channels
        self._channel_readers = channel_readers
        self._device_readers = device_readers
        self._now = now
        self._lock = asyncio.Lock()
        self._state = StoreState(False, "Redis was not asked yet")
        self._read_at = float("-inf")

    async def read(self) -> StoreState:
        """What holds now, or did a second ago. Never raises: not to be up is a state, too."""
        async with self._lock:
            if time.monotonic() - self._read_at > KEPT:
                self._state = await self._ask()
                self._read_at = time.monotonic()
            return self._state

    async def _ask(self) -> StoreState:
        logs = self._logs()
        counted = max(1, min(COUNTED, COUNTED_IN_ALL // sum(len(log.readers) for log in logs)))
        try:
            async with asyncio.timeout(PATIENCE):
                with store_errors():
                    *answers, memory = await self._look(logs, counted)
        except TimeoutError:
            return StoreState(False, f"Redis did not answer within {PATIENCE:.0f} s")
        except StoreError as error:
            return StoreState(False, f"Redis does not answer ({error})")
        now = self._now()
        return StoreState(
            True,
            memory=int(memory["used_memory"]),
            memory_limit=int(memory.get("maxmemory", 0)),
            logs=tuple(_state_of(log, answer, counted, now) for log, answer in zip(logs, answers, strict=True)),
        )

    async def _look(self, logs: Sequence[WatchedLog], counted: int) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for log in logs:
                pipe.eval(LOOK, 2, log.stream, self._keys.cursors, counted, *log.readers)
            pipe.info("memory")
            answers: list[Any] = await pipe.execute()
        return answers

    def _logs(self) -> list[WatchedLog]:
        logs = [
            WatchedLog(
                self._keys.channel_log(channel_id),
                "channels",
                name,
                tuple(self._channel_readers(channel_id)),
                MICROSECONDS,
            )
            for channel_id, name in self._channels().items()
        ]
        return [*logs, WatchedLog(self._keys.device_log, "devices", "", tuple(self._device_readers()), MILLISECONDS)]


def _state_of(log: WatchedLog, answer: list[Any], counted: int, now: float) -> LogState:
    """``counted``: so many undelivered entries were counted at most."""
    length = int(answer[0])
    if not length:
        return LogState(log.log, log.channel, 0, tuple(ReaderLag(name, 0, 0.0) for name in log.readers))
    first, last = _moment(answer[1]), _moment(answer[2])
    lags = []
    for name, (entries, oldest) in zip(log.readers, answer[3:], strict=True):
        if not entries:
            lags.append(ReaderLag(name, 0, 0.0))
            continue
        at = _moment(oldest)
        if entries >= counted:
            # Redis cannot tell an entry's place in its stream: take the part of the log's time for that of its entries
            entries = max(entries, round(length * (last - at) / max(1, last - first)))
        lags.append(ReaderLag(name, entries, max(0.0, now - at / log.ticks)))
    return LogState(log.log, log.channel, length, tuple(lags))


def _moment(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])
