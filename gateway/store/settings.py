"""The settings of devices as the gateway knows them: what a device has (``current``), what it shall have (``pending``).

A device's shadow in flespi's sense: a client writes ``pending`` at any time, and when the device is connected it is
applied. What the device says then is ``current``. An attempt is counted before it is made. A change that comes while
the one before is under way has another ``version``, and stays pending.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
from attrs import define, field
from msgspec import Struct
from twisted.logger import Logger

from gateway.errors import StoreUnavailable
from gateway.store.connection import Client, store_errors
from gateway.store.keys import ShardKeys

ATTEMPTS_MOST = 5
"""How often a setting is sent, or asked for, before it is given up."""
ANSWER_TIME = 180.0
"""Seconds after an attempt in which nobody else makes one; a setting may take several commands."""
RACES_MOST = 50
"""How often a change is tried when others change the same setting at the same time."""
NO_ANSWER = f"no answer after {ATTEMPTS_MOST} attempts"

CHANGE = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call(ARGV[4], KEYS[2], ARGV[5])
return 1
"""

Status = Literal["unknown", "ok", "pending", "reading", "rejected", "unreadable"]


class Shadow(Struct, frozen=True, kw_only=True):
    """One setting of one device. Times are UNIX seconds, 0: never."""

    name: str
    current: dict[str, Any] | None = None
    pending: dict[str, Any] | None = None
    status: Status = "unknown"
    error: str | None = None
    """Why it was rejected, or cannot be read."""
    updated: float = 0
    """When ``current`` came from the device."""
    requested: float = 0
    """When ``pending`` came, or the wish to read it."""
    version: int = 0
    attempts: int = 0
    attempted: float = 0

    @property
    def is_wanted(self) -> bool:
        """Whether the device is to be told, or asked."""
        return self.status in ("pending", "reading")

    @property
    def settled(self) -> Status:
        """What it is when nothing is pending."""
        return "unknown" if self.current is None else "ok"


SHOWN = ("name", "current", "pending", "status", "error", "updated", "requested", "attempts")
"""What clients see of a setting, besides whose it is."""


def view_of_setting(device_id: int, shadow: Shadow) -> dict[str, Any]:
    """A setting as the API shows it."""
    return {"device_id": device_id, **{name: getattr(shadow, name) for name in SHOWN}}


Change = Callable[[Shadow], Shadow | None]


