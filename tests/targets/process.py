"""What the servers have in common: a process group on a free port, that is ready once it speaks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest

from tests.integration.processes import POLL, Process, free_port, is_running

__all__ = ["ServerProcess", "ended_with_test", "find_program", "free_port", "leave_out"]

SERVER_PATHS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/homebrew/bin")


def leave_out(reason: str) -> NoReturn:
    """The test cannot run here. In CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def find_program(name: str, *directories: str | Path) -> str:
    """Where the program is: in the directories, on the PATH or where servers are. Without it tests are left out."""
    path = os.pathsep.join([*map(str, directories), os.environ.get("PATH", ""), *SERVER_PATHS])
    program = shutil.which(name, path=path)
    if program is None:
        leave_out(f"{name} is not installed")
    return program


class ServerProcess(Process):
    """A server on ``port`` of 127.0.0.1 that can be started again with its data.

    ``start`` returns when it answers, ``stop`` when it has ended in order, ``kill`` when it is gone without a word.
    """

    start_seconds = 30.0
    stop_seconds = 30.0

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, environment: Mapping[str, Any] | None = None
    ) -> None:
        self.port = free_port()
        super().__init__(f"{name}-{self.port}", command, directory, environment)

    def start(self) -> None:
        """Start it and wait until it takes clients; its output tells why it did not."""
        super().start()
        try:
            self._wait_until(self.answers, "answers", self.start_seconds)
        except BaseException:  # also when interrupted: nobody else would end it
            self.kill()
            raise

    @property
    def is_running(self) -> bool:
        """Whether it was started and neither stopped nor killed since."""
        return self._popen is not None

    def answers(self) -> bool:
        """Whether it takes clients now."""
        return speaks(self.port)

    def stop(self) -> None:
        """SIGTERM: it says goodbye to its clients, and ends in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, for all that it started as well; harmless where it has ended."""
        if self._popen is None:
            return
        below = descendants(self.pid)
        super().kill()
        for pid in below:  # those of PostgreSQL and Erlang have sessions of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while any(map(is_running, below)):
            assert time.monotonic() < deadline, f"{self.name} leaves processes behind"
            time.sleep(POLL)

    def close(self) -> None:
        """Its end, whatever state it is in, and that of what it needs: when the test ends."""
        self.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _end(self, number: signal.Signals) -> None:
        if self._popen is not None:
            self.send(number)
            try:
                self._popen.wait(self.stop_seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} does not end: {self.said}") from None
            self._popen = None

    def _wait_until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            ended = self._popen is None or self._popen.poll() is not None
            assert not ended, f"{self.name} ended: {self.said}"
            assert time.monotonic() < deadline, f"{self.name}: not within {seconds:g} s: {what}: {self.said}"
            time.sleep(POLL)

    @property
    def said(self) -> str:
        """The end of its output."""
        return (self.stdout + self.stderr)[-2000:]


def descendants(pid: int) -> list[int]:
    """The processes below this one, at any depth."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def speaks(port: int, greeting: bytes = b"", reply: bytes = b"", skipped: int = 0) -> bool:
    """Whether the server on this port takes a connection and replies so to the greeting, after ``skipped`` bytes."""
    wanted = skipped + len(reply)
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.sendall(greeting)
            received = b""
            while len(received) < wanted and (data := client.recv(wanted - len(received))):
                received += data
            return received[skipped:] == reply
    except OSError:
        return False


@contextlib.contextmanager
def ended_with_test(servers: Iterable[ServerProcess]) -> Iterator[None]:
    """The servers, also those that are added meanwhile, end with the block."""
    try:
        yield
    finally:
        for server in servers:
            server.close()
