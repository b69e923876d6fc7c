"""The gateway as operators meet it: stop, daemon, restart, files, log."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from brokers import Mosquitto

from integration.processes import (
    TAC,
    TWISTD,
    Gateway,
    Process,
    RedisServer,
    frozen,
    is_running,
    processes_of,
    until,
)
from integration.stored import assert_holds, assert_nothing_lost, assert_once, stored_at, stored_in
from integration.trackers import Connection, Fleet, Packets, imei, send_packet

Run = Callable[..., Any]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_keeps_all_that_was_acknowledged(
    run: Run, make_gateway: Callable[..., Gateway], number: signal.Signals
) -> None:
    """Status 0, whether systemd or Ctrl-C stops it; the store is the last to go."""
    gateway = make_gateway()

    async def scenario() -> None:
        await gateway.ready()
        redis = gateway.redis_pid()
        async with Fleet(gateway.port, pause=0) as fleet:
            await fleet.is_acknowledged(each=2)
            assert await gateway.stop(number) == 0
        assert not is_running(redis)
        assert "Traceback" not in gateway.stderr
        async with stored_in(gateway.data_dir) as stored:
            assert_holds(fleet.acknowledged, await stored.channel(), "the channel's messages")
            assert_once(await stored.device_messages(), "the devices' messages")

    run(scenario(), timeout=60)


def test_a_stop_does_not_wait_for_a_frozen_redis(
    run: Run, make_gateway: Callable[..., Gateway], redis_process: RedisServer
) -> None:
    """limits.stop_time bounds it. What was not stored was not acknowledged either."""
    gateway = make_gateway(redis={"url": redis_process.url}, limits={"stop_time": 1})

    async def scenario() -> None:
        await redis_process.says("Ready to accept connections")
        await gateway.ready()
        async with Fleet(gateway.port) as fleet:
            await fleet.is_acknowledged()
            redis_process.send(signal.SIGSTOP)
            await asyncio.sleep(0.1)
            assert await gateway.stop() == 0
        redis_process.send(signal.SIGCONT)
        assert len([line for line in gateway.log if "stopped before all packets were stored" in line]) == 1
        async with stored_at(redis_process.url) as stored:
            assert_holds(fleet.acknowledged, await stored.channel(), "the channel's messages")

    run(scenario())


def test_a_stop_does_not_wait_for_a_frozen_broker(
    run: Run, make_gateway: Callable[..., Gateway], mosquitto: Mosquitto
) -> None:
    """Its goodbye is not heard, and that is all."""
    gateway = make_gateway(mqtt={"url": mosquitto.url}, limits={"stop_time": 1})

    async def scenario() -> None:
        await gateway.ready()
        await gateway.says("connected to mqtt")
        with frozen(mosquitto.pid):
            await send_packet(gateway.port, Packets(imei(0)))
            assert await gateway.stop() == 0
        assert "Traceback" not in gateway.stderr

    run(scenario())


def test_a_daemon_starts_and_stops_by_its_pid(run: Run, make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """With twistd's own options, as sysadmins know them."""
    gateway = make_gateway()
    pid_file, log_file = tmp_path / "gateway.pid", tmp_path / "gateway.log"
    command = [str(TWISTD), "-y", str(TAC), f"--pidfile={pid_file}", f"--logfile={log_file}"]
    daemon = Process("daemon", command, tmp_path, {"GATEWAY_CONF": str(gateway.conf)})

    async def scenario() -> None:
        daemon.start()
        assert await daemon.ended() == 0
        pid = await until(lambda: pid_file.exists() and int(pid_file.read_text() or 0), "the pid file is written")
        try:
            await until(lambda: "connected to mqtt" in log_file.read_text(), "the daemon is up")
            await until(lambda: _listens(gateway.port), "it listens")
            await send_packet(gateway.port, Packets(imei(0)))
            os.kill(pid, signal.SIGTERM)
            await until(lambda: not is_running(pid), "the daemon ends")
        finally:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        assert not pid_file.exists()
        assert "Traceback" not in log_file.read_text()
        assert (daemon.stdout, daemon.stderr) == ("", "")
        await until(lambda: not processes_of(gateway.data_dir), "Redis is stopped")

    run(scenario())


def test_the_generated_token_is_for_its_owner_only(gateway: Gateway) -> None:
    """Whoever has it can do everything. It stays what it is."""
    path = gateway.data_dir / "token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(gateway.token) == 64
    assert gateway.token not in gateway.stdout + gateway.stderr


def test_the_redis_of_ours_is_for_its_owner_only(gateway: Gateway) -> None:
    """It asks for no password, so the directory and the socket must."""
    redis = gateway.data_dir / "redis"
    assert stat.S_IMODE(redis.stat().st_mode) == 0o700
    assert stat.S_IMODE((redis / "redis.sock").stat().st_mode) == 0o700


def test_the_log_as_json_has_an_object_a_line(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """From the first line to the last, whoever wrote it."""
    gateway = make_gateway(gateway={"log_format": "json"})

    async def scenario() -> None:
        await gateway.ready()
        scanner = await Connection.open(gateway.port)
        await scanner.send(b"\xf0" * 10 + b'"\\')
        await scanner.closed()
        assert await gateway.stop() == 0
        entries = [json.loads(line) for line in gateway.log]
        assert all({"time", "level", "source", "text", "fields"} <= entry.keys() for entry in entries)
        closed = [entry["fields"]["why"] for entry in entries if entry["text"].startswith("closed")]
        assert len(closed) == 1
        assert closed[0].startswith("not a login")

    run(scenario())


def test_what_a_power_cut_left_half_written_is_passed_over(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """The end of the append-only file goes; what was whole is there."""
    gateway = make_gateway()

    async def scenario() -> None:
        packets = Packets(imei(0))
        await gateway.ready()
        times = await send_packet(gateway.port, packets)
        assert await gateway.stop() == 0
        with (gateway.data_dir / "redis" / "appendonly.aof").open("ab") as file:
            file.write(b"*3\r\n$4\r\nXADD\r\n$20\r\ngw:{s0}:ch")
        await gateway.ready()
        times += await send_packet(gateway.port, packets)
        async with stored_at(gateway.socket) as stored:
            await assert_nothing_lost(stored, {packets.imei: times})
        assert await gateway.stop() == 0

    run(scenario())


def test_a_restarted_gateway_goes_on_where_it_was(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """Channels, devices and messages are those of before; the token too."""
    gateway = make_gateway()

    async def scenario() -> None:
        packets = Packets(imei(0))
        await gateway.ready()
        token = gateway.token
        first = await send_packet(gateway.port, packets)
        assert await gateway.stop() == 0
        await gateway.ready()
        second = await send_packet(gateway.port, packets)
        async with stored_at(gateway.socket) as stored:
            await stored.registered()
            assert await stored.device_messages() == {packets.imei: [*first, *second]}
        assert gateway.token == token
        assert await gateway.stop() == 0

    run(scenario())


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
