"""Several processes take connections on the same port, and the gateway is one all the same."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from integration.processes import LOCAL, Gateway, free_port, frozen, is_running, until
from integration.stored import assert_nothing_lost, stored_at
from integration.trackers import Connection, Fleet, Packets, imei, send_packet
from tests.builders import FrameFactory

Run = Callable[..., Any]
WORKERS = 3
"""Processes in all."""
TRACKERS = 24
"""Enough for each process to have some, but for once in ten thousand runs."""


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    """Not yet started."""
    return make_gateway(gateway={"workers": WORKERS})


def worker_pids(gateway: Gateway) -> list[int]:
    """The processes beside the first one."""
    return sorted(_children(gateway.pid))


def _children(pid: int) -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == pid and b"gateway.workers" in command:
            yield int(path.parent.name)


def holder_of(connection: Connection, pids: list[int]) -> int:
    """Which process has the gateway's end of a connection."""
    port = connection.writer.get_extra_info("sockname")[1]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    [inode] = [row[9] for row in rows if int(row[2].rpartition(":")[2], 16) == port and row[3] == "01"]
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.readlink(link) == f"socket:[{inode}]":
                    return pid
            except OSError:
                continue
    raise AssertionError(f"nobody has the connection from port {port}")


@asynccontextmanager
async def rest(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"FlespiToken {gateway.token}"}
    async with httpx.AsyncClient(base_url=f"{gateway.api_url}/gw", headers=headers, timeout=30) as client:
        yield client


async def log_in(gateway: Gateway, number: int, port: int = 0) -> Connection:
    connection = await Connection.open(port or gateway.port)
    await connection.log_in(FrameFactory(imei(number)).login())
    return connection


class Obedient:
    """A tracker that answers each command with its own IMEI."""

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.frames = FrameFactory(imei(number))
        self.heard: list[bytes] = []
        self._task = asyncio.ensure_future(self._obey())

    async def _obey(self) -> None:
        while True:
            head = await self.connection.reader.readexactly(8)
            rest = await self.connection.reader.readexactly(int.from_bytes(head[4:], "big") + 4)
            size = int.from_bytes(rest[3:7], "big")
            self.heard.append(rest[7 : 7 + size])
            await self.connection.send(self.frames.command(b"I am " + self.frames.imei.encode()))

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.connection.vanish()


def test_a_command_finds_the_process_that_has_the_connection(run: Run, gateway: Gateway) -> None:
    """At once and from the queue, for devices of all processes; a device that comes to another one is found there."""

    async def scenario() -> None:
        await gateway.ready()
        pids = [gateway.pid, *worker_pids(gateway)]
        assert len(pids) == WORKERS
        trackers = [Obedient(await log_in(gateway, n), n) for n in range(TRACKERS)]
        holders = Counter(holder_of(tracker.connection, pids) for tracker in trackers)
        assert len(holders) == WORKERS, holders
        async with rest(gateway) as client:
            connections = (await client.get("/channels/1/connections/all")).json()["result"]
            assert {one["ident"] for one in connections} == {imei(n) for n in range(TRACKERS)}
            devices = {
                one["configuration"]["ident"]: one["id"] for one in (await client.get("/devices/all")).json()["result"]
            }
            order = [{"name": "custom", "properties": {"text": "who"}, "timeout": 20}]
            asked = [client.post(f"/devices/{devices[imei(n)]}/commands", json=order) for n in range(TRACKERS)]
            for n, answer in enumerate(await asyncio.gather(*asked)):
                assert answer.status_code == 200, answer.text
                assert answer.json()["result"][0]["response"] == f"I am {imei(n)}"

            # one goes, and comes back until another process has it
            await trackers[0].end()
            device = devices[imei(0)]
            await _until_connected(client, device, False)
            later = [{"name": "custom", "properties": {"text": "who"}}]
            queued = (await client.post(f"/devices/{device}/commands-queue", json=later)).json()["result"][0]
            before = holder_of(trackers[1].connection, pids)
            connection = await log_in(gateway, 0)
            for _ in range(50):
                if holder_of(connection, pids) != before:
                    break
                older, connection = connection, await log_in(gateway, 0)
                await older.closed()
            trackers[0] = Obedient(connection, 0)
            result = await _result(client, device, queued["id"])
            assert result["response"] == f"I am {imei(0)}"
            assert (await client.get(f"/devices/{device}/logs")).json()["result"]
        for tracker in trackers:
            await tracker.end()
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


