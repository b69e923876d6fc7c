"""Real MQTT brokers and clients for tests: Mosquitto as a process, a proxy that fails on demand, a subscriber."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A Mosquitto on a free port; ``lines`` are added to its configuration."""

    def __init__(self, program: str, directory: Path, *lines: str) -> None:
        self.port = free_port()
        self._program = program
        self._config = directory / f"mosquitto-{self.port}.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\npersistence false\nmax_queued_messages 0\n"
            # started as root it would change to a user who may not read our files; else the line has no effect
            "log_dest stderr\nlog_type error\nuser root\n"
            + "".join(f"{line}\n" for line in lines or ("allow_anonymous true",))
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process = subprocess.Popen([self._program, "-c", str(self._config)])
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError("mosquitto does not listen")

    def stop(self) -> None:
        """SIGTERM: it says goodbye to its clients."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        """SIGKILL: it says nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@pytest.fixture(scope="session")
def mosquitto_program() -> str:
    """Where Mosquitto is. Without it tests are left out, except in CI, where that is a failure."""
    program = shutil.which("mosquitto", path=SEARCH_PATH)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("mosquitto is not installed")
        pytest.skip("mosquitto is not installed")
    return program


@pytest.fixture
def make_mosquitto(mosquitto_program: str, tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Makes and starts Mosquittos; they end with the test."""
    made: list[Mosquitto] = []

    def make(*lines: str) -> Mosquitto:
        made.append(Mosquitto(mosquitto_program, tmp_path, *lines))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def mosquitto(make_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A running Mosquitto that takes anybody."""
    return make_mosquitto()


class Proxy:
    """Between a client and a broker; can cut, refuse, and stop passing on what the broker says."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.is_open = True
        self.accepted = 0
        self._passes = asyncio.Event()
        self._passes.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.cut()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def cut(self) -> None:
        """End all connections at once, without a word."""
        for writer in list(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """Pass nothing from the broker to the client."""
        self._passes.clear()

    def release(self) -> None:
        self._passes.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        self.accepted += 1
        try:
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_writer}
        await asyncio.gather(self._pump(reader, to_writer), self._pump(to_reader, writer, self._passes))
        self._writers -= {writer, to_writer}

    @staticmethod
    async def _pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: asyncio.Event | None = None
    ) -> None:
        try:
            while data := await reader.read(65536):
                if passes is not None:
                    await passes.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()


@frozen
class Received:
    """A message as a subscriber got it."""

    topic: str
    payload: bytes
    qos: int
    is_retained: bool
    properties: dict[str, str]


class Subscriber:
    """paho with a thread of its own: independent of what is tested."""

    def __init__(self, port: int, topic: str = "#", *, version: int = 5, **options: Any) -> None:
        self.messages: list[Received] = []
        self.reason = ""
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._is_subscribed = asyncio.Event()
        self._topic = topic
        self.granted: list[int] = []
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.get("client_id", ""),
            clean_session=options.get("clean_session"),
            protocol=paho.MQTTv5 if version == 5 else paho.MQTTv311,
            transport=options.get("transport", "tcp"),
        )
        self.client.username_pw_set(options.get("username"), options.get("password"))
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_message = self._on_message
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def _tell(self, do: Callable[[], None]) -> None:
        def told() -> None:
            do()
            self._news.set()

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(told)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._tell(lambda: setattr(self, "reason", str(reason)))
        if not reason.is_failure:
            client.subscribe(self._topic, 1)

    def _on_subscribe(self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        codes = [reason.value for reason in reasons]

        def subscribed() -> None:
            self.granted = codes
            self._is_subscribed.set()

        self._tell(subscribed)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        properties = dict(getattr(message.properties, "UserProperty", []))
        received = Received(message.topic, message.payload, message.qos, message.retain, properties)
        self._tell(lambda: self.messages.append(received))

    async def subscribed(self) -> Subscriber:
        """Wait until the broker has granted the subscription."""
        await asyncio.wait_for(self._is_subscribed.wait(), 10)
        return self

    async def until(self, is_done: Callable[[list[Received]], Any], timeout: float = 15) -> list[Received]:
        """Wait until ``is_done`` holds for the messages; they are all given."""
        try:
            async with asyncio.timeout(timeout):
                while not is_done(self.messages):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{len(self.messages)} messages, the last {self.messages[-3:]}") from None
        return self.messages

    async def answered(self) -> str:
        """What the CONNACK said."""
        async with asyncio.timeout(10):
            while not self.reason:
                self._news.clear()
                await self._news.wait()
        return self.reason

    async def close(self) -> None:
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)
