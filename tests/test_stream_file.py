"""Streams into a file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import stat
import threading
from pathlib import Path

import pytest

from gateway.errors import ItemError, RemoteUnavailable
from gateway.store.event_codes import EventCode
from gateway.stream.target import Outgoing, StreamInfo
from gateway.streams.file import CUT_MOST, File
from tests.stream_conformance import Kit, StreamConformance
from tests.streaming import numbers


class FileKit(Kit):
    """A folder that is moved away is a target that is down, also for root. Writes fail at a limit of the process'
    files, with the error of a write to a full disk in all but its number. No real disk can be slowed down: what is
    replaced for that is the last call, which waits for the disk."""

    protocol = "file"

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.away = directory / "target", directory / "away"
        self.path = self.folder / "messages.jsonl"
        self._passes = threading.Event()
        self._patch = patch
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def start(self):
        self.folder.mkdir()
        self._passes.set()
        synchronize = os.fdatasync

        def wait(fd: int) -> None:
            if os.readlink(f"/proc/self/fd/{fd}") == str(self.path):
                assert self._passes.wait(60)
            synchronize(fd)

        self._patch.setattr(os, "fdatasync", wait)

    async def close(self):
        self._passes.set()
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)

    def configuration(self):
        return {"path": str(self.path)}

    async def received(self):
        folder = self.folder if self.folder.exists() else self.away
        paths = sorted(folder.glob("messages.jsonl*"), key=lambda path: -int(path.suffix[1:].replace("jsonl", "0")))
        return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]

    async def go_down(self):
        if self.folder.exists():
            self.folder.rename(self.away)

    async def come_up(self):
        self.away.rename(self.folder)

    async def hold(self):
        self._passes.clear()

    async def release(self):
        self._passes.set()

    async def refuse_all(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, self._limits[1]))

    async def take_again(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)


class TestFile(StreamConformance):
    @pytest.fixture
    def kit(self, tmp_path, monkeypatch):
        return FileKit(tmp_path, monkeypatch)

    def test_a_file_that_was_moved_by_logrotate_is_begun_anew(self, run, kit, carrier):
        async def check() -> None:
            await carrier.stream("file", kit.configuration())
            await carrier.receive({"n": 0})
            await self.arrived(kit, carrier, 1)
            kit.path.rename(kit.folder / "messages.jsonl.1")
            await carrier.receive({"n": 1})
            assert numbers(await self.arrived(kit, carrier, 2)) == [0, 1]
            assert kit.path.read_bytes().count(b"\n") == 1

        run(check())

    def test_of_two_streams_to_one_file_the_second_says_why_it_fails(self, run, kit, carrier):
        """Until the first one lets it go."""

        async def check() -> None:
            first = await carrier.stream("file", kit.configuration())
            await carrier.until(lambda: carrier.state(first).is_connected, "the first one has it")
            second = await carrier.stream("file", kit.configuration())
            await carrier.until(lambda: carrier.told(EventCode.STREAM_FAILED, second), "the second one fails")
            assert "has locked it" in carrier.state(second).error
            await carrier.receive({"n": 0})
            assert len(await self.arrived(kit, carrier, 1)) == 1
            await carrier.items.delete_other("streams", first.id)
            await carrier.until(lambda: carrier.state(second).counters.delivered == 1, "the second one has it")

        run(check())

    def test_a_disk_that_does_not_answer_is_told_and_gets_nothing_else_meanwhile(self, run, kit, carrier):
        """What hangs may still be written: what came between its lines would be cut."""

        async def check() -> None:
            await kit.hold()
            stream = await carrier.stream("file", {**kit.configuration(), "timeout": 0.1})
            await carrier.receive({"n": 0})
            await carrier.until(lambda: "did not answer within 0.1 s" in str(carrier.events), "it is told")
            await carrier.until(lambda: "has locked it" in str(carrier.events), "the first write has it yet")
            await kit.release()
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 1, "it is delivered")
            assert set(numbers(await kit.received())) == {0}

        run(check())


def made(path: Path, **options: object) -> File:
    return File(File.Config(path=str(path), **options), StreamInfo(1, "file"))


def batch(*ns: int, size: int = 0) -> list[Outgoing]:
    return [Outgoing(b'{"n":%d,"text":"%b"}' % (n, b"x" * size), "1") for n in ns]


def lines(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def test_files_are_rotated_by_size_and_the_oldest_goes(run, tmp_path):
    path = tmp_path / "m.jsonl"

    async def check() -> None:
        file = made(path, rotate_mb=1, keep=2)
        await file.open()
        for n in range(5):
            await file.deliver(batch(n, size=600_000))
        await file.close()

    run(check())
    assert [lines(tmp_path / name) for name in ("m.jsonl", "m.jsonl.1", "m.jsonl.2")] == [[4], [3], [2]]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_batch_that_is_larger_than_a_file_may_be_has_one_for_itself(run, tmp_path):
    path = tmp_path / "m.jsonl"

    async def check() -> None:
        file = made(path, rotate_mb=1)
        await file.open()
        await file.deliver(batch(0))
        await file.deliver(batch(1, 2, size=700_000))
        await file.close()

    run(check())
    assert (lines(path), lines(tmp_path / "m.jsonl.1")) == ([1, 2], [0])


def test_others_cannot_read_what_it_writes(run, tmp_path):
    """The group may."""
    path = tmp_path / "m.jsonl"

    async def check() -> None:
        file = made(path)
        await file.open()
        await file.close()

    before = os.umask(0)
    try:
        run(check())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@contextlib.contextmanager
def full_disk(size: int):
    """No file of the process becomes larger; the first bytes of a write fit."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_no_part_of_a_line(run, tmp_path):
    path = tmp_path / "m.jsonl"

    async def check() -> None:
        file = made(path)
        await file.open()
        await file.deliver(batch(0))
        with full_disk(path.stat().st_size + 30), pytest.raises(RemoteUnavailable, match="too large"):
            await file.deliver(batch(1, 2, 3))
        assert lines(path) == [0]
        await file.deliver(batch(1, 2, 3))
        await file.close()

    run(check())
    assert lines(path) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (b"", b""),
        (b'{"n":0}\n{"n":1,"te', b'{"n":0}\n'),
        (b'{"n"', b""),
        (b'{"n":0}\n# by hand', b'{"n":0}\n# by hand\n'),
        (b'{"n":0}\n', b'{"n":0}\n'),
        (b"{" + b"x" * CUT_MOST, b"{" + b"x" * CUT_MOST + b"\n"),
    ],
)
def test_what_a_power_cut_left_of_a_line_does_not_spoil_the_next_one(run, tmp_path, found, left):
    path = tmp_path / "m.jsonl"
    path.write_bytes(found)

    async def check() -> None:
        file = made(path)
        await file.open()
        await file.close()

    run(check())
    assert path.read_bytes() == left


