"""MQTT and the channels as stages: what each is given, what runs in it, and how it ends."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable
from typing import Any

from attrs import asdict

from gateway.channel.channels import PORTS, Channels
from gateway.channel.connections import Limits
from gateway.channel.endpoints import parse_range
from gateway.commanding import CommandsStage
from gateway.mqtt.broker import EmbeddedBroker
from gateway.mqtt.client import BrokerAddress, MqttClient
from gateway.mqtt.items import ItemTopics
from gateway.mqtt.listen import ListenAddress
from gateway.mqtt.logs import LogTopics
from gateway.mqtt.properties import PropertyTopics
from gateway.mqtt.rights import TokenDoor
from gateway.mqtt.settings import SettingTopics
from gateway.mqtt.topics import Topics
from gateway.mqtt.visitors import PACKET_BYTES
from gateway.plugin.types import type_id
from gateway.settings import Settings
from gateway.stages import Background
from gateway.storage import StoreStage
from gateway.store.item import KINDS
from gateway.store.items import Channel, Item, Plugin, Stream
from gateway.store.views import view_of
from gateway.stream.state import StreamState
from gateway.stream.streams import Streams
from gateway.workers.crew import Crew, worker_count
from gateway.workers.sharing import SharingReactor, check_free

EVERYWHERE = ("", "0.0.0.0", "::")


class MqttStage:
    """The broker, if it is ours, and the connection to it."""

    name = "MQTT"

    def __init__(self, reactor: Any, settings: Settings, store: StoreStage, token: str, background: Background) -> None:
        self._background = background
        self.topics = Topics(settings.mqtt.topic_prefix)
        self.broker = _embedded_broker(settings, store, self.topics) if settings.mqtt.url == "embedded" else None
        self._settings = settings
        self.client = MqttClient(
            self._address(token),
            settings.mqtt.client_id,
            self.topics,
            reactor=reactor,
            version=settings.mqtt.version if self.broker is None else 4,
        )
        self.properties = PropertyTopics(self.client, self.topics)
        self._setting_topics = SettingTopics(self.client, self.topics, store.device_settings, store.items)
        self._logs = LogTopics(self.client, self.topics)
        store.observation.events.on_entry.append(self._logs.publish)

    def _address(self, token: str) -> BrokerAddress:
        if self.broker is None:
            return BrokerAddress.from_url(self._settings.mqtt.url, self._settings.mqtt.ca_file)
        ours = ListenAddress.parse(self._settings.mqtt.listen, "mqtt.listen")
        host = "127.0.0.1" if ours.host in EVERYWHERE else ours.host
        return BrokerAddress(
            host=host,
            port=ours.port,
            username=token,
            password=self.broker.gateway_secret,
            maximum_packet_size=PACKET_BYTES,
        )

    async def start(self) -> None:
        if self.broker is not None:
            await self.broker.start()
        self._background.run("the MQTT client", self.client.run())
        self._background.run("the properties' publisher", self.properties.run())
        self._background.run("the settings' publisher", self._setting_topics.run())
        self._background.run("the logs' publisher", self._logs.run())

    async def stop(self) -> None:
        self._background.let_end()
        await self.client.stop()
        await self._background.cancel()
        if self.broker is not None:
            await self.broker.stop()


class ChannelsStage:
    """The trackers."""

    name = "channels"

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        store: StoreStage,
        mqtt: MqttStage,
        commands: CommandsStage,
        streams: Streams,
        background: Background,
    ) -> None:
        self._settings = settings
        self._store = store
        self._streams = streams
        self._topics = ItemTopics(mqtt.properties, self._view)
        self._background = background
        self.limits = _limits(settings)
        self.channels = Channels(
            SharingReactor(reactor) if worker_count(settings.gateway.workers) else reactor,
            store.items,
            store.writer,
            store.gate,
            self.limits,
            on_presence=self._presence,
            ports=parse_range(settings.api.channel_ports) or PORTS,
            observer=store.observation.recorder,
            lines=commands.lines,
        )

    async def start(self) -> None:
        _raise_open_files()
        for kind in KINDS:
            await self._topics.publish_all(kind, list(self._store.items.of(kind).values()))
        links = self._store.items.links
        for plugin_id in list(self._store.items.plugins):
            await self._topics.publish_links(list(links.of("plugins", plugin_id, "devices").values()))
        self._store.items.on_change.append(self._topics.changed)
        links.on_change.append(self._topics.linked)
        self.channels.connections.on_count.append(self._count)
        if worker_count(self._settings.gateway.workers):
            channels = self._store.items.channels.values()
            await check_free(spec for channel in channels if channel.enabled for spec in channel.listen)
        await self.channels.start()
        self._streams.on_change.append(self._stream_changed)
        for stream in self._store.items.streams.values():
            self._stream_changed(stream, self._streams.status(stream.id))
        self._background.run("the look for silent connections", self.channels.sweep_forever())

    async def stop(self) -> None:
        await self._background.cancel()
        await self.channels.stop(self._settings.limits.stop_time)

    def _stream_changed(self, stream: Stream, state: StreamState) -> None:
        if stream.id in self._store.items.streams:  # what is deleted leaves no topic
            self._topics.stream_connected(stream.id, state.is_connected)

    def _count(self, channel_id: int) -> None:
        self._topics.connections(channel_id, self.channels.connections.count(channel_id))

    def _view(self, item: Item) -> dict[str, Any]:
        if isinstance(item, Plugin):
            return {**view_of(item), "type_id": type_id(item.type)}
        if isinstance(item, Stream):
            protocol = self._streams.protocols.get(item.protocol)
            return {**view_of(item), "protocol_id": protocol.id or None if protocol is not None else None}
        if not isinstance(item, Channel):
            return view_of(item)
        port = self.channels.port_of(item)
        host = self._settings.gateway.public_host or socket.gethostname()
        return {**view_of(item), "uri": f"{host}:{port}" if port is not None else "", "secondary_uri": ""}

    def _presence(self, protocol_id: int, ident: str, is_connected: bool) -> None:
        device = self._store.items.find_device(protocol_id, ident)
        if device is not None:
            self._topics.connected(device.id, is_connected)


class WorkersStage:
    """The processes beside this one that take connections, too."""

    name = "workers"

    def __init__(
        self, settings: Settings, store: StoreStage, channels: ChannelsStage, write_line: Callable[[str], object]
    ) -> None:
        self._settings = settings
        self.crew = Crew(
            worker_count(settings.gateway.workers),
            channels.channels,
            store.writer,
            store.gate,
            store.observation.recorder,
            channels.limits,
            log_format=settings.gateway.log_format,
            log_level=settings.gateway.log_level,
            write_line=write_line,
        )

    async def start(self) -> None:
        await self.crew.start()

    async def stop(self) -> None:
        await self.crew.stop(self._settings.limits.stop_time)


def _limits(settings: Settings) -> Limits:
    limits = asdict(settings.limits)
    return Limits(**{name: limits[name] for name in Limits.__annotations__})


def _embedded_broker(settings: Settings, store: StoreStage, topics: Topics) -> EmbeddedBroker:
    broker = EmbeddedBroker(
        settings.mqtt.listen,
        settings.mqtt.listen_ws,
        TokenDoor(store.tokens, topics.prefix),
        topics,
        failures=store.failures,
    )
    store.tokens.on_change.append(broker.check)
    return broker


def _raise_open_files() -> None:
    """Each tracker is a file; the usual soft limit of 1024 is meant for other programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