async def _until_connected(client: httpx.AsyncClient, device: int, wanted: bool) -> None:
    async with asyncio.timeout(10):
        while (await client.get(f"/devices/{device}?fields=connected")).json()["result"][0]["connected"] is not wanted:
            await asyncio.sleep(0.05)


async def _result(client: httpx.AsyncClient, device: int, command: int) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while not (found := (await client.get(f"/devices/{device}/commands-result/{command}")).json()["result"]):
            await asyncio.sleep(0.1)
    result: dict[str, Any] = found[0]
    return result


def test_a_device_that_is_away_or_silent_is_said_to_be(run: Run, gateway: Gateway) -> None:
    """In the middle of a command the connection breaks, or no answer comes: the client is told."""

    async def scenario() -> None:
        await gateway.ready()
        connections = [await log_in(gateway, n) for n in range(6)]
        async with rest(gateway) as client:
            order = [{"name": "custom", "properties": {"text": "who"}, "timeout": 5}]
            silent, *gone = [client.post(f"/devices/{n + 1}/commands", json=order) for n in range(6)]
            asking = [asyncio.ensure_future(one) for one in (silent, *gone)]
            ids = {
                one["configuration"]["ident"]: one["id"] for one in (await client.get("/devices/all")).json()["result"]
            }
            by_id = {ids[imei(n)]: connection for n, connection in enumerate(connections)}
            for id, connection in by_id.items():
                head = await connection.answer(8)  # the command is there
                assert head[:4] == bytes(4)
                if id != 1:
                    connection.vanish()
            answers = await asyncio.gather(*asking)
            assert "no answer within" in answers[0].json()["errors"][0]["reason"]
            for answer in answers[1:]:
                assert answer.status_code == 400, answer.text
            by_id[1].vanish()
            offline = await client.post("/devices/2/commands", json=order)
            assert "not connected" in offline.json()["errors"][0]["reason"]
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_of_two_connections_of_a_tracker_the_newer_one_stays(run: Run, gateway: Gateway) -> None:
    """Whichever processes have them."""

    async def scenario() -> None:
        await gateway.ready()
        pids = [gateway.pid, *worker_pids(gateway)]
        connections = [await log_in(gateway, 1)]
        holders = [holder_of(connections[0], pids)]
        while len(set(holders)) < WORKERS:
            connections.append(await log_in(gateway, 1))
            holders.append(holder_of(connections[-1], pids))
        *older, newest = connections
        for connection in older:
            await connection.closed()
        packet = FrameFactory(imei(1)).packet(2)
        await newest.send(packet)
        assert await newest.acknowledged() == 2
        async with rest(gateway) as client:
            [connected] = (await client.get("/channels/1/connections/all")).json()["result"]
            assert connected["source"] == newest.address
            entries = (await client.get("/devices/1/logs")).json()["result"]
            assert [entry["close_code"] for entry in entries if entry["event_code"] == 301] == [12] * len(older)
            deleted = await client.delete(f"/channels/1/connections/{connected['id']}")
            assert deleted.status_code == 200
            await newest.closed()
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_killed_workers_lose_nothing_that_was_acknowledged(run: Run, gateway: Gateway, random: Random) -> None:
    """Their trackers come again, the others notice nothing, and other workers take their places."""

    async def scenario() -> None:
        await gateway.ready()
        async with Fleet(gateway.port) as fleet:
            for _ in range(3):
                await fleet.is_acknowledged()
                await asyncio.sleep(random.uniform(0, 0.5))
                before = worker_pids(gateway)
                os.kill(random.choice(before), signal.SIGKILL)
                await until(lambda known=before: len(set(worker_pids(gateway)) - set(known)) == 1, "another one", 20)
                await fleet.is_acknowledged()
            await fleet.finish()
        async with stored_at(gateway.socket) as stored:
            await assert_nothing_lost(stored, fleet.acknowledged)
        assert any("worker process" in line and "ended" in line for line in gateway.log)
        assert await gateway.stop() == 0

    run(scenario(), timeout=120)


