"""Prebuilt packets on many connections."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest

from gateway.emulator.__main__ import main
from gateway.emulator.storm import LoginRejected, Trackers
from gateway.emulator.tape import SHAPES, Shape, Tape
from gateway.protocols.teltonika.frame import body_of, has_good_crc
from gateway.protocols.teltonika.wire import CODEC_16, decode_packet, encode_packet
from tests.test_emulator_command import emulate, to
from tests.tracker_server import Server, serving

Run = Callable[..., Any]


@pytest.mark.parametrize("shape", [*SHAPES.values(), Shape(CODEC_16, 3, SHAPES["pkt10"].groups)])
def test_a_packet_that_was_written_over_is_what_the_grammar_builds(shape: Shape) -> None:
    tape = Tape(shape, begin_ms=1_700_000_000_000)
    tape.prepare(4)
    for frame in islice(tape.packets, 4):
        assert has_good_crc(frame)
        packet = decode_packet(body_of(frame))
        assert encode_packet(packet) == body_of(frame)
        assert packet["count"] == shape.records


def test_a_load_is_acknowledged_packet_by_packet(run: Run) -> None:
    """Each connection sends its next packet after the acknowledgement; the records of one rise in time."""

    async def scenario() -> None:
        async with serving(Server()) as server:
            arguments = ("--load", "pkt10", "--devices", "4", "--count", "50", "--json")
            status, out, errors = await emulate(*to(server), *arguments)
        assert (status, errors) == (0, "")
        total = json.loads(out.splitlines()[-1])["all"]
        assert total["acknowledged"] == len(server.timestamps) == 200
        assert len(set(server.timestamps)) == 50
        assert len(set(server.logins)) == 4

    run(scenario())


def test_processes_share_a_load(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            arguments = ("--load", "pkt1", "--devices", "3", "--processes", "2", "--rate", "200", "--duration", "0.5")
            status, out, errors = await emulate(*to(server), *arguments, "--quiet")
        assert (status, errors) == (0, "")
        assert len(set(server.logins)) == 3
        assert 60 <= len(server.timestamps) <= 130
        assert f"pkt1: {len(server.timestamps)} records made, {len(server.timestamps)} acknowledged" in out

    run(scenario())


def test_a_rejected_load_exits_1_and_an_absent_server_2(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server(verdict=b"\x00")) as server:
            status, _, errors = await emulate(*to(server), "--load", "pkt1", "--devices", "2")
        assert (status, errors) == (1, "the gateway rejected 2 of 2 idents (verdict 00)\n")
        status, _, errors = await emulate("--to", "127.0.0.1:1", "--load", "pkt1")
        assert (status, errors) == (2, "cannot connect to 127.0.0.1:1: connection refused\n")

    run(scenario())


def test_a_server_that_closes_is_noticed(run: Run) -> None:
    """The connections are counted as lost, and their packets as not acknowledged."""

    async def scenario() -> None:
        async with serving(Server(script=["close"])) as server:
            status, out, _ = await emulate(*to(server), "--load", "pkt1", "--quiet")
        assert status == 1
        assert "1 record made, 0 acknowledged, 1 not acknowledged" in out

    run(scenario())


def test_login_rejected_is_a_refused_connection() -> None:
    assert issubclass(LoginRejected, ConnectionRefusedError)
    with pytest.raises(ConnectionRefusedError):
        Trackers(("127.0.0.1", 1), 1)


def test_what_does_not_go_with_a_load_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--load", "pkt1", "--udp"])
    assert "--udp does not go with --load" in capsys.readouterr().err
