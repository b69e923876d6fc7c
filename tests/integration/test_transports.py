"""Trackers on UDP, on TLS and behind a proxy, end to end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.processes import LOCAL, Gateway, free_port
from integration.stored import assert_nothing_lost, stored_at
from integration.test_start import assert_refuses
from integration.trackers import Connection, Packets, imei
from tests.authority import Authority
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


def test_a_tracker_behind_a_proxy_is_stored_with_its_own_address(
    run: Run, make_gateway: Callable[..., Gateway]
) -> None:
    """What the proxy says of it, also before TLS, which passes through."""
    port = free_port()
    gateway = make_gateway(channels={"listen": [f"haproxy:tcp:{port}:{LOCAL}"]})

    async def scenario() -> None:
        await gateway.ready()
        packets = Packets(imei(0))
        connection = await Connection.open(port)
        await connection.log_in(b"PROXY TCP4 203.0.113.7 192.0.2.1 50123 5027\r\n" + packets.login)
        await connection.send(packets.make().data)
        assert await connection.acknowledged() == 2
        async with httpx.AsyncClient(headers={"Authorization": f"FlespiToken {gateway.token}"}) as client:
            answer = await client.get(f"{gateway.api_url}/gw/channels/all/connections/all")
            assert [one["source"] for one in answer.json()["result"]] == ["203.0.113.7:50123"]
            answer = await client.get(f"{gateway.api_url}/gw/channels/all/messages")
            assert {message["peer"] for message in answer.json()["result"]} == {"203.0.113.7:50123"}
        connection.vanish()
        assert await gateway.stop() == 0
        assert "Traceback" not in gateway.stderr

    run(scenario())


def test_certificates_are_renewed_while_the_gateway_runs(
    run: Run, make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """Those of trackers and of the API; who is connected notices nothing, and only trackers of the fleet get in."""
    authority, fleet = Authority("Test authority"), Authority("Fleet")
    key, certificate, ca = (tmp_path / name for name in ("key.pem", "cert.pem", "fleet.pem"))
    authority.sign("first").write(certificate, key)
    ca.write_bytes(fleet.pem)
    port, api_port = free_port(), free_port()
    files = f"{LOCAL}:privateKey={key}:certKey={certificate}"
    gateway = make_gateway(
        channels={"listen": [f"ssl:{port}:{files}:clientCA={ca}"]}, api={"listen": f"ssl:{api_port}:{files}"}
    )
    context = ssl.create_default_context(cadata=authority.pem.decode())
    tracker = fleet.sign_client("tracker")
    tracker.write(tmp_path / "tracker.crt", tmp_path / "tracker.key")
    context.load_cert_chain(tmp_path / "tracker.crt", tmp_path / "tracker.key")
    server_only = ssl.create_default_context(cadata=authority.pem.decode())

    async def shown(port: int) -> str:
        connection = await Connection.open(port, ssl=context)
        subject = connection.writer.get_extra_info("peercert")["subject"]
        connection.vanish()
        return str(dict(pair for part in subject for pair in part)["commonName"])

    async def scenario() -> None:
        await gateway.ready()
        packets = Packets(imei(0))
        connection = await Connection.open(port, ssl=context)
        await connection.log_in(packets.login)
        stranger = await Connection.open(port, ssl=server_only)
        with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE_REQUIRED"):
            await stranger.closed()
        authority.sign("second").write(certificate, key)
        for there in (port, api_port):
            async with asyncio.timeout(15):
                while await shown(there) != "second":
                    await asyncio.sleep(0.5)
        await connection.send(packets.make().data)
        assert await connection.acknowledged() == 2
        async with httpx.AsyncClient(verify=server_only) as client:
            description = await client.get(
                f"https://127.0.0.1:{api_port}/gw/api.json", headers={"Authorization": f"FlespiToken {gateway.token}"}
            )
            assert "/gw/channels" in description.text
            assert description.json()["openapi"]
        connection.vanish()
        assert await gateway.stop() == 0
        assert "Traceback" not in gateway.stderr

    run(scenario(), timeout=60)


def test_a_key_that_is_not_there_ends_the_start(run: Run, make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """In one line that names channel, endpoint and file."""
    gateway = make_gateway(channels={"listen": [f"ssl:{free_port()}:privateKey={tmp_path}/none.pem"]})
    run(assert_refuses(gateway, "channel trackers", f"privateKey={tmp_path}/none.pem", "No such file", "PEM"))
