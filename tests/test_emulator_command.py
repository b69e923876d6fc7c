"""``python -m gateway.emulator``: its arguments, what it shows, and its exit status."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gateway.emulator.__main__ import main
from gateway.emulator.faults import Faults
from gateway.emulator.io import SETS
from gateway.emulator.options import EXAMPLES, parse, parser, scenario_of
from gateway.emulator.route_files import ENDINGS, route_names
from gateway.emulator.scenario import Scenario
from gateway.emulator.tally import Tally
from gateway.emulator.view import Lines, Rates, Screen, summarize, table
from tests.tracker_server import Server, serving, serving_datagrams

Run = Callable[..., Any]
IMEI = "352093081452251"


async def emulate(*arguments: str) -> tuple[int | None, str, str]:
    process = await start(*arguments)
    out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


async def start(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "gateway.emulator", *arguments)
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env={**os.environ})


def to(server: Server) -> tuple[str, str]:
    return "--to", f"127.0.0.1:{server.port}"


def test_a_single_tracker_tells_what_it_does_and_ends_with_a_summary(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            status, out, errors = await emulate(*to(server), "--count", "3", "--speed-up", "100", "--imei", IMEI)
        assert (status, errors) == (0, "")
        first, second, *_ = out.splitlines()
        assert first.endswith(f"{IMEI} connected, the ident is accepted")
        assert f"{IMEI} " in second
        assert ", acknowledged after " in second
        assert f"{IMEI}: 3 records made, 3 acknowledged, 0 not acknowledged, 0 dropped" in out

    run(scenario())


def test_a_fleet_ends_with_one_summary(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            status, out, errors = await emulate(*to(server), "--devices", "20", "--count", "3", "--speed-up", "50")
        assert (status, errors) == (0, "")
        assert "trackers: 60 records made, 60 acknowledged, 0 not acknowledged, 0 dropped" in out
        assert len(server.logins) == 20

    run(scenario())


def test_a_program_reads_json(run: Run) -> None:
    """Each line is an object; the last one is the summary."""

    async def scenario() -> None:
        async with serving_datagrams(Server()) as server:
            arguments = ("--udp", "--json", "--devices", "2", "--count", "5", "--as-fast-as-acknowledged")
            status, out, errors = await emulate(*to(server), *arguments)
        assert (status, errors) == (0, "")
        summary = json.loads(out.splitlines()[-1])
        assert (summary["kind"], summary["all"]["acknowledged"]) == ("summary", 10)
        assert summary["groups"][0]["ack_seconds"]["p50"] > 0

    run(scenario())


def test_a_run_ends_after_its_duration(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            status, out, _ = await emulate(*to(server), "--duration", "0.3", "--interval", "0.05", "--quiet")
        assert status == 0
        assert 3 <= len(server.timestamps) <= 8
        assert out.startswith(f"{IMEI}: ")

    run(scenario())


def test_ctrl_c_ends_the_drive_tidily(run: Run) -> None:
    """The record that is still waiting is sent, then comes the summary."""

    async def scenario() -> None:
        async with serving(Server()) as server:
            process = await start(*to(server), "--records-per-packet", "200", "--interval", "0.1")
            assert process.stdout is not None
            assert b"accepted" in await process.stdout.readline()
            process.send_signal(signal.SIGINT)
            out, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
        assert b"0 not acknowledged, 0 dropped" in out

    run(scenario())


def test_a_rejection_is_said_and_exits_1(run: Run) -> None:
    """A single tracker's ends the run; a fleet keeps trying until the run is over."""

    async def scenario() -> None:
        async with serving(Server(verdict=b"\x00")) as server:
            status, _, errors = await emulate(*to(server), "--count", "1")
            assert (status, errors) == (1, f"the gateway rejected the ident {IMEI} (verdict 00)\n")
            arguments = ("--devices", "2", "--spread", "0", "--quiet", "--duration", "0.3")
            status, _, errors = await emulate(*to(server), *arguments)
            assert (status, errors) == (1, "the gateway rejected 2 of 2 idents (verdict 00)\n")

    run(scenario())


def test_an_address_where_nothing_listens_is_one_line_and_exits_2(run: Run) -> None:
    async def scenario() -> None:
        for arguments in ((), ("--udp",), ("--devices", "5")):
            status, _, errors = await emulate("--to", "127.0.0.1:1", "--count", "1", *arguments)
            assert (status, errors) == (2, "cannot connect to 127.0.0.1:1: connection refused\n")

    run(scenario())


