"""One gateway to a store: two that write to the same logs would fight for every id.

The embedded Redis has a lock on its directory. On an external one, the gateway holds a key that expires unless it is
renewed; a second gateway is refused, and one that follows a killed one waits until the key is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time

from twisted.logger import Logger

from gateway.errors import OperatorError, StoreError
from gateway.store.connection import Client, store_errors
from gateway.store.keys import ShardKeys

TIME = 10.0
"""Seconds after which the key of a killed gateway is gone."""
RENEW_EVERY = 3.0
WAIT = 15.0
"""Seconds that a starting gateway waits for it."""

RENEW = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('pexpire', KEYS[1], ARGV[2]) or 0"
RELEASE = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1]) or 0"


class Lease:
    """The right to write to a shard."""

    log = Logger()

    def __init__(self, redis: Client, keys: ShardKeys) -> None:
        self._redis = redis
        self._key = keys.lease
        self._id = secrets.token_hex(8)

    async def take(self) -> None:
        """Take it, or wait for one that is about to expire. Raises OperatorError, StoreError."""
        deadline = time.monotonic() + WAIT
        while not await self._set():
            if time.monotonic() > deadline:
                raise OperatorError(
                    "redis.url: another gateway uses this Redis; stop it, or give this one another database or server"
                )
            self.log.info("waiting for the lease of another gateway, which may have been killed")
            await asyncio.sleep(1)

    async def keep(self) -> None:
        """Renew it until cancelled. Raises OperatorError when another gateway has taken it meanwhile."""
        while True:
            await asyncio.sleep(RENEW_EVERY)
            with contextlib.suppress(StoreError):  # an absent Redis gives it to nobody else
                if not await self._renew() and not await self._set():
                    raise OperatorError("redis.url: another gateway took this Redis while it was out of reach")

    async def release(self) -> None:
        """Give it back, if Redis is there."""
        with contextlib.suppress(StoreError), store_errors():
            await self._redis.eval(RELEASE, 1, self._key, self._id)

    async def _set(self) -> bool:
        with store_errors():
            return bool(await self._redis.set(self._key, self._id, nx=True, px=int(TIME * 1000)))

    async def _renew(self) -> bool:
        with store_errors():
            return bool(await self._redis.eval(RENEW, 1, self._key, self._id, int(TIME * 1000)))
