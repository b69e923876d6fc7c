"""Connections as mobile networks make them, and visitors that are no trackers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from integration.processes import Gateway, frozen, until
from integration.stored import assert_holds, assert_nothing_lost, stored_at
from integration.trackers import Connection, Packets, imei
from tests.builders import FrameFactory

Run = Callable[..., Any]
MANY = 2000
TWO = (2).to_bytes(4, "big")


def test_the_newest_connection_of_a_tracker_wins(run: Run, gateway: Gateway) -> None:
    """A tracker that lost its network comes again while its old connection still seems to stand."""

    async def scenario() -> None:
        packets = Packets(imei(100))
        old, new = await Connection.open(gateway.port), await Connection.open(gateway.port)
        await old.log_in(packets.login)
        await new.log_in(packets.login)
        assert await old.closed() == b""
        await gateway.says(f"closed {old.address} ({packets.imei}): ident collision")
        await new.send(packets.make().data)
        assert await new.acknowledged() == 2
        new.vanish()

    run(scenario())


def test_silent_connections_are_closed(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """Whoever vanished says nothing any more, not even goodbye; the log says why each was closed."""
    gateway = make_gateway(limits={"login_time": 1, "idle_time": 2})

    async def scenario() -> None:
        await gateway.ready()
        packets = Packets(imei(0))
        nobody, tracker = await Connection.open(gateway.port), await Connection.open(gateway.port)
        await tracker.log_in(packets.login)
        assert await nobody.closed(timeout=25) == b""
        assert await tracker.closed(timeout=25) == b""
        await gateway.says(f"closed {nobody.address} (no ident): no ident within 1 s")
        await gateway.says(f"closed {tracker.address} ({packets.imei}): silent for")
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_a_packet_in_flight_on_the_old_connection_is_stored(run: Run, gateway: Gateway) -> None:
    """Nobody hears its acknowledgement; the tracker sends it again, and the device has it once."""

    async def scenario() -> None:
        packets = Packets(imei(101))
        old, new = await Connection.open(gateway.port), await Connection.open(gateway.port)
        await old.log_in(packets.login)
        first = packets.make()
        with frozen(gateway.redis_pid()):
            await old.send(first.data)
            assert await old.is_silent(0.3)
            await new.log_in(packets.login)
            assert await old.closed() == b""
        async with stored_at(gateway.socket) as stored:
            await _is_in_channel(stored, packets.imei, first.timestamps)
            await new.send(first.data)
            assert await new.acknowledged() == 2
            await assert_nothing_lost(stored, {packets.imei: first.timestamps})
        new.vanish()

    run(scenario())


async def _is_in_channel(stored: Any, ident: str, timestamps: tuple[int, ...]) -> None:
    async with asyncio.timeout(10):
        while (await stored.channel()).get(ident) != list(timestamps):
            await asyncio.sleep(0.02)


def test_segments_of_one_byte_make_a_packet(run: Run, gateway: Gateway) -> None:
    """However a network cuts them: login, ping and packet are found."""

    async def scenario() -> None:
        packets = Packets(imei(102))
        connection = await Connection.open(gateway.port)
        await _send_bytewise(connection, packets.login)
        assert await connection.answer(1) == b"\x01"
        await _send_bytewise(connection, FrameFactory.ping + packets.make().data)
        assert await connection.acknowledged() == 2
        connection.vanish()

    run(scenario())


async def _send_bytewise(connection: Connection, data: bytes) -> None:
    for byte in data:
        await connection.send(bytes([byte]))
        await asyncio.sleep(0.001)


def test_two_thousand_trackers_at_once_are_all_served(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """After an outage of the network they come together; each is registered, and each gets its acknowledgement."""
    gateway = make_gateway()
    packets = [Packets(imei(number)) for number in range(MANY)]

    async def one(tracker: Packets) -> tuple[Connection, tuple[int, ...]]:
        connection = await Connection.open(gateway.port)
        await connection.send(tracker.login)
        assert await connection.answer(1, timeout=40) == b"\x01"
        packet = tracker.make()
        await connection.send(packet.data)
        assert await connection.acknowledged(timeout=40) == 2
        return connection, packet.timestamps

    async def scenario() -> None:
        await gateway.ready()
        served = await asyncio.gather(*map(one, packets))
        async with stored_at(gateway.socket) as stored:
            acknowledged = {tracker.imei: times for tracker, (_, times) in zip(packets, served, strict=True)}
            await assert_nothing_lost(stored, acknowledged)
        for connection, _ in served:
            connection.vanish()
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


def test_a_wrong_crc_is_not_acknowledged_and_the_next_packet_is(run: Run, gateway: Gateway) -> None:
    """The tracker would take one acknowledgement too many for that of its next packet."""

    async def scenario() -> None:
        packets = Packets(imei(103))
        factory = FrameFactory(packets.imei)
        connection = await Connection.open(gateway.port)
        await connection.log_in(packets.login)
        await connection.send(factory.packet(records=1, bad_crc=True))
        assert await connection.is_silent(0.3)
        await connection.send(packets.make().data)
        assert await connection.answer(4) == TWO
        connection.vanish()
        assert len([line for line in gateway.log if f"not acknowledged to {packets.imei}" in line]) == 1

    run(scenario())


def test_a_poison_packet_is_kept_and_acknowledged(run: Run, gateway: Gateway) -> None:
    """A good CRC around what cannot be decoded: to send it again would not help, so the next one gets its turn."""

    async def scenario() -> None:
        packets = Packets(imei(104))
        poison = FrameFactory(packets.imei).packet(records=3, count_again=2)
        connection = await Connection.open(gateway.port)
        await connection.log_in(packets.login)
        await connection.send(poison)
        assert await connection.acknowledged() == 3
        async with stored_at(gateway.socket) as stored:
            assert (packets.imei, poison) in await stored.parked()
        await connection.send(packets.make().data)
        assert await connection.acknowledged() == 2
        connection.vanish()
        assert len([line for line in gateway.log if f"parked a packet of {packets.imei}" in line]) == 1

    run(scenario())


def _tls_hello() -> bytes:
    hello = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
    return hello.read()


def _random_bytes() -> bytes:
    """Not the beginning of a login, which two zeros or a small length would be."""
    return b"\x80" + Random(1).randbytes(200)


@pytest.mark.parametrize(
    "noise",
    [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", _tls_hello(), _random_bytes()],
    ids=["HTTP", "TLS", "random bytes"],
)
def test_noise_is_closed_with_one_line_in_the_log_and_disturbs_nobody(run: Run, gateway: Gateway, noise: bytes) -> None:
    """Any open port on the internet is scanned all day."""

    async def scenario() -> None:
        packets = Packets(imei(105))
        tracker, scanner = await Connection.open(gateway.port), await Connection.open(gateway.port)
        await tracker.log_in(packets.login)
        await scanner.send(noise)
        assert await scanner.closed() == b""
        await until(lambda: scanner.address in gateway.stderr, "the log names the scanner")
        await tracker.send(packets.make().data)
        assert await tracker.acknowledged() == 2
        tracker.vanish()
        lines = [line for line in gateway.log if scanner.address in line]
        assert len(lines) == 1
        assert "Traceback" not in gateway.stderr

    run(scenario())


def test_noise_of_a_logged_in_tracker_closes_its_connection_only(run: Run, gateway: Gateway) -> None:
    """Once framing is lost nothing can be found again; a new connection begins anew."""

    async def scenario() -> None:
        packets = Packets(imei(106))
        connection = await Connection.open(gateway.port)
        await connection.log_in(packets.login)
        packet = packets.make()
        await connection.send(packet.data)
        assert await connection.acknowledged() == 2
        await connection.send(b"\x01\x02\x03\x04")
        assert await connection.closed() == b""
        again = await Connection.open(gateway.port)
        await again.log_in(packets.login)
        again.vanish()
        async with stored_at(gateway.socket) as stored:
            assert_holds({packets.imei: packet.timestamps}, await stored.channel(), "the channel's messages")

    run(scenario())
