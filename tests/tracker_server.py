"""A server of a few lines, for tests of trackers: it acknowledges everything, but for what a script says first."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import attrs

from gateway.protocols.teltonika.datagram import acknowledge_datagram, receive_datagram
from gateway.protocols.teltonika.wire import decode_packet


@attrs.define
class Server:
    """Answers of ``script``: "ack", "zero" (acknowledges nothing), "silence", "close"; then "ack" for ever.

    ``commands`` are sent behind the first verdict; what comes back as a frame of Codec 12 or 14 lands in ``responses``.
    """

    verdict: bytes = b"\x01"
    script: list[str] = attrs.field(factory=list)
    commands: list[bytes] = attrs.field(factory=list)
    logins: list[bytes] = attrs.field(factory=list)
    bodies: list[bytes] = attrs.field(factory=list)
    datagrams: list[bytes] = attrs.field(factory=list)
    responses: list[bytes] = attrs.field(factory=list)
    pings: int = 0
    ends: int = 0
    port: int = 0
    heard: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._note(self.logins, await reader.readexactly(17))
            writer.write(self.verdict)
            for command in self.commands:
                writer.write(command)
            self.commands = []
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ends += 1
            self.heard.set()
            writer.close()

    async def until(self, count: int, of: list[bytes]) -> None:
        """Wait until so many have come."""
        while len(of) < count:
            self.heard.clear()
            await self.heard.wait()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.readexactly(1)
        if first == b"\xff":
            self.pings += 1
            self.heard.set()
            return True
        head = first + await reader.readexactly(7)
        rest = await reader.readexactly(int.from_bytes(head[4:], "big") + 4)
        if rest[0] in (0x0C, 0x0E):
            self._note(self.responses, head + rest)
            return True
        self._note(self.bodies, rest[:-4])
        answer = self.script.pop(0) if self.script else "ack"
        if answer == "ack":
            writer.write(rest[1].to_bytes(4, "big"))
        elif answer == "zero":
            writer.write(bytes(4))
        return answer != "close"

    def answer_datagram(self, data: bytes) -> bytes:
        self._note(self.datagrams, data)
        answer = self.script.pop(0) if self.script else "ack"
        event = receive_datagram(data)
        self.bodies.append(event.body)
        return acknowledge_datagram(event, event.body[1]) if answer == "ack" else b""

    def _note(self, where: list[bytes], data: bytes) -> None:
        where.append(data)
        self.heard.set()

    @property
    def timestamps(self) -> list[int]:
        return [record["timestamp"] for body in self.bodies for record in decode_packet(body)["records"]]


@asynccontextmanager
async def serving(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        answer = self.server.answer_datagram(data)
        if answer:
            self.transport.sendto(answer, address)


@asynccontextmanager
async def serving_datagrams(server: Server) -> AsyncIterator[Server]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(server), local_addr=("127.0.0.1", 0))
    server.port = transport.get_extra_info("sockname")[1]
    try:
        yield server
    finally:
        transport.close()
