"""The REST API as a stage: what its handlers are given."""

from __future__ import annotations

from typing import Any

from gateway.api.parts import Parts
from gateway.api.server import ApiServer
from gateway.assembly import ChannelsStage
from gateway.settings import Settings
from gateway.storage import StoreStage


class RestStage:
    """Starts last and stops first: clients meet a gateway that is whole."""

    name = "REST"

    def __init__(self, reactor: Any, settings: Settings, store: StoreStage, channels: ChannelsStage) -> None:
        parts = Parts(
            settings=settings,
            redis=store.redis,
            keys=store.keys,
            items=store.items,
            messages=store.messages,
            gate=store.gate,
            tokens=store.tokens,
            failures=store.failures,
            channels=channels.channels,
            connections=channels.channels.connections,
        )
        self.server = ApiServer(reactor, settings.api.listen, parts, settings.api.cors_origins.split())

    async def start(self) -> None:
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop()