@pytest.mark.parametrize("found", [b"*2\r\n$6\r\nSELECT\r\n", b"zOytMCePhG5CzIpKR1vv\n", b"[gateway]\n", b"\0"])
def test_a_file_of_others_is_left_as_it_is(run, tmp_path, found):
    """Such as the gateway's own, to which a path may lead by mistake or by intent."""
    path = tmp_path / "appendonly.aof"
    path.write_bytes(found)

    async def check() -> None:
        file = made(path)
        with pytest.raises(RemoteUnavailable, match=r"appendonly\.aof: has something else than messages"):
            await file.open()
        await file.close()

    run(check())
    assert path.read_bytes() == found


def test_what_is_no_file_is_not_written_to(run, tmp_path):
    """Opening a pipe would wait for its reader."""
    os.mkfifo(tmp_path / "pipe")

    async def check() -> None:
        for path, reason in [
            (tmp_path / "pipe", "not a regular file"),
            (Path("/dev/full"), "not a regular file"),
            (tmp_path, "directory"),
            (tmp_path / "none" / "m.jsonl", "No such file"),
            (Path(__file__) / "m.jsonl", "Not a directory"),
        ]:
            file = made(path)
            with pytest.raises(RemoteUnavailable, match=reason):
                await file.open()
            await file.close()
            await file.close()

    run(check(), 10)


def test_nothing_is_left_running_when_it_is_closed(run, tmp_path):
    async def check() -> None:
        file = made(tmp_path / "m.jsonl")
        await file.close()
        await file.open()
        await file.deliver(batch(0))
        await file.close()
        async with asyncio.timeout(5):
            while any(thread.name.startswith("file-stream") for thread in threading.enumerate()):
                await asyncio.sleep(0.01)
        with pytest.raises(RemoteUnavailable, match="not open"):
            await file.deliver(batch(1))

    run(check())
    assert lines(tmp_path / "m.jsonl") == [0]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("messages.jsonl", "whole path"),
        ("/var/../etc/x", "whole path"),
        ("/var/x/", "whole path"),
        ("/var/a\nb", "whole path"),
        ("/var/%ident%.jsonl", "without %ident%"),
    ],
)
def test_paths_that_cannot_be_are_refused(path, reason):
    with pytest.raises(ItemError, match=reason) as refused:
        File.check(File.Config(path=path))
    assert refused.value.field == "configuration.path"
