"""The store as a stage: Redis, the items, what writes to the log, and the watches that pause the trackers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from twisted.logger import Logger

from gateway.errors import ConfigError, StoreError
from gateway.observation import Observation
from gateway.provision import apply_channels, apply_devices
from gateway.settings import Settings
from gateway.stages import Background
from gateway.store.commands import CommandQueue
from gateway.store.connection import connect, store_errors, without_password
from gateway.store.embedded import EmbeddedRedis
from gateway.store.failures import Failures
from gateway.store.gate import Gate
from gateway.store.history import ChannelHistory, DeviceHistory
from gateway.store.items import Items
from gateway.store.keys import ShardKeys
from gateway.store.lease import Lease
from gateway.store.log import LogWriter
from gateway.store.messages import DeviceMessages
from gateway.store.polls import Polls
from gateway.store.posted import Posted
from gateway.store.reader import LogReader
from gateway.store.settings import DeviceSettings
from gateway.store.telemetry import Telemetry
from gateway.store.tokens import Tokens

MiB = 1024 * 1024
LOOK_AT_DISK_EVERY = 1.0
SETTLE_TIME = 10.0
"""Seconds that a stop waits for changes of items under way: twice what one call of Redis may take."""
LOOK_AT_MEMORY_EVERY = 1.0
SAVE_TIME = 1.0
"""Seconds that a stop waits for what can be lost: when tokens were last used."""
MEMORY_FULL, MEMORY_FREE = 0.9, 0.85
"""Parts of Redis' maxmemory: trackers are paused at the first, so that the readers have room for what they still have
to write (without it nothing could ever be trimmed), and go on below the second."""
DURABLE = {
    "appendonly": ("yes",),
    "appendfsync": ("always", "everysec"),
    "maxmemory-policy": ("noeviction",),
}
"""What an external Redis must be set to, if it can be asked."""
REGISTRATION_GROWTH = 3
"""Bytes that registration makes of one byte in the channel's log: device messages, device log, telemetry."""