def test_a_worker_that_hangs_is_replaced(run: Run, gateway: Gateway) -> None:
    """It would keep its trackers waiting, and the kernel would give it new ones."""

    async def scenario() -> None:
        await gateway.ready()
        hanging, *others = worker_pids(gateway)
        os.kill(hanging, signal.SIGSTOP)
        await gateway.says("hangs, and is killed", 40)
        await until(lambda: len(worker_pids(gateway)) == len(others) + 1, "another one", 20)
        assert not is_running(hanging)
        await asyncio.gather(*(send_packet(gateway.port, Packets(imei(n))) for n in range(TRACKERS)))
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


def test_all_end_in_order_and_what_was_acknowledged_is_stored(run: Run, gateway: Gateway) -> None:
    """SIGTERM, with trackers under way; also where systemd sends it to every process."""

    async def scenario() -> None:
        await gateway.ready()
        pids = worker_pids(gateway)
        async with Fleet(gateway.port) as fleet:
            await fleet.is_acknowledged(each=2)
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            assert await gateway.stop() == 0
            assert not any(is_running(pid) for pid in pids)
            await gateway.ready()
            await fleet.is_acknowledged()
            await fleet.finish()
        async with stored_at(gateway.socket) as stored:
            await assert_nothing_lost(stored, fleet.acknowledged)
        pids = worker_pids(gateway)
        os.kill(pids[0], signal.SIGSTOP)
        gateway.kill()
        await until(lambda: not any(is_running(pid) for pid in pids), "workers end without the first process")

    run(scenario(), timeout=90)


def test_every_message_has_a_time_of_its_own_that_rises(run: Run, gateway: Gateway) -> None:
    """A client that pages by ``server.timestamp`` misses nothing; figures are those of all processes."""

    async def scenario() -> None:
        await gateway.ready()
        pids = [gateway.pid, *worker_pids(gateway)]
        async with Fleet(gateway.port, 40) as fleet:
            await fleet.is_acknowledged(each=5)
            await fleet.finish()
        async with rest(gateway) as client:
            messages = (await client.get("/channels/1/messages")).json()["result"]
            times = [message["server.timestamp"] for message in messages]
            assert len(times) >= 40 * 5 * 2
            assert times == sorted(set(times))
            assert all(re.fullmatch(r"127\.0\.0\.1:\d+", message["peer"]) for message in messages)
            await asyncio.sleep(1.5)  # workers tell their figures once a second
            text = (await client.get("/../metrics")).text
            assert f'gateway_records_total{{channel="trackers"}} {float(len(times))}' in text
            assert f"gateway_workers {float(len(pids) - 1)}" in text
            came = sum(tracker.connections for tracker in fleet)
            assert f"gateway_connections_accepted_total {float(came)}" in text
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_channels_that_are_made_changed_and_deleted_are_so_in_all_processes(run: Run, gateway: Gateway) -> None:
    """Over REST, while others run."""

    async def scenario() -> None:
        await gateway.ready()
        pids = [gateway.pid, *worker_pids(gateway)]
        port, other = free_port(), free_port()
        async with rest(gateway) as client:
            new = {"name": "second", "configuration": {"listen": [f"tcp:{port}:{LOCAL}"], "unknown_ident": "accept"}}
            [channel] = (await client.post("/channels", json=[new])).json()["result"]
            await asyncio.sleep(0.5)  # workers are told, not waited for
            connections = [await log_in(gateway, n, port) for n in range(TRACKERS)]
            assert {holder_of(connection, pids) for connection in connections} == set(pids)
            changed = {"configuration": {"listen": [f"tcp:{other}:{LOCAL}"], "unknown_ident": "reject"}}
            answer = await client.put(f"/channels/{channel['id']}", json=changed)
            assert answer.status_code == 200, answer.text
            for connection in connections:
                await connection.closed()
            await asyncio.sleep(0.5)
            await _nobody_listens(port)
            for n in range(TRACKERS):
                connection = await Connection.open(other)
                await connection.send(FrameFactory(imei(n)).login())
                assert await connection.closed() == b"\x00"
            assert (await client.delete(f"/channels/{channel['id']}")).status_code == 200
            await asyncio.sleep(0.5)
            await _nobody_listens(other)
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


