"""The emulator as people start it against the gateway as people start it: what was recorded is what is stored.

The same arguments give the same records, so each test knows from them what Redis must have.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from gateway.emulator.group import imei as imei_problem
from gateway.emulator.options import parse
from integration.processes import LOCAL, Gateway, free_port
from integration.stored import Stored, Times, assert_once, stored_at

Run = Callable[..., Any]

BEGIN = "2026-11-20T08:00:00+00:00"
FAST = ("--begin", BEGIN, "--count", "40", "--records-per-packet", "8", "--as-fast-as-acknowledged")


def first_imei(number: int) -> str:
    """The first of a thousand IMEIs that no other test of this module has."""
    imei = str(351_000_000_000_000 + number * 1000)
    assert not imei_problem(imei)
    return imei


async def emulate(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, the summary of ``--json``, and what went to standard error."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "gateway.emulator", "--json", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    out, errors = await process.communicate()
    assert process.returncode is not None
    lines = out.decode().splitlines()
    return process.returncode, json.loads(lines[-1])["all"] if lines else {}, errors.decode()


def recorded(*arguments: str) -> Times:
    """The times of the records that these arguments make, in the order in which they are made."""
    scenario = parse(arguments).made
    assert scenario.start is not None
    times: Times = {}
    for group in scenario.groups:
        for number in range(group.devices):
            recorder = scenario.recorder(group, number, scenario.start)
            endless = (record["timestamp"] for _ in iter(int, 1) for record in recorder.next_burst().records)
            times[group.ident(number)] = list(islice(endless, scenario.count))
    return times


def of(times: Times, wanted: Times) -> Times:
    """Only those idents."""
    return {ident: times.get(ident, []) for ident in wanted}


async def assert_stored(stored: Stored, wanted: Times) -> None:
    """In the channel at least once, in the devices' messages exactly once, and nothing that was not recorded."""
    await stored.registered()
    channel = of(await stored.channel(), wanted)
    assert {ident: sorted(set(times)) for ident, times in channel.items()} == wanted
    assert of(await stored.device_messages(), wanted) == wanted


async def drive(gateway: Gateway, *arguments: str) -> Times:
    """Run the emulator; the summary, the records and the store agree. Gives the records."""
    arguments = ("--to", f"127.0.0.1:{gateway.port}", *arguments)
    status, summary, errors = await emulate(*arguments)
    assert (status, errors) == (0, "")
    wanted = recorded(*arguments)
    assert summary["acknowledged"] == summary["recorded"] == sum(map(len, wanted.values()))
    async with stored_at(gateway.socket) as stored:
        await assert_stored(stored, wanted)
        if not summary["packets_sent_again"]:
            assert_once(of(await stored.channel(), wanted), "the channel's messages")
    return wanted


@pytest.mark.parametrize(
    ("number", "arguments", "parameter"),
    [
        (1, ("--codec", "8"), "position.latitude"),
        (2, ("--codec", "8e", "--io", "vin", "--model", "FMC130"), "vehicle.vin"),
        (3, ("--codec", "16", "--model", "FMB640", "--route", "motorway"), "generation.type.enum"),
        (4, ("--udp",), "position.latitude"),
        (5, ("--devices", "20", "--newest-first", "--spread", "0.2"), "position.speed"),
        (6, ("--devices", "4", "--processes", "2", "--io", "can"), "can.vehicle.mileage"),
    ],
    ids=["codec 8", "codec 8E", "codec 16", "udp", "several devices", "two processes"],
)
def test_what_is_recorded_is_stored(
    run: Run, gateway: Gateway, number: int, arguments: tuple[str, ...], parameter: str
) -> None:
    async def scenario() -> None:
        wanted = await drive(gateway, "--imei", first_imei(number), *FAST, *arguments)
        async with stored_at(gateway.socket) as stored:
            messages = await stored.decoded()
        assert all(parameter in messages[ident][-1] for ident in wanted), messages[next(iter(wanted))][-1]

    run(scenario())


def test_a_drive_in_its_own_time_is_stored_record_by_record(run: Run, gateway: Gateway) -> None:
    async def scenario() -> None:
        paced = ("--begin", BEGIN, "--count", "30", "--speed-up", "100", "--ping", "0.1", "--send-period", "5")
        await drive(gateway, "--imei", first_imei(7), "--devices", "2", "--interval", "2", *paced)

    run(scenario())


SCENARIO = f"""
seed = 5
count = 30
speed_up = inf
start = {BEGIN}

[[groups]]
name = "vans"
devices = 5
imei = "{first_imei(10)}"
route = "delivery"
timing.records_per_packet = 5
faults.segments = 7

[[groups]]
name = "trucks"
devices = 3
imei = "{first_imei(11)}"
model = "FMB640"
codec = "16"
transport = "udp"
"""


def test_a_scenario_s_groups_are_stored(run: Run, gateway: Gateway, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SCENARIO)

    async def scenario() -> None:
        wanted = await drive(gateway, "--scenario", str(path))
        assert {len(times) for times in wanted.values()} == {30}
        assert len(wanted) == 8

    run(scenario())