def test_more_trackers_than_open_files_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--devices", "1000000"]) == 2
    assert "open files, the limit is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--to", "localhost"], "is not HOST:PORT"),
        (["--to", "localhost:70000"], "is not HOST:PORT"),
        (["--imei", "1234"], "is not an IMEI: 15 digits"),
        (["--count", "0"], "is not a whole number above 0"),
        (["--interval", "soon"], "is not a number above 0"),
        (["--spread", "-1"], "is not a number of 0 or more"),
        (["--records-per-packet", "256"], "is not between 1 and 255"),
        (["--begin", "yesterday"], "is not a time such as"),
        (["--codec", "12"], "invalid choice"),
        (["--fault", "cut:2"], "should be a number from 0 to 1"),
        (["--scenario", "no-such-file"], "no such file, and no scenario of that name"),
        (["--scenario", "city-fleet", "--codec", "8"], "--codec is said by the scenario itself"),
    ],
)
def test_a_wrong_argument_says_what_would_be_right(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


def made(*arguments: str) -> Scenario:
    return parse(arguments).made  # type: ignore[no-any-return]


def test_arguments_make_a_scenario_of_one_group() -> None:
    of_all = "--to [::1]:5027 --seed 4 --speed-up 2 --begin 2026-11-21T08:00:00+00:00"
    of_group = f"--devices 7 --model FMC130 --imei {IMEI} --codec 16 --tls --fault cut:0.5 --io can --io 67"
    of_timing = "--newest-first --ping 30 --open-link 60 --interval 10"
    scenario = made(*of_all.split(), *of_group.split(), *of_timing.split())
    (group,) = scenario.groups
    assert (scenario.to, scenario.start, scenario.seed, scenario.speed_up) == ("[::1]:5027", 1_795_248_000.0, 4, 2.0)
    assert (group.devices, group.model, group.imei, group.codec, group.transport) == (7, "FMC130", IMEI, "16", "tls")
    assert (group.faults, list(group.io), group.spread) == (Faults(cut=0.5), ["can", "67"], 5.0)
    timing = group.timing
    assert (timing.sort, timing.ping_interval, timing.open_link_timeout, timing.period) == ("newest", 30, 60, 10)


def test_without_arguments_the_third_record_moves() -> None:
    """Whoever tries the emulator for the first time sees a trip, not a parked car."""
    scenario = made()
    recorder = scenario.recorder(scenario.groups[0], 0, 0.0)
    first, second, third = (recorder.next_burst().records[0] for _ in range(3))
    assert (first["speed"], second["timestamp"], third["timestamp"]) == (0, 1000, 2000)
    assert third["speed"] > 0


def test_the_command_line_may_change_what_a_scenario_says_of_all() -> None:
    scenario = made("--scenario", "city-fleet", "--to", "10.0.0.1:5027", "--count", "3", "--as-fast-as-acknowledged")
    assert (scenario.to, scenario.count, scenario.speed_up) == ("10.0.0.1:5027", 3, float("inf"))
    assert scenario.groups == scenario_of(parse(["--scenario", "city-fleet"])).groups


# What is shown


def some_tallies() -> list[Tally]:
    vans = Tally("vans", devices=50, connected=48, recorded=12_345, acknowledged=12_000, packets_sent_again=3)
    for milliseconds in range(1, 101):
        vans.latencies.add(milliseconds / 1000)
    return [vans, Tally("trucks", devices=5, connected=5, recorded=10, acknowledged=10)]


def test_the_table_has_a_row_for_each_group_and_one_for_all() -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(table(some_tallies(), 60.0, [200.0, 0.2]))
    rows = console.export_text().splitlines()
    assert "55 trackers, 0:01:00" in rows[0]
    vans = next(row for row in rows if "vans" in row).split()
    assert vans[:7] == ["vans", "48/50", "12,345", "12,000", "345", "3", "200"]
    assert vans[8] == "100"
    assert "rejected" not in rows[0]
    assert not any("…" in row for row in rows), "a terminal of 80 columns is wide enough"
    assert any("all" in row and "53/55" in row for row in rows)


def test_a_line_has_the_same_numbers() -> None:
    out = io.StringIO()
    Lines(out).update(some_tallies(), 60.0)
    line, _ = out.getvalue().splitlines()
    assert "vans: 48 of 50 connected, 12,345 records, 12,000 acknowledged (200/s), 345 waiting" in line
    assert "3 packets sent again, ack p50 5" in line


def test_rejected_trackers_are_shown() -> None:
    vans, trucks = some_tallies()
    vans.rejected = 2
    console, out = Console(record=True, width=80, file=io.StringIO()), io.StringIO()
    console.print(table([vans, trucks], 60.0, [200.0, 0.2]))
    Lines(out).update([vans, trucks], 60.0)
    assert "55 trackers, 0:01:00, 2 idents rejected (verdict 00)" in console.export_text().splitlines()[0]
    assert out.getvalue().splitlines()[0].endswith(", 2 idents rejected (verdict 00)")


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rates, tally = Rates(), Tally()
    for second in range(1, 31):
        tally.acknowledged += 100 if second < 20 else 10
        shown = rates.update([tally], float(second))
    assert shown == [pytest.approx(10.0)]
    assert Rates().update([tally], 1.0) == [tally.acknowledged]


def test_the_summary_has_faults_and_rejections() -> None:
    tally = Tally("vans", recorded=2, rejected=1, commands=1)
    tally.faults["bad_crc"] += 3
    text = summarize(tally)
    assert "2 not acknowledged" in text
    assert "no acknowledgement; 1 command; 1 ident rejected (verdict 00)" in text
    assert text.endswith("faults: 3 bad crc")


def test_the_screen_leaves_the_last_table_behind() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=110)
    with Screen(console) as screen:
        screen.update(some_tallies(), 1.0)
        screen.update(some_tallies(), 60.0)
    assert "55 trackers, 0:01:00" in console.file.getvalue()  # type: ignore[attr-defined]


def test_help_names_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in ("unknown-codec", "zero-coordinates", "exit status", "--fault NAME:VALUE"))


def test_help_names_every_route_and_what_files_can_be_one() -> None:
    said = " ".join(parser().format_help().split())
    assert all(name in said for name in [*route_names(), *ENDINGS, *SETS["FMB"]])


@pytest.mark.parametrize("example", EXAMPLES.splitlines())
def test_the_examples_of_the_help_are_right(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are accepted; the route that is a file is written here."""
    monkeypatch.chdir(tmp_path)
    points = '<trkpt lat="54.68" lon="25.28"/><trkpt lat="54.69" lon="25.29"/>'
    Path("trip.gpx").write_text(f"<gpx><trk><trkseg>{points}</trkseg></trk></gpx>")
    assert parse(example.split()).made.groups


def test_the_emulator_s_files_have_a_size_that_can_be_read() -> None:
    """Split by what changes together."""
    folder = Path(__file__).parent.parent / "gateway" / "emulator"
    assert max(len(path.read_text().splitlines()) for path in folder.glob("*.py")) <= 320
