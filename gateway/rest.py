"""The REST API as a stage: what its handlers are given."""

from __future__ import annotations

from typing import Any

from gateway.api.exposition import Exposition
from gateway.api.health import Health, of_broker, of_channels
from gateway.api.parts import Parts
from gateway.api.server import ApiServer
from gateway.assembly import ChannelsStage, MqttStage
from gateway.commanding import CommandsStage
from gateway.readers import ReadersStage
from gateway.settings import Settings
from gateway.storage import StoreStage
from gateway.store.lag import StoreWatch
from gateway.stream.streams import Streams


class RestStage:
    """Starts last and stops first: clients meet a gateway that is whole."""

    name = "REST"

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        store: StoreStage,
        mqtt: MqttStage,
        streams: Streams,
        readers: ReadersStage,
        commands: CommandsStage,
        channels: ChannelsStage,
    ) -> None:
        watch = _store_watch(store, readers)
        gauges = {
            "connections": lambda: float(len(channels.channels.connections)),
            "channels": lambda: float(len(store.items.channels)),
            "devices": lambda: float(len(store.items.devices)),
        }
        warnings = [lambda: of_broker(mqtt.client), lambda: of_channels(store.items, channels.channels)]
        parts = Parts(
            settings=settings,
            redis=store.redis,
            keys=store.keys,
            turn=store.history.turn,
            items=store.items,
            history=store.history,
            device_history=store.device_history,
            polls=store.polls,
            posted=store.posted,
            messages=store.messages,
            telemetry=store.telemetry,
            events=store.observation.events,
            traffic=store.observation.traffic,
            idents=store.observation.idents,
            gate=store.gate,
            tokens=store.tokens,
            failures=store.failures,
            orders=commands.orders,
            commands=store.commands,
            device_settings=store.device_settings,
            chains=readers.chains,
            streams=streams,
            channels=channels.channels,
            connections=channels.channels.connections,
            exposition=Exposition(watch, store.gate, gauges),
            health=Health(watch, store.gate, warnings),
        )
        self.server = ApiServer(reactor, settings.api.listen, parts, settings.api.cors_origins.split())

    async def start(self) -> None:
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop()


def _store_watch(store: StoreStage, readers: ReadersStage) -> StoreWatch:
    return StoreWatch(
        store.redis,
        store.keys,
        lambda: {channel.id: channel.name for channel in store.items.logged_channels().values()},
        channel_readers=readers.channel_readers,
        device_readers=readers.device_readers,
    )
