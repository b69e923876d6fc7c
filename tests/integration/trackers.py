"""Cheap real trackers: stop-and-wait over TCP, each packet again until it is acknowledged, as Teltonika's do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from types import TracebackType

from attrs import define, field, frozen

from tests.builders import STEP_MS, FrameFactory

FIRST_IMEI = 350_000_000_000_000
RECONNECT = 0.1


def imei(number: int) -> str:
    """The IMEI of the tracker of this number."""
    return str(FIRST_IMEI + number)


@frozen
class Packet:
    """A frame and the times of its records in milliseconds, by which they are known everywhere later."""

    data: bytes
    timestamps: tuple[int, ...]


@define
class Packets:
    """The packets of one tracker; no two of its records have the same time."""

    imei: str
    records: int = 2
    _factory: FrameFactory = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._factory = FrameFactory(self.imei)

    @property
    def login(self) -> bytes:
        return self._factory.login()

    def make(self) -> Packet:
        first = self._factory.next_timestamp
        return Packet(self._factory.packet(self.records), tuple(first + n * STEP_MS for n in range(self.records)))


class Connection:
    """One connection of a tracker, byte by byte under the test's control."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, **options: object) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)  # type: ignore[arg-type]
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(reader, writer)

    @property
    def address(self) -> str:
        """``ip:port`` of our end, as the gateway's log names it."""
        host, port = self.writer.get_extra_info("sockname")[:2]
        return f"{host}:{port}"

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, size: int, timeout: float = 10) -> bytes:
        """Exactly ``size`` bytes. Raises ConnectionResetError where the gateway closes before."""
        try:
            return await asyncio.wait_for(self.reader.readexactly(size), timeout)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("closed by the gateway") from error

    async def log_in(self, login: bytes) -> None:
        await self.send(login)
        verdict = await self.answer(1)
        assert verdict == b"\x01", "the ident was rejected"

    async def acknowledged(self, timeout: float = 10) -> int:
        """The number of records of the next acknowledgement."""
        return int.from_bytes(await self.answer(4, timeout), "big")

    async def is_silent(self, seconds: float) -> bool:
        """Whether neither a byte nor the end comes for so long."""
        try:
            await asyncio.wait_for(self.reader.read(1), seconds)
        except TimeoutError:
            return True
        return False

    async def closed(self, timeout: float = 10) -> bytes:
        """Wait until the gateway closes; what it sent before."""
        try:
            return await asyncio.wait_for(self.reader.read(), timeout)
        except ConnectionError:
            return b""
        finally:
            self.vanish()

    def vanish(self) -> None:
        """Close without a further word."""
        self.writer.transport.abort()


async def send_packet(port: int, packets: Packets) -> tuple[int, ...]:
    """Connect, deliver one packet, go; the times of its records."""
    connection = await Connection.open(port)
    try:
        await connection.log_in(packets.login)
        packet = packets.make()
        await connection.send(packet.data)
        assert await connection.acknowledged() == len(packet.timestamps)
    finally:
        connection.vanish()
    return packet.timestamps


class Tracker:
    """Sends packet after packet until it is told to stop; ``patience`` is how long it waits for an answer (seconds)."""

    def __init__(self, port: int, number: int, news: asyncio.Event, *, pause: float, patience: float) -> None:
        self.imei = imei(number)
        self.acknowledged: list[int] = []
        self.connections = 0
        self._port = port
        self._packets = Packets(self.imei)
        self._waiting: Packet | None = None
        self._news = news
        self._pause = pause
        self._patience = patience
        self._is_stopping = False

    def stop(self) -> None:
        """Send nothing new."""
        self._is_stopping = True

    async def run(self) -> None:
        while not self._is_stopping or self._waiting is not None:
            try:
                await self._connect_and_send()
            except (OSError, TimeoutError):
                await asyncio.sleep(RECONNECT)

    async def _connect_and_send(self) -> None:
        connection = await Connection.open(self._port)
        try:
            await connection.send(self._packets.login)
            assert await connection.answer(1, self._patience) == b"\x01", "the ident was rejected"
            self.connections += 1
            while self._waiting is not None or not self._is_stopping:
                await self._send(connection)
                await asyncio.sleep(self._pause)
        finally:
            connection.vanish()

    async def _send(self, connection: Connection) -> None:
        if self._waiting is None:
            self._waiting = self._packets.make()
        await connection.send(self._waiting.data)
        count = await connection.acknowledged(self._patience)
        assert count == len(self._waiting.timestamps), f"{count} records were acknowledged"
        self.acknowledged += self._waiting.timestamps
        self._waiting = None
        self._news.set()


class Fleet:
    """``size`` trackers that send for as long as the ``async with`` block runs."""

    def __init__(self, port: int, size: int = 50, *, pause: float = 0.03, patience: float = 5.0) -> None:
        self._news = asyncio.Event()
        self.trackers = [Tracker(port, n, self._news, pause=pause, patience=patience) for n in range(size)]
        self._tasks: list[asyncio.Task[None]] = []

    def __iter__(self) -> Iterator[Tracker]:
        return iter(self.trackers)

    async def __aenter__(self) -> Fleet:
        self._tasks = [asyncio.ensure_future(tracker.run()) for tracker in self.trackers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        failures = [result for result in results if isinstance(result, Exception)]
        if failures:
            raise failures[0] from error

    @property
    def acknowledged(self) -> dict[str, list[int]]:
        """The times of the records that were acknowledged, by IMEI."""
        return {tracker.imei: tracker.acknowledged for tracker in self.trackers}

    @property
    def count(self) -> int:
        """How many records were acknowledged."""
        return sum(len(tracker.acknowledged) for tracker in self.trackers)

    async def is_acknowledged(self, each: int = 1, timeout: float = 30) -> None:
        """Wait until every tracker has got ``each`` more acknowledgements."""
        before = {tracker: len(tracker.acknowledged) for tracker in self.trackers}
        wanted = each * 2
        await self._until(
            lambda: all(len(tracker.acknowledged) - before[tracker] >= wanted for tracker in self.trackers), timeout
        )

    async def next_acknowledgement(self, timeout: float = 30) -> None:
        """Wait for one of any tracker."""
        before = self.count
        await self._until(lambda: self.count > before, timeout)

    async def finish(self, timeout: float = 30) -> None:
        """Let every tracker deliver the packet that it has, and go."""
        for tracker in self.trackers:
            tracker.stop()
        async with asyncio.timeout(timeout):
            await asyncio.gather(*self._tasks)

    async def _until(self, is_done: Callable[[], bool], timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not is_done():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            silent = sum(not tracker.acknowledged for tracker in self.trackers)
            raise AssertionError(f"{self.count} records acknowledged; {silent} trackers never heard anything") from None
