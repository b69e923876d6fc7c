"""Those who read the logs, as stages: the registrar with its plugins, the publishers, the streams, the trimmer."""

from __future__ import annotations

import asyncio
from pathlib import Path

from twisted.logger import Logger

from gateway.assembly import MqttStage
from gateway.errors import StoreError
from gateway.mqtt.publisher import Publisher, channel_topic, device_topic
from gateway.mqtt.telemetry import TelemetryTopics
from gateway.plugin.chains import Chains
from gateway.plugin.lane import Lane
from gateway.plugin.types import PluginType, find_types
from gateway.registrar import Registrar
from gateway.settings import Settings
from gateway.stages import Background
from gateway.storage import StoreStage, store_reader
from gateway.store.deferred import Deferred
from gateway.store.items import Change
from gateway.store.purge import Purger
from gateway.store.reader import LogReader
from gateway.store.trim import Trimmer
from gateway.stream.protocols import find_protocols
from gateway.stream.streams import Streams

TRIM_EVERY = 60.0


class StreamsStage:
    """Messages to other systems."""

    name = "streams"

    def __init__(self, store: StoreStage) -> None:
        self.streams = Streams(store.redis, store.keys, store.items, find_protocols(), store.observation.events.record)
        store.writer.on_commit.append(self.streams.news.ring)

    async def start(self) -> None:
        await self.streams.start()

    async def stop(self) -> None:
        await self.streams.stop()


class ReadersStage:
    """Those who read the logs: the registrar with its plugins, the publishers and the trimmer."""

    name = "readers"
    log = Logger()

    def __init__(
        self, settings: Settings, store: StoreStage, mqtt: MqttStage, streams: Streams, background: Background
    ) -> None:
        self._settings = settings
        self._store = store
        self._background = background
        self._publishers = [
            Publisher(mqtt.client, store_reader(store, "mqtt"), channel_topic(mqtt.topics), "channels"),
            Publisher(mqtt.client, store_reader(store, "mqtt", devices=True), device_topic(mqtt.topics), "devices"),
        ]
        self._telemetry = TelemetryTopics(
            mqtt.client,
            store_reader(store, "telemetry", devices=True),
            store.telemetry,
            mqtt.topics,
            lambda: list(store.items.devices),
            interval=settings.mqtt.telemetry_interval,
            exists=lambda device_id: device_id in store.items.devices,  # the mirror is another one after a start
        )
        store.items.on_change.append(self._forget_telemetry)
        self.chains = Chains(store.items, _plugin_types(settings), store.observation.events.record)
        deferred = Deferred(store.redis, store.keys)
        self._lane = Lane(deferred, store.items, self.chains, store.telemetry)
        self._registrar = Registrar(
            LogReader(store.redis, store.keys, "registrar", store.registered_logs),
            store.items,
            store.messages,
            store.writer.registered,
            posted=store.keys.posted,
            chains=self.chains,
            deferred=deferred,
            wake=self._lane.wake,
            processed=store.keys.processed,
            handed_on=streams.news.ring,
            record=store.observation.events.record,
            forgotten=self._telemetry.forget,
        )
        self._streams = streams
        self._trimmer = Trimmer(
            store.redis, store.keys, store.items, store.messages,
            channel_readers=self.channel_readers,
            device_readers=self.device_readers,
            reader_retention=settings.limits.reader_retention,
        )  # fmt: skip
        self._purger = Purger(
            store.redis, store.keys, store.items, ["registrar", "mqtt"], retention=settings.limits.reader_retention
        )

    def channel_readers(self, channel_id: int) -> list[str]:
        """Who must have delivered a channel's log before it is trimmed."""
        return ["registrar", "mqtt", *self._streams.readers_of_channel(channel_id)]

    def device_readers(self) -> list[str]:
        """The same of the device log."""
        telemetry = ["telemetry"] if self._settings.mqtt.telemetry else []
        return ["mqtt", *telemetry, *self._streams.readers_of_devices()]

    async def start(self) -> None:
        self._background.run("the purger of deleted items", self._purger.run())
        if not self._settings.gateway.readers:
            self.log.warn("gateway.readers is false: packets are stored, but neither registered nor published")
            return
        await self.chains.start()
        self._background.run("the plugins that ask others", self._lane.run())
        self._background.run("the registrar", self._registrar.run())
        for publisher in self._publishers:
            self._background.run(f"the publisher of {publisher.name}", publisher.run())
        if self._settings.mqtt.telemetry:
            self._background.run("the publisher of telemetry", self._telemetry.run())
        self._background.run("the trimmer", self._trim_forever())

    async def stop(self) -> None:
        self._background.let_end()
        if self._settings.gateway.readers:
            await asyncio.gather(*(publisher.stop(self._settings.limits.stop_time) for publisher in self._publishers))
        await self._background.cancel()
        if self._settings.gateway.readers and self._settings.mqtt.telemetry:
            await self._telemetry.stop()
        await self.chains.stop()

    def _forget_telemetry(self, change: Change) -> None:
        if change.kind == "devices" and change.new is None:
            self._telemetry.refresh([change.id])

    async def _trim_forever(self) -> None:
        while True:
            await asyncio.sleep(TRIM_EVERY)
            try:
                await self._trimmer.trim()
            except StoreError as error:
                self.log.warn("trimming waits for Redis: {error}", error=str(error))


def _plugin_types(settings: Settings) -> dict[str, PluginType]:
    """Ours, and the operator's. Raises ConfigError."""
    return find_types(Path(folder) for folder in settings.gateway.plugin_folders.split(":") if folder)
