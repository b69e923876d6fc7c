"""Trackers on UDP and on TLS, end to end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.processes import LOCAL, Gateway, free_port
from integration.stored import assert_nothing_lost, stored_at
from integration.trackers import Connection, Packets, imei
from tests.builders import FrameFactory

Run = Callable[..., Any]


class Datagrams(asyncio.DatagramProtocol):
    """What comes back to a tracker on UDP."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    @classmethod
    async def open(cls, port: int) -> tuple[asyncio.DatagramTransport, Datagrams]:
        loop = asyncio.get_running_loop()
        return await loop.create_datagram_endpoint(cls, remote_addr=("127.0.0.1", port))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.put_nowait(data)

    async def next(self) -> bytes:
        return await asyncio.wait_for(self.received.get(), 10)


def test_a_tracker_on_udp_is_acknowledged_and_stored(run: Run, gateway: Gateway) -> None:
    """What is no datagram of a tracker hears nothing; what comes again is acknowledged again and registered once."""

    async def scenario() -> None:
        factory = FrameFactory(imei(200))
        times = [factory.next_timestamp, factory.next_timestamp + 1000]
        datagram = factory.datagram(2, packet_id=0x1234, avl_packet_id=7)
        transport, answers = await Datagrams.open(gateway.port)
        transport.sendto(b"\x00\x01noise")
        for _ in range(2):
            transport.sendto(datagram)
            assert await answers.next() == bytes.fromhex("0005 1234 01 07 02")
        assert answers.received.empty()
        transport.close()
        async with stored_at(gateway.socket) as stored:
            await assert_nothing_lost(stored, {factory.imei: times})

    run(scenario())


def test_a_tracker_on_tls_is_acknowledged_and_stored(
    run: Run, make_gateway: Callable[..., Gateway], certificate: tuple[Path, Path]
) -> None:
    """The endpoint's certificate is what the tracker sees; one who speaks plainly to it is closed."""
    certificate_path, key_path = certificate
    port = free_port()
    listen = f"ssl:{port}:{LOCAL}:privateKey={key_path}:certKey={certificate_path}"
    gateway = make_gateway(channels={"listen": [listen]})

    async def scenario() -> None:
        await gateway.ready()
        packets = Packets(imei(0))
        plain = await Connection.open(port)
        await plain.send(packets.login)
        assert b"\x01" not in (await plain.closed())[:1]
        context = ssl.create_default_context(cafile=str(certificate_path))
        connection = await Connection.open(port, ssl=context)
        await connection.log_in(packets.login)
        packet = packets.make()
        await connection.send(packet.data)
        assert await connection.acknowledged() == 2
        connection.vanish()
        async with stored_at(gateway.socket) as stored:
            await assert_nothing_lost(stored, {packets.imei: packet.timestamps})
        assert await gateway.stop() == 0
        assert "Traceback" not in gateway.stderr

    run(scenario())
