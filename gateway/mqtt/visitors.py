"""A client of the embedded broker: its transport as amqtt wants it, with the bounds that amqtt does not have."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from time import monotonic
from typing import Protocol

from amqtt.adapters import BufferReader, ReaderAdapter, WriterAdapter
from amqtt.errors import AMQTTError, MQTTError, NoDataError
from amqtt.mqtt.connect import ConnectPacket
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from gateway.errors import PeerError
from gateway.mqtt.rights import Admission

KiB, MiB = 1024, 1024 * 1024

CONNECT_BYTES = 16 * KiB
"""A CONNECT holds a client id, a token and a will."""
PACKET_BYTES = 1 * MiB
WAITING_BYTES = 64 * MiB
"""What may wait for a client that does not read (all retained messages at once, for one) before it is cut."""
CLOSE_TIMEOUT = 2.0

CONNECT = 0x10


class WrongVersion(PeerError):
    """The client does not speak MQTT 3.1.1."""


class Transport(Protocol):
    """What both kinds of connection have in common."""

    async def receive(self) -> bytes:
        """Some bytes; none at the end."""

    async def send(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...

    @property
    def waiting_bytes(self) -> int: ...

    @property
    def peer(self) -> tuple[str, int]: ...


class TcpTransport:
    """MQTT over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.peer: tuple[str, int] = (writer.get_extra_info("peername") or ("", 0))[:2]

    async def receive(self) -> bytes:
        try:
            return await self._reader.read(64 * KiB)
        except OSError:
            return b""

    async def send(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError  # which amqtt understands; writing on would log a warning each time
        self._writer.write(data)

    @property
    def waiting_bytes(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()


class WebSocketTransport:
    """MQTT over WebSocket; messages and packets need not have the same ends (MQTT 3.1.1, 6.0)."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.peer: tuple[str, int] = (connection.remote_address or ("", 0))[:2]

    async def receive(self) -> bytes:
        try:
            data = await self._connection.recv()
        except ConnectionClosed:
            return b""
        return data.encode() if isinstance(data, str) else data

    async def send(self, data: bytes) -> None:
        try:
            await self._connection.send(data)
        except ConnectionClosed:
            raise ConnectionResetError from None  # which amqtt understands

    @property
    def waiting_bytes(self) -> int:
        return self._connection.transport.get_write_buffer_size()

    def close(self) -> None:
        self._connection.transport.close()

    def abort(self) -> None:
        self._connection.transport.abort()


class Visitor:
    """One connection, from its CONNECT to its end."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.reader = _Reader(self)
        self.writer = _Writer(self)
        self.client_id = ""
        self.admission: Admission | None = None
        self.keep_alive = 0
        self.is_gateway = False
        self.heard_at = monotonic()
        self.gone = asyncio.Event()

    @property
    def is_silent(self) -> bool:
        """Whether nothing came for one and a half keep-alive intervals (MQTT 3.1.1, 3.1.2.10)."""
        return 0 < self.keep_alive * 1.5 < monotonic() - self.heard_at

    async def read_connect(self) -> ConnectPacket:
        """The first packet. Raises PeerError, or WrongVersion, which wants an answer."""
        try:
            data = await self._connect_bytes()
            packet: ConnectPacket = await ConnectPacket.from_stream(BufferReader(data))
        except (AMQTTError, MQTTError, NoDataError, ValueError) as error:
            raise PeerError(f"no CONNECT: {error}") from error
        self.client_id = packet.client_id or ""
        self.keep_alive = packet.variable_header.keep_alive if packet.variable_header else 0
        return packet

    async def _connect_bytes(self) -> bytes:
        head = await self.reader.read(2)
        if head[0] != CONNECT:
            raise PeerError("the first packet is no CONNECT")
        length, place = head[1] & 0x7F, 1
        while head[-1] >= 0x80 and place < 4:
            head += await self.reader.read(1)
            length |= (head[-1] & 0x7F) << (7 * place)
            place += 1
        if length > CONNECT_BYTES:
            raise PeerError(f"a CONNECT of {length} bytes")
        body = await self.reader.read(length)
        if body[:7] != b"\x00\x04MQTT\x04":
            raise WrongVersion("not MQTT 3.1.1")
        return head + body

    async def cut(self) -> None:
        """Cut the connection and wait until amqtt has noticed."""
        self.transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.gone.wait()

    def close(self) -> None:
        """Close after what was sent, soon in any case."""
        self.transport.close()
        asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self.transport.abort)


class _Reader(ReaderAdapter):
    """Reads from the transport; ``put_back`` is read once more before it."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._data = b""
        self._is_cut = False

    def put_back(self, data: bytes) -> None:
        self._data = data + self._data

    async def read(self, n: int = -1) -> bytes:
        if n > PACKET_BYTES:
            self._is_cut = True  # or the rest of the packet would be read as packets
            self._data = b""
            self._visitor.transport.abort()
        if self._is_cut:
            raise NoDataError(f"a packet of more than {PACKET_BYTES} bytes")
        while len(self._data) < n:
            data = await self._visitor.transport.receive()
            if not data:
                raise NoDataError("the connection is closed")
            self._visitor.heard_at = monotonic()
            self._data += data
        data, self._data = self._data[:n], self._data[n:]
        return data

    def feed_eof(self) -> None:
        """The transport does it."""


class _Writer(WriterAdapter):
    """Writes to the transport and never waits for it: a client for whom too much is waiting is cut."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._out: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._out.append(bytes(data))

    async def drain(self) -> None:
        data = b"".join(self._out)
        self._out.clear()
        transport = self._visitor.transport
        if transport.waiting_bytes > WAITING_BYTES:
            transport.abort()
            raise ConnectionResetError
        if data:
            await transport.send(data)

    def get_peer_info(self) -> tuple[str, int] | None:
        return self._visitor.transport.peer

    def get_ssl_info(self) -> ssl.SSLObject | None:
        return None

    async def close(self) -> None:
        self._visitor.close()
