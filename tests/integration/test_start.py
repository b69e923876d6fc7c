"""Starts that must not be: one line says what is wrong, the status is 1, and nothing is left running."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from integration.processes import LOCAL, Gateway, free_port, processes_of, until
from integration.trackers import Packets, imei, send_packet

Run = Callable[..., Any]
SECRET = "xyzzy"


def complaints(gateway: Gateway) -> list[str]:
    """Why it ended: said by itself where there is no log yet, else in the log."""
    return [line for line in gateway.log if line.startswith("gateway: ") or " critical " in line]


async def assert_refuses(gateway: Gateway, *parts: str) -> None:
    """It ends with status 1 and one line for people that has all ``parts``; its Redis is gone too."""
    gateway.start()
    assert await gateway.ended() == 1
    lines = complaints(gateway)
    assert len(lines) == 1
    assert [part for part in parts if part not in lines[0]] == []
    assert "Traceback" not in gateway.stderr
    assert "gateway ready" not in gateway.stdout
    assert SECRET not in gateway.stdout + gateway.stderr
    await until(lambda: not processes_of(gateway.data_dir), "Redis is stopped")


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        yield server.getsockname()[1]


def test_a_busy_port_of_trackers_ends_the_start(run: Run, make_gateway: Callable[..., Gateway], busy_port: int) -> None:
    """One line names it; a gateway that runs on, deaf, would look healthy."""
    gateway = make_gateway(channels={"listen": [f"tcp:{busy_port}:{LOCAL}"]})
    run(assert_refuses(gateway, "channel trackers", f"tcp:{busy_port}", "cannot listen"))


def test_a_busy_port_of_the_broker_ends_the_start(
    run: Run, make_gateway: Callable[..., Gateway], busy_port: int
) -> None:
    """The same for MQTT."""
    gateway = make_gateway(mqtt={"listen": f"tcp:{busy_port}:{LOCAL}"})
    run(assert_refuses(gateway, "mqtt.listen", str(busy_port), "cannot listen"))


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"gateway": {"data_dir": "/dev/null"}}, ["/dev/null", "gateway.data_dir"]),
        ({"redis": {"maxmemory": 5}}, ["[redis] maxmemory", "did you mean maxmemory_mb?"]),
        ({"limits": {"stop_time": "soon"}}, ["[limits] stop_time", "'soon'", "a number"]),
        ({"channels": {"listen": ["5027"]}}, ["[[channels]] number 1 listen", "tcp:5027"]),
        ({"channels": {"listen": ["tcp:what"]}}, ["[[channels]] number 1 listen", "tcp:what", "tcp:PORT"]),
        ({"redis": {"url": f"redis://me:{SECRET}@127.0.0.1:1"}}, ["redis.url: redis://127.0.0.1:1 cannot be used"]),
        (
            {"redis": {"url": f"redis://me:{SECRET}@127.0.0.1:nowhere"}},
            ["redis.url", "redis://user:password@host:6379"],
        ),
        ({"mqtt": {"url": "mqtt://"}}, ["[mqtt] url", "mqtt://"]),
        ({"mqtt": {"listen": "tcp:high"}}, ["[mqtt] listen", "tcp:high", "tcp:PORT"]),
        ({"devices": {"ident": "1", "type": "FMX"}}, ["[[devices]]", "type", "'FMX'", "FMC130"]),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(
    run: Run, make_gateway: Callable[..., Gateway], sections: dict[str, Any], parts: list[str]
) -> None:
    """File or key, what is there, and what would be right; status 1, no traceback."""
    run(assert_refuses(make_gateway(**sections), *parts))


def test_a_missing_file_is_told_in_one_line(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """The line names it, and the variable that points to it."""
    gateway = make_gateway()
    gateway.conf.unlink()
    run(assert_refuses(gateway, str(gateway.conf), "no such file", "GATEWAY_CONF"))


def test_a_second_gateway_on_the_same_data_is_refused(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """Two servers on one append-only file would destroy it. The first one does not notice."""
    first = make_gateway()
    second = make_gateway(gateway={"data_dir": str(first.data_dir)})

    async def scenario() -> None:
        await first.ready()
        redis = first.redis_pid()
        second.start()
        assert await second.ended() == 1
        lines = complaints(second)
        assert len(lines) == 1
        assert str(first.data_dir) in lines[0]
        assert "another gateway" in lines[0]
        assert first.redis_pid() == redis
        await send_packet(first.port, Packets(imei(0)))
        assert await first.stop() == 0

    run(scenario())


def test_a_broken_append_only_file_is_told_in_one_line(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """Not passed over: somebody must decide what to do with it. The line says what Redis said, and where."""
    gateway = make_gateway()
    path = gateway.data_dir / "redis" / "appendonly.aof"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\nnonsense" * 3)
    run(assert_refuses(gateway, "redis-server ended at once", "append only file", "redis.log"))
