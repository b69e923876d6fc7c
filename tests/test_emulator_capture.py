"""What was sent as a file, the same sent again, and several processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.emulator.capture import TCP, UDP, Captured, Recording, Replay, read_capture
from gateway.emulator.tally import Tally
from gateway.errors import ConfigError
from gateway.protocols.teltonika.session import NEED_DATA, IdentReceived, PacketReceived, Session
from tests.builders import FrameFactory
from tests.test_emulator_command import emulate, start, to
from tests.tracker_server import Server, serving, serving_datagrams

Run = Callable[..., Any]
IMEI, OTHER = "352093081452251", "352093081452252"


def read(tmp_path: Path, *lines: str) -> list[Captured]:
    path = tmp_path / "capture.txt"
    path.write_text("\n".join(lines))
    return read_capture(path, IMEI)


def datas(captured: Captured) -> list[bytes]:
    return [packet.data for packet in captured.packets]


def test_what_was_recorded_reads_as_what_was_sent(tmp_path: Path) -> None:
    """Lines of several trackers may stand in any order: each has its IMEI."""
    one, other = FrameFactory(IMEI), FrameFactory(OTHER)
    path = tmp_path / "capture.txt"
    path.write_text("what was there before")
    sent = {IMEI: [one.packet(), one.packet(records=3)], OTHER: [other.packet(codec=0x10)]}
    with Recording(path) as recording, Recording(path, is_first=False) as of_another_process:
        recording(IMEI, one.login())
        of_another_process(OTHER, other.login())
        recording(IMEI, sent[IMEI][0])
        of_another_process(OTHER, sent[OTHER][0])
        recording(IMEI, one.ping)
        recording(IMEI, sent[IMEI][1])
    captured = read_capture(path, "000000000000000")
    assert {session.imei: datas(session) for session in captured} == sent
    assert [packet.count for packet in captured[0].packets] == [1, 3]
    assert path.read_text().splitlines()[0].endswith(f"Z {IMEI} {one.login().hex()}")


def test_plain_hexadecimal_is_enough(tmp_path: Path) -> None:
    """Frames before any login are the given tracker's; a frame may be cut into lines; case and spaces do not matter."""
    factory = FrameFactory(OTHER)
    first, second = factory.packet(), factory.packet(codec=0x8E)
    lines = [
        first.hex(" ").upper(),
        "",
        "# a login follows",
        factory.login().hex(),
        second[:20].hex(),
        second[20:].hex(),
    ]
    default, logged_in = read(tmp_path, *lines)
    assert (default.imei, default.transport, datas(default)) == (IMEI, TCP, [first])
    assert (logged_in.imei, datas(logged_in)) == (OTHER, [second])


def test_datagrams_are_known_by_their_bytes(tmp_path: Path) -> None:
    factory = FrameFactory(OTHER)
    data = factory.datagram(records=2)
    (captured,) = read(tmp_path, data.hex())
    assert (captured.imei, captured.transport, datas(captured)) == (OTHER, UDP, [data])
    assert captured.packets[0].count == 2


def test_what_no_server_acknowledges_is_not_waited_for(tmp_path: Path) -> None:
    """Responses to commands, and frames with a wrong CRC."""
    factory = FrameFactory(IMEI)
    (captured,) = read(tmp_path, factory.command().hex(), factory.packet(bad_crc=True).hex(), factory.packet().hex())
    assert [packet.count for packet in captured.packets] == [None, None, 1]


