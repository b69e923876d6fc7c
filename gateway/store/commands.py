"""Commands that wait for devices, and what became of them.

The queue of a device is a hash with a bound on its members; whoever holds the device's connection takes from it. A
command is sent at least once, and may be sent twice: each attempt is counted before it is sent, so that one that kills
the gateway, or whose answer gets lost, is not sent for ever. An attempt without an outcome, as after a crash, blocks
the command for :data:`ANSWER_TIME`. It leaves the queue and gets its result in one step, so there is one result.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing

import msgspec
from attrs import define, field

from gateway.store.command import (
    TEXT_MOST,
    CommandRefused,
    CommandResult,
    NewCommand,
    QueuedCommand,
    decoded,
    encoded,
    result_of,
)
from gateway.store.connection import Client, store_errors
from gateway.store.history import Chunks
from gateway.store.journals import JournalEntries
from gateway.store.keys import ShardKeys
from gateway.store.log import ChannelClock
from gateway.store.ordered import Source, merged
from gateway.store.sources import MICROSECONDS, Span

QUEUE_MOST = 100
"""Commands that wait for a device."""
RESULTS_MOST = 500
"""Of a device; the oldest go first."""
RESULTS_TTL = 30 * 86400
"""Seconds that a result is kept; as long as a command can wait."""
ANSWER_TIME = 60.0
"""Seconds after an attempt in which nobody else makes one: longer than any answer is waited for."""
EXPIRED_AT_ONCE = 100
NO_ANSWER = "no answer after {attempts} attempts"
EXPIRED = "expired before it could be delivered"

ADD = """
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 'full' end
if redis.call('HSETNX', KEYS[1], ARGV[2], ARGV[3]) == 0 then return 'taken' end
redis.call('ZADD', KEYS[2], ARGV[5], ARGV[4])
redis.call('SADD', KEYS[4], ARGV[6])
return 'added'
"""
CHANGE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
REMOVE = """
redis.call('ZREM', KEYS[2], ARGV[2])
local removed = redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('HLEN', KEYS[1]) == 0 then redis.call('SREM', KEYS[4], ARGV[3]) end
return removed
"""
# A result's id is its time, and the clock of another gateway may be ahead. A real-time command was in no queue.
FINISH = """
if ARGV[7] == '1' then
    redis.call('ZREM', KEYS[2], ARGV[2])
    if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
    if redis.call('HLEN', KEYS[1]) == 0 then redis.call('SREM', KEYS[4], ARGV[8]) end
