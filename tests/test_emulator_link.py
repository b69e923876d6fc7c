"""Trackers on a socket, against a server of a few lines: timeouts, repetitions, clocks, transports and faults."""

from __future__ import annotations

import asyncio
import io
import itertools
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from gateway.emulator.endpoint import Endpoint, parse_address, plain, tls_context
from gateway.emulator.faults import Faults, describe_faults, parse_faults, segments, spoil_codec, spoil_crc
from gateway.emulator.fleet import Fleet, NeverConnected, Plan, Share
from gateway.emulator.group import Group, Timing
from gateway.emulator.observers import Talking
from gateway.emulator.packets import framed
from gateway.emulator.scenario import Scenario
from gateway.errors import ConfigError
from gateway.protocols.teltonika.frame import build_frame, has_good_crc
from gateway.protocols.teltonika.wire import decode_packet
from gateway.protocols.teltonika.wire_commands import CODEC_12, decode_command, encode_command
from tests.tracker_server import Server, serving, serving_datagrams

Run = Callable[..., Any]
IMEI = "352093081452251"
LOGIN = b"\x00\x0f" + IMEI.encode()
QUICK = Timing(period=1.0, parked_period=1.0, response_timeout=0.1)


def a_scenario(server: Server, faults: Faults | None = None, **options: Any) -> Scenario:
    """One group against the server; ``options`` are of the scenario, the group or its timing."""
    of_scenario = {"speed_up": 10_000.0, "count": 15, "start": 0.0}
    of_scenario |= {name: options.pop(name) for name in list(options) if name in of_scenario}
    timing = attrs.evolve(QUICK, **{name: options.pop(name) for name in list(options) if hasattr(QUICK, name)})
    group = Group(name="test", timing=timing, faults=faults or Faults(), **options)
    return Scenario((group,), to=f"127.0.0.1:{server.port}", **of_scenario)  # type: ignore[arg-type]


def impatient(tls: ssl.SSLContext | None = None) -> Callable[[str], Endpoint]:
    return lambda to: Endpoint(*parse_address(to), tls=tls, backoff_first=0.01, backoff_longest=0.02)


@asynccontextmanager
async def driving(
    scenario: Scenario, tls: ssl.SSLContext | None = None, wait: bool = False, out: io.StringIO | None = None
) -> AsyncIterator[tuple[Fleet, asyncio.Task[None]]]:
    """The fleet of a scenario while it runs; at the end it is cancelled if it has not come to its end."""
    began = asyncio.get_running_loop().time()
    said = io.StringIO() if out is None else out
    fleet, delays = Plan(scenario, impatient(tls), lambda tally: Talking(tally, out=said)).fleet(began)
    running = asyncio.create_task(fleet.run(began, delays, wait))
    try:
        yield fleet, running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def drive(scenario: Scenario, **options: Any) -> Any:
    """Its tally when it has come to its end."""
    async with driving(scenario, **options) as (fleet, running):
        await running
    return fleet.tallies[0]