def test_whatever_goes_wrong_every_record_is_stored_and_registered_once(run: Run, gateway: Gateway) -> None:
    """Packets in an unknown codec are parked; without a fix or a position a record is a message all the same."""
    on_the_link = "cut:0.1,segments:11,bad-crc:0.1,duplicate:0.1,unknown-codec:0.1"
    in_records = "no-fix:0.05,zero-coordinates:0.2,clock-offset:-3600"

    async def scenario() -> None:
        arguments = ("--fault", on_the_link, "--fault", in_records, "--response-timeout", "0.3", "--devices", "12")
        arguments = ("--to", f"127.0.0.1:{gateway.port}", "--imei", first_imei(12), *FAST, *arguments)
        status, summary, errors = await emulate(*arguments)
        assert (status, errors) == (0, "")
        assert summary["faults"].keys() == {"cut", "bad_crc", "duplicate", "unknown_codec"}
        wanted = recorded(*arguments)
        async with stored_at(gateway.socket) as stored:
            await assert_stored(stored, wanted)
            parked = [frame for ident, frame in await stored.parked() if ident in wanted]
            messages = [one for ident, all_of in (await stored.decoded()).items() if ident in wanted for one in all_of]
        assert len(parked) == summary["faults"]["unknown_codec"]
        assert any(message["position.valid"] is False and "position.latitude" in message for message in messages)
        assert any("position.latitude" not in message for message in messages)

    run(scenario())


def test_what_was_recorded_to_a_file_can_be_sent_again(run: Run, gateway: Gateway, tmp_path: Path) -> None:
    """The gateway acknowledges all of it again; the devices have each record once."""
    path = tmp_path / "sent"

    async def scenario() -> None:
        wanted = await drive(gateway, "--imei", first_imei(13), "--devices", "3", *FAST, "--record", str(path))
        status, summary, errors = await emulate("--to", f"127.0.0.1:{gateway.port}", "--replay", str(path))
        assert (status, errors) == (0, "")
        assert summary["acknowledged"] == sum(map(len, wanted.values()))
        async with stored_at(gateway.socket) as stored:
            await assert_stored(stored, wanted)
            assert of(await stored.channel(), wanted) == {ident: times * 2 for ident, times in wanted.items()}

    run(scenario())


def test_a_load_is_stored(run: Run, gateway: Gateway) -> None:
    async def scenario() -> None:
        load = ("--load", "pkt10", "--devices", "6", "--imei", first_imei(14), "--count", "100", "--processes", "2")
        status, summary, errors = await emulate("--to", f"127.0.0.1:{gateway.port}", *load)
        assert (status, errors) == (0, "")
        async with stored_at(gateway.socket) as stored:
            await stored.registered()
            channel = await stored.channel()
        imeis = [str(int(first_imei(14)) + number) for number in range(6)]
        times = {imei: channel[imei] for imei in imeis}
        assert_once(times, "the channel's messages")
        assert sum(map(len, times.values())) == summary["acknowledged"] >= 600

    run(scenario())


def test_tls_is_verified_unless_one_wants_it_otherwise(
    run: Run, make_gateway: Callable[..., Gateway], certificate: tuple[Path, Path]
) -> None:
    certificate_path, key_path = certificate
    port = free_port()
    gateway = make_gateway(
        channels={"listen": [f"ssl:{port}:{LOCAL}:privateKey={key_path}:certKey={certificate_path}"]}
    )

    async def scenario() -> None:
        await gateway.ready()
        to = ("--to", f"127.0.0.1:{port}", *FAST)
        status, _, errors = await emulate(*to, "--tls")
        assert (status, "certificate not trusted" in errors) == (2, True)
        trusted = (*to, "--imei", first_imei(1), "--ca", str(certificate_path))
        any_other = (*to, "--imei", first_imei(2), "--insecure", "--devices", "2")
        for arguments in (trusted, any_other):
            status, summary, errors = await emulate(*arguments)
            assert (status, errors, summary["waiting"]) == (0, "", 0)
            async with stored_at(gateway.socket) as stored:
                await assert_stored(stored, recorded(*arguments))

    run(scenario())


def test_rejected_idents_are_said_and_leave_nothing_behind(run: Run, make_gateway: Callable[..., Gateway]) -> None:
    """``unknown_ident = "reject"``: of two trackers the one that is a device is served, the other keeps trying."""
    known, unknown = first_imei(1), str(int(first_imei(1)) + 1)
    device = {"name": "van", "ident": known, "type": "FMB120"}
    gateway = make_gateway(channels={"unknown_ident": "reject"}, devices=device)

    async def scenario() -> None:
        await gateway.ready()
        to = ("--to", f"127.0.0.1:{gateway.port}", *FAST)
        single = await emulate(*to, "--imei", unknown)
        assert (single[0], single[2]) == (1, f"the gateway rejected the ident {unknown} (verdict 00)\n")
        both = (*to, "--imei", known, "--devices", "2")
        status, summary, errors = await emulate(*both)
        assert (status, errors) == (1, "the gateway rejected 1 of 2 idents (verdict 00)\n")
        assert (summary["rejected"], summary["acknowledged"]) == (1, 40)
        wanted = recorded(*both)
        async with stored_at(gateway.socket) as stored:
            await assert_stored(stored, {known: wanted[known]})
            assert unknown not in await stored.channel()

    run(scenario())