end
local at = tonumber(ARGV[4])
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
if last then at = math.max(at, tonumber(string.match(last[1], '^%d+')) + 1) end
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[5], string.format('%.0f-0', at), 'result', ARGV[3])
redis.call('XTRIM', KEYS[3], 'MINID', string.format('%.0f-0', at - ARGV[6] * 1000000))
redis.call('EXPIRE', KEYS[3], ARGV[6])
return 1
"""

IsReady = Callable[[QueuedCommand], Awaitable[bool]]


async def always(command: QueuedCommand) -> bool:
    """For commands without a condition."""
    return True


@define(eq=False)
class CommandQueue:
    """The queues and the results of all devices of a shard. ``on_give_up`` is told what had too many attempts."""

    _redis: Client
    _keys: ShardKeys
    _now: Callable[[], float] = time.time
    _clock: ChannelClock = field(init=False)
    on_give_up: Callable[[QueuedCommand, str], None] = field(init=False, default=lambda command, error: None)

    def __attrs_post_init__(self) -> None:
        self._clock = ChannelClock(self._now)

    def new_id(self) -> int:
        """The id of a command that comes just now: microseconds, unique in this process."""
        return self._clock.reserve(1)

    # -- the queue

    async def add(self, device_id: int, ident: str, new: NewCommand) -> QueuedCommand:
        """Store a command. Raises CommandRefused where the queue is full or the command too large; StoreError."""
        expires = new.expires_at(self._now())
        while True:
            command = self._queued(device_id, ident, new, expires)
            text = encoded(command)
            if len(text) > TEXT_MOST:
                raise CommandRefused(f"the command takes {len(text)} bytes, {TEXT_MOST} is the most")
            arguments = (QUEUE_MOST, command.id, text, _member(device_id, command.id), expires, device_id)
            answer = await self._eval(ADD, device_id, *arguments)
            if answer == b"full":
                raise CommandRefused(f"{QUEUE_MOST} commands wait for device {device_id} already, which is the most")
            if answer == b"added":
                return command

    def _queued(self, device_id: int, ident: str, new: NewCommand, expires: float) -> QueuedCommand:
        id = self.new_id()
        return QueuedCommand(
            id=id,
            device_id=device_id,
            ident=ident,
            name=new.name,
            properties=new.properties,
            expires=expires,
            priority=new.priority,
            max_attempts=new.max_attempts,
            condition=new.condition,
            meta=new.meta,
            address=new.address,
            timestamp=id / MICROSECONDS,
        )

    async def waiting(self, device_id: int) -> list[QueuedCommand]:
        """The commands that wait for a device, in the order in which they are sent. Raises StoreError."""
        return [command for command, _ in await self._stored(device_id)]

    async def _stored(self, device_id: int) -> list[tuple[QueuedCommand, bytes]]:
        """The same with the text of each."""
        with store_errors():
            texts = await self._redis.hvals(self._keys.commands(device_id))
        now = self._now()
        stored = [(command, text) for text in texts if (command := decoded(text)).expires > now]
        return sorted(stored, key=lambda one: one[0].order)

    async def remove(self, device_id: int, ids: Iterable[int] | None = None) -> list[QueuedCommand]:
        """Take commands out of the queue; None: all. Gives those that were there. Raises StoreError."""
        wanted = None if ids is None else set(ids)
        there = await self.waiting(device_id)
        chosen = [command for command in there if wanted is None or command.id in wanted]
        return [command for command in chosen if await self._remove(device_id, command.id)]

    async def _remove(self, device_id: int, id: int) -> object:
        return await self._eval(REMOVE, device_id, id, _member(device_id, id), device_id)

    async def devices(self) -> set[int]:
        """The devices for which commands wait. Raises StoreError."""
        with store_errors():
            return {int(member) for member in await self._redis.smembers(self._keys.commanded)}

    # -- attempts

    async def take(self, device_id: int, is_ready: IsReady = always) -> QueuedCommand | None:
        """The next command to send, its attempt counted; None: there is none just now. Raises StoreError.

        Not those whose answer somebody waits for, and not those that are not ready. What was sent as often as it may
        be gets its result.
        """
        for command, text in await self._stored(device_id):
            if command.attempted + ANSWER_TIME > self._now():
                continue
            if command.is_exhausted:
                await self.give_up(command)
            elif await is_ready(command):
                now = self._now()
                taken = msgspec.structs.replace(command, attempts=command.attempts + 1, attempted=now)
                if await self._change(text, taken):
                    return taken
        return None

    async def release(self, taken: QueuedCommand) -> bool:
        """Nobody waits for the answer to this attempt any longer, it may be made again. Raises StoreError."""
        for command, text in await self._stored(taken.device_id):
            if (command.id, command.attempts, bool(command.attempted)) == (taken.id, taken.attempts, True):
                return await self._change(text, msgspec.structs.replace(command, attempted=0.0))
        return False

    async def _change(self, old: bytes, new: QueuedCommand) -> bool:
        """Unless somebody else has changed it."""
        return bool(await self._eval(CHANGE, new.device_id, new.id, old, encoded(new)))

    # -- outcomes

    async def finish(
        self, command: QueuedCommand, *, response: object = None, error: str | None = None
    ) -> CommandResult | None:
        """It is over: out of the queue, and into the results. None: it was not there any longer. Raises StoreError."""
        result = result_of(command, response=response, error=error)
        return result if await self._finish(result, is_queued=True) else None

    async def give_up(self, command: QueuedCommand) -> None:
        """It was sent as often as it may be. Raises StoreError."""
        error = NO_ANSWER.format(attempts=command.attempts)
        if await self.finish(command, error=error):
            self.on_give_up(command, error)

    async def record(self, result: CommandResult) -> None:
        """Keep the result of a command that was in no queue. Raises StoreError."""
        await self._finish(result, is_queued=False)

    async def _finish(self, result: CommandResult, *, is_queued: bool) -> bool:
        at = self._clock.reserve(1)
        device_id, member = result.device_id, _member(result.device_id, result.id)
        text = msgspec.json.encode(result)
        arguments = (result.id, member, text, at, RESULTS_MOST, RESULTS_TTL, int(is_queued), device_id)
        return bool(await self._eval(FINISH, device_id, *arguments))

    async def expire(self) -> list[QueuedCommand]:
        """Finish what has waited for too long, a bounded number at a time; gives the commands. Raises StoreError."""
        with store_errors():
            members = await self._redis.zrangebyscore(
                self._keys.commands_expiring, "-inf", self._now(), start=0, num=EXPIRED_AT_ONCE
            )
        expired = []
        for device_id, command_id in (map(int, member.split(b":")) for member in members):
            with store_errors():
                text = await self._redis.hget(self._keys.commands(device_id), command_id)
            if text is None:
                await self._remove(device_id, command_id)
            elif await self.finish(command := decoded(text), error=EXPIRED):
                expired.append(command)
        return expired

    # -- results

    async def results(self, device_ids: Iterable[int], span: Span) -> Chunks:
        """The results of these devices in one order, as JSON texts. Raises StoreError."""
        sources: Sequence[Source] = [
            JournalEntries.of(self._keys.commands_result(device_id), span, _result_text) for device_id in device_ids
        ]
        async with aclosing(merged(self._redis, sources)) as pages:
            async for page in pages:
                yield page.texts

    async def result(self, device_id: int, command_id: int) -> CommandResult | None:
        """What became of one command; None: nothing yet, or it is forgotten. Raises StoreError."""
        async with aclosing(self.results([device_id], Span(is_reverse=True))) as chunks:
            async for texts in chunks:
                for text in texts:
                    result = msgspec.json.decode(text, type=CommandResult)
                    if result.id == command_id:
                        return result
        return None

    async def _eval(self, script: str, device_id: int, *arguments: object) -> object:
        keys = self._keys
        names = (keys.commands(device_id), keys.commands_expiring, keys.commands_result(device_id), keys.commanded)
        with store_errors():
            return await self._redis.eval(script, len(names), *names, *arguments)


def _member(device_id: int, command_id: int) -> str:
    return f"{device_id}:{command_id}"


def _result_text(at: int, fields: dict[bytes, bytes]) -> list[bytes]:
    result = msgspec.json.decode(fields[b"result"], type=CommandResult)
    return [msgspec.json.encode(msgspec.structs.replace(result, timestamp=at / MICROSECONDS))]