def test_a_login_ends_a_frame_that_was_cut(tmp_path: Path) -> None:
    factory = FrameFactory(IMEI)
    frame = factory.packet()
    (captured,) = read(tmp_path, factory.login().hex(), frame[:30].hex(), factory.login().hex(), frame.hex())
    assert datas(captured) == [frame]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["nothing"], r"capture.txt, line 1: not hexadecimal"),
        (["", "00000000ffffffff"], r"line 2: data field length above the limit"),
        (["abc"], r"line 1: non-hexadecimal"),
        (["000000000000001008"], f"capture.txt: the last frame of {IMEI} is not complete"),
        (["# only words"], "capture.txt: there is nothing in it"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path, lines: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read(tmp_path, *lines)


def test_files_that_cannot_be_opened_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_capture(tmp_path / "absent.txt", IMEI)
    with pytest.raises(ConfigError, match="cannot be written"):
        Recording(tmp_path / "absent" / "capture.txt")


def test_a_replay_that_is_stopped_sends_no_more(tmp_path: Path) -> None:
    factory, tally = FrameFactory(IMEI), Tally()
    (captured,) = read(tmp_path, *(factory.packet().hex() for _ in range(3)))
    replay = Replay(captured.packets, tally)
    replay.take()
    replay.finish()
    assert not replay.is_done
    replay.settle()
    assert (replay.is_done, tally.waiting) == (True, 2)


def test_a_captured_drive_is_sent_again_byte_for_byte(run: Run, tmp_path: Path) -> None:
    """By the command, over the transport on which it was captured, and the gateway's session reads it."""
    path = tmp_path / "capture.txt"

    async def scenario() -> None:
        async with serving(Server()) as server:
            arguments = ("--devices", "3", "--count", "4", "--speed-up", "50", "--codec", "16", "--record", str(path))
            assert (await emulate(*to(server), *arguments))[0] == 0
        async with serving(Server()) as again:
            status, out, errors = await emulate(*to(again), "--replay", str(path), "--quiet")
        assert (status, errors) == (0, "")
        assert sorted(again.logins) == sorted(server.logins)
        assert sorted(again.bodies) == sorted(server.bodies)
        assert "replay: 12 records made, 12 acknowledged" in out
        (captured, *_) = read_capture(path, IMEI)
        assert _read_by_a_session(captured) == 4

    run(scenario())


def _read_by_a_session(captured: Captured) -> int:
    session, count = Session(), 0
    session.receive_data(FrameFactory(captured.imei).login() + b"".join(datas(captured)))
    while (event := session.next_event()) is not NEED_DATA:
        if isinstance(event, IdentReceived):
            session.accept_ident()
        elif isinstance(event, PacketReceived):
            session.acknowledge(event.packet["count"])
            count += event.packet["count"]
    return count


def test_captured_datagrams_are_sent_as_datagrams(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "capture.txt"
    datagrams = [FrameFactory(OTHER).datagram(avl_packet_id=number) for number in range(3)]
    path.write_text("\n".join(data.hex() for data in datagrams))

    async def scenario() -> None:
        async with serving_datagrams(Server()) as server:
            assert (await emulate(*to(server), "--replay", str(path)))[0] == 0
        assert server.datagrams == datagrams

    run(scenario())


# Several processes


def test_processes_share_the_trackers(run: Run, tmp_path: Path) -> None:
    """The numbers are those of all of them, and so is the recording."""
    path = tmp_path / "capture.txt"

    async def scenario() -> None:
        async with serving(Server()) as server:
            arguments = ("--devices", "7", "--count", "3", "--speed-up", "50", "--processes", "3", "--json")
            status, out, errors = await emulate(*to(server), *arguments, "--record", str(path))
        assert (status, errors) == (0, "")
        total = json.loads(out.splitlines()[-1])["all"]
        assert (total["devices"], total["acknowledged"], len(server.logins)) == (7, 21, 7)
        assert len(path.read_text().splitlines()) >= 7 + 7

    run(scenario())


def test_processes_end_tidily_on_ctrl_c(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            process = await start(*to(server), "--devices", "4", "--processes", "2", "--interval", "0.05", "--quiet")
            await server.until(8, server.bodies)
            process.send_signal(signal.SIGINT)
            out, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
        assert b", 0 not acknowledged" in out

    run(scenario())


def test_processes_that_find_nobody_say_so_once(run: Run) -> None:
    async def scenario() -> None:
        status, _, errors = await emulate("--to", "127.0.0.1:1", "--devices", "4", "--processes", "2")
        assert (status, errors) == (2, "cannot connect to 127.0.0.1:1: connection refused\n")

    run(scenario())


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_cannot_be_built_is_one_line(run: Run, processes: str) -> None:
    async def scenario() -> None:
        status, _, errors = await emulate("--route", "nowhere", "--devices", "2", "--processes", processes)
        assert status == 2
        assert "nowhere" in errors
        assert "Traceback" not in errors

    run(scenario())


def test_a_killed_process_fails_the_run(run: Run) -> None:
    async def scenario() -> None:
        async with serving(Server()) as server:
            process = await start(*to(server), "--devices", "4", "--processes", "2", "--quiet")
            await server.until(4, server.bodies)
            os.kill(_last_child(process.pid), signal.SIGKILL)
            process.terminate()
            _, errors = await process.communicate()
        assert process.returncode == 1
        assert b"1 of 2 processes failed" in errors

    run(scenario())


def _last_child(pid: int) -> int:
    return max(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