@define(eq=False)
class DeviceSettings:
    """The settings of all devices of a shard. Each of ``on_change`` is called with (device id, shadow) at a change."""

    log = Logger()

    _redis: Client
    _keys: ShardKeys
    _now: Callable[[], float] = time.time
    on_change: list[Callable[[int, Shadow], None]] = field(init=False, factory=list)

    async def all(self, device_id: int) -> dict[str, Shadow]:
        """What is known of a device's settings, by name. Raises StoreError."""
        return _shadows(await self._texts(device_id))

    async def _texts(self, device_id: int) -> dict[bytes, bytes]:
        with store_errors():
            texts: dict[bytes, bytes] = await self._redis.hgetall(self._keys.settings(device_id))
        return texts

    async def names(self, device_id: int) -> set[str]:
        """The settings of which anything is known. Raises StoreError."""
        with store_errors():
            return {name.decode() for name in await self._redis.hkeys(self._keys.settings(device_id))}

    async def get_many(self, device_ids: Iterable[int]) -> dict[int, dict[str, Shadow]]:
        """The same of several devices, those without any left out. Raises StoreError."""
        ids = list(device_ids)
        with store_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for device_id in ids:
                    pipe.hgetall(self._keys.settings(device_id))
                found = await pipe.execute()
        return {device_id: _shadows(texts) for device_id, texts in zip(ids, found, strict=True) if texts}

    async def devices(self) -> set[int]:
        """The devices that have settings to be applied or read. Raises StoreError."""
        with store_errors():
            members = await self._redis.smembers(self._keys.settings_wanted)
        return {int(member.partition(b":")[0]) for member in members}

    async def forget(self, device_id: int) -> None:
        """The device is deleted: nothing is wanted of it any longer. Raises StoreError."""
        with store_errors():
            members = await self._redis.smembers(self._keys.settings_wanted)
            gone = [member for member in members if member.startswith(b"%d:" % device_id)]
            if gone:
                await self._redis.srem(self._keys.settings_wanted, *gone)

    # -- what clients want

    async def request(self, device_id: int, name: str, values: dict[str, Any]) -> Shadow:
        """The device shall have these values; replaces what was pending. Raises StoreError."""

        def change(shadow: Shadow) -> Shadow:
            return _wanted(shadow, "pending", self._now(), pending=values)

        return await self._changed(device_id, name, change)

    async def reread(self, device_id: int, name: str) -> Shadow:
        """Forget what the device has, and ask it; what is pending stays so. Raises StoreError."""

        def change(shadow: Shadow) -> Shadow:
            status: Status = "reading" if shadow.pending is None else "pending"
            return _wanted(shadow, status, self._now(), current=None, updated=0)

        return await self._changed(device_id, name, change)

    async def cancel(self, device_id: int, name: str) -> Shadow | None:
        """Nothing shall be changed; None: nothing was pending. Raises StoreError."""

        def change(shadow: Shadow) -> Shadow | None:
            if shadow.pending is None:
                return None
            return _replaced(shadow, pending=None, status=shadow.settled, version=shadow.version + 1)

        return await self._change(device_id, name, change)

    # -- what comes of it

    async def take(self, device_id: int) -> Shadow | None:
        """The next setting to apply or to read, its attempt counted; None: none just now. Raises StoreError.

        What was tried as often as it may be is rejected, or unreadable.
        """
        for name, text in sorted((await self._texts(device_id)).items()):
            shadow = msgspec.json.decode(text, type=Shadow)
            if not shadow.is_wanted or shadow.attempted + ANSWER_TIME > self._now():
                continue
            if shadow.attempts >= ATTEMPTS_MOST:
                await self.failed(device_id, shadow, NO_ANSWER)
                continue
            taken = _replaced(shadow, attempts=shadow.attempts + 1, attempted=self._now())
            if await self._store(device_id, name.decode(), text, taken):
                return taken
        return None

    async def release(self, device_id: int, taken: Shadow) -> None:
        """Nobody waits for an answer to this attempt any longer. Raises StoreError."""
        await self._change(
            device_id, taken.name, lambda shadow: _same(shadow, taken) and _replaced(shadow, attempted=0)
        )

    async def told(self, device_id: int, taken: Shadow, values: dict[str, Any]) -> Shadow:
        """The device said what it has, and took what was pending in ``taken``. Raises StoreError."""

        def change(shadow: Shadow) -> Shadow:
            current = {**(shadow.current or {}), **values}
            known = _replaced(shadow, current=current, updated=self._now(), attempted=0)
            if not _same(shadow, taken):
                return known
            return _replaced(known, pending=None, status="ok", error=None, attempts=0)

        return await self._changed(device_id, taken.name, change)

    async def failed(self, device_id: int, taken: Shadow, reason: str) -> Shadow | None:
        """The device did not take it, or did not tell; None: something else is wanted by now. Raises StoreError."""

        def change(shadow: Shadow) -> Shadow | None:
            if not _same(shadow, taken) or not shadow.is_wanted:
                return None
            status: Status = "rejected" if shadow.status == "pending" else "unreadable"
            return _replaced(shadow, pending=None, status=status, error=reason, attempts=0, attempted=0)

        return await self._change(device_id, taken.name, change)

    # -- one change at a time

    async def _changed(self, device_id: int, name: str, change: Callable[[Shadow], Shadow]) -> Shadow:
        changed = await self._change(device_id, name, change)
        assert changed is not None
        return changed

    async def _change(self, device_id: int, name: str, change: Change | Callable[[Shadow], Any]) -> Shadow | None:
        for _ in range(RACES_MOST):
            with store_errors():
                text = await self._redis.hget(self._keys.settings(device_id), name)
            shadow = msgspec.json.decode(text, type=Shadow) if text else Shadow(name=name)
            new = change(shadow)
            if not new:
                return None
            if await self._store(device_id, name, text or b"", new):
                return new
            await asyncio.sleep(0)
        raise StoreUnavailable(f"setting {name} of device {device_id} is changed by too many at the same time")

    async def _store(self, device_id: int, name: str, old: bytes, new: Shadow) -> bool:
        """Unless somebody else has changed it."""
        with store_errors():
            text, index = msgspec.json.encode(new), ("SADD" if new.is_wanted else "SREM", f"{device_id}:{name}")
            keys = (self._keys.settings(device_id), self._keys.settings_wanted)
            done = await self._redis.eval(CHANGE, len(keys), *keys, name, old, text, *index)
        if done:
            self._tell(device_id, new)
        return bool(done)

    def _tell(self, device_id: int, shadow: Shadow) -> None:
        for told in self.on_change:
            try:
                told(device_id, shadow)
            except Exception:
                self.log.failure("somebody who was told of a setting of device {id}", id=device_id)


def _shadows(texts: dict[bytes, bytes]) -> dict[str, Shadow]:
    return {name.decode(): msgspec.json.decode(texts[name], type=Shadow) for name in sorted(texts)}


def _replaced(shadow: Shadow, **values: Any) -> Shadow:
    return msgspec.structs.replace(shadow, **values)


def _wanted(shadow: Shadow, status: Status, now: float, **values: Any) -> Shadow:
    version = shadow.version + 1
    fresh = {"status": status, "requested": now, "error": None, "attempts": 0, "attempted": 0, "version": version}
    return _replaced(shadow, **fresh, **values)


def _same(shadow: Shadow, taken: Shadow) -> bool:
    """Whether nothing else was asked for since it was taken."""
    return shadow.version == taken.version