class StoreStage:
    """Redis, the items, and what writes to the log."""

    name = "store"
    log = Logger()

    def __init__(self, settings: Settings, background: Background, master_key: str = "") -> None:
        self._settings = settings
        self._background = background
        self.data_dir = Path(settings.gateway.data_dir)
        self._embedded = _embedded_redis(settings, self.data_dir) if settings.redis.url == "embedded" else None
        self.redis = connect(self._embedded.url if self._embedded is not None else settings.redis.url)
        self.keys = ShardKeys()
        self.gate = Gate()
        self.items = Items(self.redis, settings.limits.device_messages_ttl)
        self.messages = DeviceMessages(self.redis, self.keys)
        self.telemetry = Telemetry(self.redis, self.keys)
        self.history = ChannelHistory(self.redis, self.keys, self.items)
        self.device_history = DeviceHistory(self.redis, self.keys, self.items, turn=self.history.turn)
        self.polls = Polls(self.redis, self.keys, self.history)
        self.posted = Posted(self.redis, self.keys)
        self.commands = CommandQueue(self.redis, self.keys)
        self.device_settings = DeviceSettings(self.redis, self.keys)
        self.tokens = Tokens(self.redis, master_key)
        self.failures = Failures()
        self.observation = Observation(self.redis, self.keys, self.items)
        self._lease = Lease(self.redis, self.keys)
        self.writer = LogWriter(self.redis, self.keys, self.gate)

    @property
    def place(self) -> str:
        """For people: which Redis this is."""
        if self._embedded is not None:
            return f"embedded, in {self._embedded.data_dir}"
        return without_password(self._settings.redis.url)

    def channel_logs(self) -> dict[str, int]:
        """The logs of all channels, with their owners; also of deleted ones, until their readers are done."""
        return {self.keys.channel_log(channel_id): channel_id for channel_id in self.items.logged_channels()}

    def registered_logs(self) -> dict[str, int]:
        """What the registrar reads: the channels' logs, and what was posted or comes back from plugins; entries of
        these two say for which device."""
        return {**self.channel_logs(), self.keys.posted: 0, self.keys.processed: 0}

    def device_log(self) -> dict[str, int]:
        """The log of all devices; its entries say whose they are."""
        return {self.keys.device_log: 0}

    async def start(self) -> None:
        if self._embedded is not None:
            await self._embedded.start()
        try:
            await self.items.load()
            await self.tokens.load()
        except StoreError as error:
            raise ConfigError(f"redis.url: {self.place} cannot be used: {error}") from error
        if self._embedded is None:
            await self._check_durability()
            await self._lease.take()
            self._background.run("the lease of Redis", self._lease.keep())
        await self.observation.start(self._background)
        await apply_channels(self.items, self._settings.channels)
        await apply_devices(self.items, self._settings)
        self._background.run("the log's writer", self.writer.run())
        self._background.run("the tokens' times", self.tokens.run())
        self._background.run("the watch on Redis' memory", self._watch_memory())
        if self._embedded is not None:
            self._background.run("the watch on the disk", self._watch_disk())

    async def _check_durability(self) -> None:
        """A Redis that forgets breaks the first promise: say so, where it can be asked (hosted ones refuse)."""
        for key, wanted in DURABLE.items():
            with contextlib.suppress(StoreError), store_errors():
                value = (await self.redis.config_get(key)).get(key.encode())
                if value is not None and value.decode() not in wanted:
                    self.log.warn(
                        "Redis at {place}: {key} is {value!r}, not {wanted}: what was acknowledged can be lost",
                        place=self.place, key=key, value=value.decode(), wanted=" or ".join(wanted),
                    )  # fmt: skip

    async def stop(self) -> None:
        await self.items.settle(SETTLE_TIME)
        await self.observation.flush()
        await self._background.cancel()
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(SAVE_TIME):
                await self.tokens.save()
        if self._embedded is None:
            await self._lease.release()
        await self.redis.aclose()
        if self._embedded is not None:
            await self._embedded.stop()

    async def _watch_memory(self) -> None:
        while True:
            with contextlib.suppress(StoreError):  # the writer closes the gate when Redis is away
                with store_errors():
                    memory = await self.redis.info("memory")
                self._judge_memory(int(memory["used_memory"]), int(memory.get("maxmemory", 0)))
            await asyncio.sleep(LOOK_AT_MEMORY_EVERY)

    def _judge_memory(self, used: int, most: int) -> None:
        if self._settings.gateway.readers:
            used += REGISTRATION_GROWTH * self.writer.unregistered_bytes
        if most and used >= MEMORY_FULL * most:
            self.gate.close("maxmemory", f"Redis needs {used // MiB} MiB of its maxmemory of {most // MiB} MiB")
        elif used < MEMORY_FREE * most or not most:
            self.gate.open("maxmemory")

    async def _watch_disk(self) -> None:
        least = self._settings.limits.disk_free_mb * MiB
        while True:
            free = shutil.disk_usage(self.data_dir).free
            if free < least:
                self.gate.close(
                    "disk", f"{self.data_dir}: {free // MiB} MiB free, limits.disk_free_mb is {least // MiB}"
                )
            else:
                self.gate.open("disk")
            await asyncio.sleep(LOOK_AT_DISK_EVERY)


def store_reader(store: StoreStage, name: str, devices: bool = False) -> LogReader:
    """A reader of the channel logs, or of the device log."""
    return LogReader(store.redis, store.keys, name, store.device_log if devices else store.channel_logs)


def _embedded_redis(settings: Settings, data_dir: Path) -> EmbeddedRedis:
    maxmemory = settings.redis.maxmemory_mb * MiB or _machine_memory() // 2
    return EmbeddedRedis(data_dir, maxmemory=maxmemory, appendfsync=settings.redis.appendfsync)


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
