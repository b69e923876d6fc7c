"""The service: from settings to the running gateway, in the order in which its stages start."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import Application
from twisted.logger import ILogObserver, Logger

import gateway
from gateway import config
from gateway.assembly import ChannelsStage, MqttStage, WorkersStage
from gateway.channel.channels import Channels
from gateway.commanding import CommandsStage
from gateway.errors import ConfigError, GatewayError
from gateway.log import Observer, adopt_standard_library, open_log
from gateway.mqtt.client import BrokerAddress
from gateway.mqtt.listen import ListenAddress
from gateway.readers import ReadersStage, StreamsStage
from gateway.rest import RestStage
from gateway.settings import Settings
from gateway.stages import Background, Stage, Stages
from gateway.storage import StoreStage
from gateway.tokens import master_token
from gateway.workers.crew import worker_count

log = Logger()

DEFAULT_CONF = "conf/gateway.toml"


def make_application() -> Any:
    """What ``twistd.tac`` runs. A wrong configuration ends the process with one line and status 1."""
    path = Path(os.environ.get("GATEWAY_CONF") or DEFAULT_CONF)
    try:
        settings = config.load(path, os.environ)
    except GatewayError as error:
        raise SystemExit(f"gateway: {error}") from None
    application = Application("avl-gateway")
    out = open_log(sys.argv[1:])
    observer = Observer(out, settings.gateway.log_format, settings.gateway.log_level)
    application.setComponent(ILogObserver, observer)
    adopt_standard_library()
    make_service(settings, getattr(out, "reopen", None), out.write).setServiceParent(application)  # type: ignore[no-untyped-call]
    return application


def make_service(
    settings: Settings,
    reopen_log: Callable[[], None] | None = None,
    write_line: Callable[[str], object] = sys.stderr.write,
) -> Stages:
    """The gateway; it is assembled when it starts. ``reopen_log`` where the log is a file; ``write_line`` takes what
    other processes have for it."""
    from twisted.internet import reactor

    def background() -> Background:
        return Background(lambda what, error: service.fail(f"{what} ended: {error!r}", error))

    def assemble() -> tuple[Sequence[Stage], Callable[[], None]]:
        token, token_file = master_token(settings.auth.token, Path(settings.gateway.data_dir))
        try:
            store = StoreStage(settings, background(), token)
            mqtt = MqttStage(reactor, settings, store, token, background())
        except ConfigError as error:
            raise ConfigError(f"{settings.source}: {error}") from error
        streams = StreamsStage(store)
        readers = ReadersStage(settings, store, mqtt, streams.streams, background())
        commands = CommandsStage(store, background())
        channels = ChannelsStage(reactor, settings, store, mqtt, commands, streams.streams, background())
        workers = WorkersStage(settings, store, channels, write_line)
        rest = RestStage(reactor, settings, store, mqtt, streams.streams, readers, commands, channels)
        stages = (store, mqtt, streams, readers, commands, channels, workers, rest)
        return stages, lambda: print_ready(settings, store, channels.channels, rest.server.url, token_file)

    service = Stages(assemble, reactor, reopen_log)
    return service


def print_ready(
    settings: Settings, store: StoreStage, channels: Channels, api_url: str, token_file: Path | None
) -> None:
    """On standard output, which twistd redirects into the log otherwise: what listens where, and what to do next."""
    lines = [f"avl-gateway {gateway.__version__}"]
    for channel, address in channels.addresses():
        lines.append(f"  channel {channel.id} ({channel.name}): {address}")
    if others := worker_count(settings.gateway.workers):
        lines.append(f"  connections over TCP and TLS are shared by {others + 1} processes")
    lines += _mqtt_lines(settings, token_file)
    token = f"$(cat {token_file})" if token_file is not None else "TOKEN"
    lines.append(f"  REST API: {api_url}/gw, described by {api_url}/gw/api.json")
    lines.append(f'  ask it: curl -H "Authorization: FlespiToken {token}" {api_url}/gw/devices/all')
    lines.append(f"  Redis: {store.place}")
    lines.append(f"  send a first packet: {_emulate([address for _, address in channels.addresses()])}")
    print("\n".join([*lines, "gateway ready"]), file=sys.__stdout__, flush=True)
    if sys.__stdout__ is None or not sys.__stdout__.isatty():
        for line in lines:
            log.info("{line}", line=line.strip())
        log.info("gateway ready")


def _emulate(addresses: Sequence[str]) -> str:
    """The command that sends to the first TCP port, or else to TLS; the emulator's default is 5027."""
    ports = [address.rpartition(":")[2] for address in addresses if address.startswith("tcp ")]
    tls = [address.rpartition(":")[2] for address in addresses if address.startswith("tls ")]
    if not ports and tls:
        return f"make emulate ARGS='--tls --insecure --to 127.0.0.1:{tls[0]}'"
    if not ports or "5027" in ports:
        return "make emulate"
    return f"make emulate ARGS='--to 127.0.0.1:{ports[0]}'"


def _mqtt_lines(settings: Settings, token_file: Path | None) -> list[str]:
    if settings.mqtt.url != "embedded":
        return [f"  MQTT broker: {BrokerAddress.from_url(settings.mqtt.url)}"]
    token = f'"$(cat {token_file})"' if token_file is not None else "TOKEN"
    where = ListenAddress.parse(settings.mqtt.listen, "mqtt.listen")
    return [
        f"  MQTT broker: {settings.mqtt.listen}, WebSocket {settings.mqtt.listen_ws}",
        f"  token: {token_file or 'auth.token of the configuration'} (the user name for MQTT)",
        f"  subscribe: mosquitto_sub -p {where.port} -u {token} -v -t '{settings.mqtt.topic_prefix}/#'",
    ]