async def _nobody_listens(port: int) -> None:
    """In no process: the kernel would give it one of these connections."""
    for _ in range(WORKERS * 3):
        with pytest.raises(ConnectionRefusedError):
            await Connection.open(port)


def test_two_gateways_do_not_share_a_port(run: Run, gateway: Gateway, make_gateway: Callable[..., Gateway]) -> None:
    """The system would let them; trackers would come to the one or the other."""
    listen = [f"tcp:{gateway.port}:{LOCAL}"]

    async def scenario() -> None:
        await gateway.ready()
        for workers in (1, WORKERS):
            other = make_gateway(gateway={"workers": workers}, channels={"listen": listen})
            other.start()
            assert await other.ended(30) == 1
            assert f"tcp:{gateway.port}" in other.stderr
            assert "Address already in use" in other.stderr
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


def test_while_redis_stands_still_no_process_acknowledges(run: Run, gateway: Gateway) -> None:
    """And all go on by themselves."""

    async def scenario() -> None:
        await gateway.ready()
        async with Fleet(gateway.port, patience=60) as fleet:
            await fleet.is_acknowledged()
            with frozen(gateway.redis_pid()):
                await gateway.says("trackers are paused")
                await asyncio.sleep(1)
                acknowledged = fleet.count
                await asyncio.sleep(2)
                assert fleet.count == acknowledged
            await fleet.is_acknowledged(each=2)
            await fleet.finish()
        async with stored_at(gateway.socket) as stored:
            await assert_nothing_lost(stored, fleet.acknowledged)
        assert await gateway.stop() == 0

    run(scenario(), timeout=90)


def test_what_nobody_can_decode_is_kept_and_what_is_no_packet_is_told(run: Run, gateway: Gateway) -> None:
    """From whichever process it comes: parked bytes, bad CRCs and strangers are seen over REST."""

    async def scenario() -> None:
        await gateway.ready()
        frames = [FrameFactory(imei(n)) for n in range(12)]
        for n, factory in enumerate(frames):
            connection = await log_in(gateway, n)
            await connection.send(factory.packet(1, bad_crc=True))
            await connection.send(factory.packet(1))
            assert await connection.acknowledged() == 1
            connection.vanish()
            noise = await Connection.open(gateway.port)
            await noise.send(b"GET / HTTP/1.1\r\n\r\n")
            await noise.closed()
        async with rest(gateway) as client:
            await asyncio.sleep(0.5)
            entries = (await client.get("/channels/1/logs")).json()["result"]
            assert {100, 101, 102, 103} <= {entry["event_code"] for entry in entries}
            seen = (await client.get("/channels/1/idents/all")).json()["result"]
            assert {one["ident"] for one in seen} >= {factory.imei for factory in frames}
            packets = (await client.get(f"/channels/1/idents/{frames[0].imei}/packets")).json()["result"]
            assert len(packets) >= 2
        assert await gateway.stop() == 0

    run(scenario(), timeout=60)


def test_a_packet_goes_the_same_way_with_one_process_and_with_several(run: Run, make_gateway) -> None:
    """The message is the same, whoever decoded it, but for where it came from and when."""

    async def message_of(gateway: Gateway) -> dict[str, Any]:
        await gateway.ready()
        for n in range(1, 9):
            await send_packet(gateway.port, Packets(imei(n), records=1))
        async with rest(gateway) as client:
            messages = (await client.get("/channels/1/messages")).json()["result"]
        assert await gateway.stop() == 0
        own = ("peer", "server.timestamp", "timestamp")
        texts = {
            json.dumps({k: v for k, v in one.items() if k not in (*own, "ident")}, sort_keys=True) for one in messages
        }
        assert len(messages) == 8
        assert len(texts) == 1
        found: dict[str, Any] = json.loads(texts.pop())
        return found

    async def scenario() -> None:
        alone = await message_of(make_gateway())
        assert await message_of(make_gateway(gateway={"workers": WORKERS})) == alone

    run(scenario(), timeout=60)