def seconds_of(server: Server) -> list[int]:
    return [timestamp // 1000 for timestamp in server.timestamps]


# Stop-and-wait


def test_all_records_of_a_drive_arrive_in_order(run: Run) -> None:
    async def scenario() -> None:
        out = io.StringIO()
        async with serving(Server()) as server:
            tally = await drive(a_scenario(server, records_per_packet=5, count=23), out=out)
        assert seconds_of(server) == list(range(23))
        assert server.logins == [LOGIN]
        assert (tally.acknowledged, tally.waiting, tally.finished) == (23, 0, 1)
        assert "acknowledged after" in out.getvalue()

    run(scenario())


@pytest.mark.parametrize("trouble", ["close", "silence", "zero"])
def test_a_packet_without_its_acknowledgement_comes_again(run: Run, trouble: str) -> None:
    """Link lost, response timeout, wrong count: in each case a new login and the same bytes."""

    async def scenario() -> None:
        out = io.StringIO()
        async with serving(Server(script=[trouble, "ack", trouble])) as server:
            tally = await drive(a_scenario(server, records_per_packet=5), out=out)
        assert server.bodies[0] == server.bodies[1]
        assert len(server.logins) == 3
        assert sorted(set(seconds_of(server))) == list(range(15))
        assert (tally.packets_sent_again, tally.acknowledged) == (2, 15)
        assert "no link: " in out.getvalue()

    run(scenario())


def test_a_rejected_ident_ends_the_drive(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server(verdict=b"\x00")) as server:
            tally = await drive(a_scenario(server))
        assert (tally.rejected, tally.acknowledged, server.bodies) == (1, 0, [])

    run(scenario())


def test_a_rejected_tracker_of_a_fleet_comes_again_until_it_is_welcome(run: Run) -> None:
    """As devices do it, with what they recorded meanwhile; it counts as rejected for so long."""

    async def scenario() -> None:
        async with serving(Server(verdict=b"\x00")) as server:
            wanted = a_scenario(server, devices=2, count=30, speed_up=50.0)
            async with driving(wanted) as (fleet, running):
                await server.until(6, server.logins)
                (tally,) = fleet.tallies
                assert (tally.rejected, tally.acknowledged, server.bodies) == (2, 0, [])
                server.verdict = b"\x01"
                await running
        assert (tally.rejected, tally.acknowledged, tally.waiting) == (0, 60, 0)

    run(scenario())


@pytest.mark.parametrize("speed_up", [10_000.0, float("inf")])
def test_a_fleet_that_has_nothing_more_to_record_takes_a_rejection_as_final(run: Run, speed_up: float) -> None:
    async def scenario() -> None:
        async with serving(Server(verdict=b"\x00")) as server:
            tally = await drive(a_scenario(server, devices=2, speed_up=speed_up))
        assert (tally.rejected, tally.finished, server.bodies) == (2, 2, [])

    run(scenario())


def test_a_rejected_fleet_can_be_stopped(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server(verdict=b"\x00")) as server:
            async with driving(a_scenario(server, devices=2, count=None, speed_up=50.0)) as (fleet, running):
                await server.until(4, server.logins)
                fleet.stop()
                await running
            assert fleet.tallies[0].rejected == 2

    run(scenario())


def test_a_server_that_comes_later_is_waited_for_only_on_request(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as gone:
            wanted = a_scenario(gone, count=1)
        with pytest.raises(NeverConnected, match="refused"):
            await drive(wanted)
        out = io.StringIO()
        async with driving(wanted, wait=True, out=out) as (fleet, running):
            while "refused" not in out.getvalue():
                await asyncio.sleep(0.005)
            listening = await asyncio.start_server(Server().serve, "127.0.0.1", gone.port)
            async with listening:
                await running
        assert fleet.tallies[0].acknowledged == 1

    run(scenario())


def test_a_backlog_is_sent_when_the_link_is_back(run: Run) -> None:
    """The newest first where the device is set up so; records in one packet as many as fit."""

    async def scenario() -> None:
        async with serving(Server()) as gone:
            wanted = a_scenario(gone, count=60, sort="newest")
        later = Server()
        async with driving(wanted, wait=True) as (fleet, running):
            while fleet.tallies[0].recorded < 60:
                await asyncio.sleep(0.005)
            listening = await asyncio.start_server(later.serve, "127.0.0.1", gone.port)
            async with listening:
                await running
        assert seconds_of(later) == list(reversed(range(60)))
        assert len(later.bodies) < 10

    run(scenario())


def test_a_stopped_fleet_sends_what_is_left(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            wanted = a_scenario(server, count=None, speed_up=500.0, records_per_packet=200)
            async with driving(wanted) as (fleet, running):
                while fleet.tallies[0].recorded < 3 or not fleet.tallies[0].connected:
                    await asyncio.sleep(0.005)
                fleet.stop()
                await running
        assert len(server.timestamps) == fleet.tallies[0].acknowledged >= 3

    run(scenario())


def test_a_stopped_fleet_does_not_wait_for_those_that_were_never_switched_on(run: Run) -> None:
    async def scenario() -> None:
        server = Server()
        options = {"count": None, "speed_up": 100.0, "devices": 3, "spread": 1e6}
        async with serving(server), driving(a_scenario(server, **options)) as (fleet, running):
            await server.until(2, server.bodies)
            fleet.stop()
            await running
        tally = fleet.tallies[0]
        assert (tally.connections, tally.finished, tally.waiting) == (1, 3, 0)

    run(scenario())


def test_time_without_end_is_as_fast_as_the_acknowledgements(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            tally = await drive(a_scenario(server, speed_up=float("inf"), count=200, records_per_packet=10))
        assert seconds_of(server) == list(range(200))
        assert (tally.acknowledged, tally.packets) == (200, 20)

    run(scenario())


def test_what_waits_is_sent_after_the_send_period(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            await drive(a_scenario(server, records_per_packet=200, send_period=5.0, count=12, speed_up=100.0))
        assert [body[1] for body in server.bodies] == [6, 5, 1]

    run(scenario())


# Many


def test_devices_of_a_group_count_up_from_the_first_imei(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            tally = await drive(a_scenario(server, devices=30, count=4, spread=0.05))
        assert sorted(server.logins) == [b"\x00\x0f%015d" % (int(IMEI) + number) for number in range(30)]
        assert (tally.devices, tally.acknowledged, tally.finished) == (30, 120, 30)

    run(scenario())


def test_shares_of_a_fleet_are_the_whole_fleet() -> None:
    """Each worker process has its own devices, and nobody is left out."""
    numbers = [[number for number in range(10) if Share(first, 3).has(number)] for first in range(3)]
    assert sorted(itertools.chain(*numbers)) == list(range(10))


# Clocks of an idle link


def test_an_idle_link_is_kept_up_with_pings(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            wanted = a_scenario(server, count=2, speed_up=1.0, ping_interval=0.05, period=0.4, parked_period=0.4)
            await drive(wanted)
        assert 3 <= server.pings <= 8
        assert len(server.logins) == 1

    run(scenario())


def test_a_link_that_is_idle_too_long_is_closed_and_opened_for_the_next_record(run: Run) -> None:
    """The open link timeout; nobody waits for the backoff then."""

    async def scenario() -> None:
        async with serving(Server()) as server:
            wanted = a_scenario(server, count=3, speed_up=1.0, open_link_timeout=0.05, period=0.2, parked_period=0.2)
            tally = await drive(wanted)
        assert len(server.logins) == 3
        assert (tally.acknowledged, tally.packets_sent_again) == (3, 0)

    run(scenario())


# Transports and codecs


@pytest.mark.parametrize("codec", ["8", "8e", "16"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_every_codec_goes_over_every_transport(run: Run, codec: str, transport: str) -> None:
    async def scenario() -> None:
        serve = serving if transport == "tcp" else serving_datagrams
        async with serve(Server()) as server:
            tally = await drive(a_scenario(server, codec=codec, transport=transport))
        assert seconds_of(server) == list(range(15))
        assert {body[0] for body in server.bodies} == {{"8": 8, "8e": 0x8E, "16": 16}[codec]}
        assert tally.acknowledged == 15

    run(scenario())


def test_an_unanswered_datagram_comes_again_with_the_same_bytes(run: Run) -> None:
    async def scenario() -> None:
        async with serving_datagrams(Server(script=["silence", "silence"])) as server:
            tally = await drive(a_scenario(server, transport="udp", count=2, records_per_packet=2))
        assert server.datagrams[0] == server.datagrams[1] == server.datagrams[2]
        assert (tally.packets_sent_again, tally.acknowledged) == (2, 2)

    run(scenario())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def test_tls_trusts_whom_it_was_told_to(run: Run, certificate: Path) -> None:
    async def scenario() -> None:
        offered = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        offered.load_cert_chain(certificate)
        async with serving(Server(), tls=offered) as server:
            wanted = a_scenario(server, transport="tls")
            with pytest.raises(NeverConnected, match="certificate not trusted: self-signed certificate"):
                await drive(wanted, tls=tls_context())
            for context in (tls_context(certificate), tls_context(insecure=True)):
                assert (await drive(wanted, tls=context)).acknowledged == 15
        assert len(server.logins) == 2

    run(scenario())


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"empty.pem cannot be used"):
        tls_context(tmp_path / "empty.pem")


def test_errors_are_told_without_numbers() -> None:
    assert plain(OSError(111, "x")) == "connection refused"
    assert plain(TimeoutError()) == "no answer in time"


# Faults


def faulty(text: str) -> Faults:
    return parse_faults([text])


@pytest.mark.parametrize("fault", ["cut:0.3", "duplicate:0.4", "bad-crc:0.3", "segments:3"])
def test_no_record_is_lost_by_a_fault_on_the_way(run: Run, fault: str) -> None:
    """The server of this test does not check the CRC: a frame with a wrong one is acknowledged there."""

    async def scenario() -> None:
        async with serving(Server()) as server:
            tally = await drive(a_scenario(server, faulty(fault), count=30))
        assert sorted(set(seconds_of(server))) == list(range(30))
        assert tally.acknowledged == 30
        assert tally.faults or fault.startswith("segments")

    run(scenario())


def test_a_duplicate_is_sent_although_it_was_acknowledged(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            tally = await drive(a_scenario(server, faulty("duplicate:1"), count=2, records_per_packet=2))
        assert len(server.bodies) == 2
        assert server.bodies[0] == server.bodies[1]
        assert (tally.acknowledged, tally.packets_sent_again, tally.faults) == (2, 1, {"duplicate": 1})

    run(scenario())


def test_an_unknown_codec_comes_before_the_right_packet(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            await drive(a_scenario(server, faulty("unknown-codec:1"), count=2, records_per_packet=2))
        wrong, right = server.bodies
        assert wrong[0] == 0x55
        assert wrong[1:] == right[1:]
        assert decode_packet(right)["count"] == 2

    run(scenario())


def test_a_silent_link_is_left_open_and_another_one_takes_its_place(run: Run) -> None:
    """As behind a mobile network that forgot the connection: the server sees two connections of one tracker."""

    async def scenario() -> None:
        server = Server()
        async with serving(server), driving(a_scenario(server, faulty("silence:0.5"), count=10)) as (fleet, running):
            await server.until(2, server.logins)
            assert server.ends == 0
            await running
        assert sorted(set(seconds_of(server))) == list(range(10))
        assert fleet.tallies[0].faults["silence"] >= 1

    run(scenario())


def test_spoiled_bytes_are_wrong_in_one_way_only() -> None:
    frame = build_frame(b"\x8e\x01abc\x01")
    assert not has_good_crc(spoil_crc(frame))
    assert spoil_crc(frame)[:-1] == frame[:-1]
    assert has_good_crc(framed(spoil_codec(b"\x8e\x01abc\x01")))
    assert b"".join(segments(frame, 3)) == frame
    assert [len(piece) for piece in segments(b"1234567", 3)] == [3, 3, 1]
    assert list(segments(b"1234567", 0)) == [b"1234567"]


def test_faults_are_understood() -> None:
    assert parse_faults(["cut:0.01,segments:7", "no-fix:1"]) == Faults(cut=0.01, segments=7, no_fix=1.0)
    assert all(name in describe_faults() for name in ("cut", "segments", "bad-crc", "zero-coordinates", "silence"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cutt:1", "'cutt' is not a fault; there are cut, "),
        ("cut", "needs a number, as in cut:0"),
        ("segments:many", "needs a number"),
        ("cut:2", "should be a number from 0 to 1"),
    ],
)
def test_a_wrong_fault_says_what_would_be_right(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_faults([text])


# Commands on the link


def command(text: str) -> bytes:
    return build_frame(encode_command(CODEC_12, {"type": 5, "payload": text.encode()}))


def test_commands_are_answered_between_packets(run: Run) -> None:
    """A changed output shows in the records that follow."""

    async def scenario() -> None:
        server = Server(commands=[command("getver"), command("setdigout 1")])
        async with serving(server), driving(a_scenario(server, count=None, speed_up=100.0)) as (fleet, running):
            await server.until(2, server.responses)
            await server.until(len(server.bodies) + 3, server.bodies)
            fleet.stop()
            await running
        texts = [decode_command(frame[8:-4])["messages"][0]["payload"] for frame in server.responses]
        assert texts[0].startswith(b"Ver:")
        assert texts[1] == b"DOUT1:1 Timeout:INFINITY"
        assert dict(decode_packet(server.bodies[-1])["records"][-1]["n1"])[179] == 1
        assert fleet.tallies[0].commands == 2

    run(scenario())


def test_cpureset_breaks_the_link_and_comes_back(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server(commands=[command("cpureset")])) as server:
            tally = await drive(a_scenario(server))
        assert len(server.logins) == 2
        assert server.responses == []
        assert tally.acknowledged == 15

    run(scenario())
