"""Real processes on free ports, their output in files; whoever starts one owns its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.processes import Watched
from gateway.store.embedded import find_redis_server

ROOT = Path(__file__).parent.parent.parent
TWISTD = Path(sys.executable).parent / "twistd"
TAC = ROOT / "twistd.tac"
LOCAL = "interface=127.0.0.1"
POLL = 0.02
"""Seconds between two looks at another process, which gives no event to wait for."""
LISTEN_PORTS = range(15_000, 32_000)
"""Below those that the system gives to outgoing connections: a tracker that retries must never meet itself."""

Section = Mapping[str, Any]


def free_port() -> int:
    """A port on which nobody listens, neither TCP nor UDP."""
    while True:
        port = random.choice(LISTEN_PORTS)
        with contextlib.suppress(OSError), socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port


async def until(condition: Callable[[], Any], what: str, timeout: float = 10) -> Any:
    """Wait for ``condition``, of which no event tells, and give its value."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        await asyncio.sleep(POLL)
    return value


def is_running(pid: int) -> bool:
    """Whether the process exists and is not merely waiting for its parent to notice its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes_of(data_dir: Path) -> list[int]:
    """Those with the directory in their command line: its redis-server."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(data_dir) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def freeze(pid: int) -> None:
    """Have the process stand still; SIGCONT has it go on. The signal alone does not wait for all threads."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 5
    while not all(_state(path) in "TtZ" for path in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, f"process {pid} does not stop"
        time.sleep(0.001)


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"  # it has ended meanwhile


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process stands still."""
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Process:
    """A program that can be started, and started again; both outputs go to files in ``directory``."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, environment: Section | None = None) -> None:
        self.name = name
        self.command = list(command)
        self.directory = directory
        ours = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self.environment = {**ours, **(environment or {})}
        self.options: dict[str, Any] = {}
        """More for ``Popen``, as the user to run as."""
        self._popen: subprocess.Popen[bytes] | None = None
        self._starts = 0

    @property
    def stdout_path(self) -> Path:
        return self.directory / f"{self.name}-{self._starts}.out"

    @property
    def stderr_path(self) -> Path:
        return self.directory / f"{self.name}-{self._starts}.err"

    @property
    def pid(self) -> int:
        assert self._popen is not None, f"{self.name} was not started"
        return self._popen.pid

    @property
    def stdout(self) -> str:
        """What it wrote since it was started last."""
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")

    def outputs(self) -> list[Path]:
        """The files of every start, in order."""
        ordinals = range(1, self._starts + 1)
        return [self.directory / f"{self.name}-{n}.{kind}" for n in ordinals for kind in ("out", "err")]

    def start(self) -> None:
        """Start it; what it needs to become ready is for its own class to know."""
        assert self._popen is None, f"{self.name} runs already"
        self._starts += 1
        with self.stdout_path.open("wb") as out, self.stderr_path.open("wb") as err:
            self._popen = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                **self.options,
            )

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        os.kill(self.pid, number)

    async def ended(self, timeout: float = 15) -> int:
        """Wait for its end; its exit status."""
        popen = self._popen
        assert popen is not None
        await until(lambda: popen.poll() is not None, f"{self.name} ends", timeout)
        self._popen = None
        return int(popen.returncode)

    async def says(self, text: str, timeout: float = 15, times: int = 1) -> list[str]:
        """Wait until ``times`` lines of the output have ``text``; gives them. Fails when the process ends before."""

        def lines() -> list[str]:
            ended = self._popen is None or self._popen.poll() is not None
            found = [line for line in (self.stdout + self.stderr).splitlines() if text in line]
            assert len(found) >= times or not ended, f"{self.name} ended and never said {text!r}"
            return found if len(found) >= times else []

        found: list[str] = await until(lines, f"{self.name} says {text!r}", timeout)
        return found

    def kill(self) -> None:
        """SIGKILL, and wait for the end; harmless where it has ended. A stopped process dies of it too."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait(10)
            self._popen = None


class RedisServer(Process):
    """The redis-server of the embedded Redis as an external one: on a TCP port, append-only file on, killable."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        data = directory / f"redis-{self.port}"
        data.mkdir()
        super().__init__(
            f"redis-{self.port}",
            [
                *(find_redis_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(data)),
                *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            ],
            directory,
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


class Gateway(Process):
    """The gateway with a data directory and ports of its own. ``sections`` are added to its settings."""

    def __init__(self, directory: Path, **sections: Any) -> None:
        self.port, self.mqtt_port, self.api_port = free_port(), free_port(), free_port()
        self.data_dir = directory / "var"
        self.conf = directory / "gateway.toml"
        self.conf.write_text(_toml(self._settings(sections)))
        command = [str(TWISTD), "--nodaemon", "--pidfile=", "--python", str(TAC)]
        super().__init__("gateway", command, directory, {"GATEWAY_CONF": str(self.conf)})

    def _settings(self, sections: Section) -> dict[str, Any]:
        listen = [f"tcp:{self.port}:{LOCAL}", f"udp:{self.port}:{LOCAL}"]
        settings: dict[str, Any] = {
            "gateway": {"data_dir": str(self.data_dir)},
            "mqtt": {"listen": f"tcp:{self.mqtt_port}:{LOCAL}", "listen_ws": f"tcp:{free_port()}:{LOCAL}"},
            "api": {"listen": f"tcp:{self.api_port}:{LOCAL}"},
            "channels": {"name": "trackers", "listen": listen, "unknown_ident": "register"},
        }
        for name, values in sections.items():
            settings[name] = {**settings.get(name, {}), **values}
        return settings

    @property
    def socket(self) -> str:
        """Where the embedded Redis listens."""
        return f"unix://{self.data_dir / 'redis' / 'redis.sock'}"

    @property
    def api_url(self) -> str:
        """Where the REST API is."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def token(self) -> str:
        return (self.data_dir / "token").read_text().strip()

    @property
    def log(self) -> list[str]:
        """The lines logged since the last start."""
        return self.stderr.splitlines()

    async def ready(self, timeout: float = 20) -> None:
        """Start it and wait until it takes what trackers send."""
        self.start()
        await self.says("gateway ready", timeout)

    def redis_pid(self) -> int:
        """The process of the embedded Redis."""
        child = Watched(self.pid).child("redis-server")
        assert child is not None, "there is no embedded Redis"
        return child.pid

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it in order; the exit status."""
        self.send(number)
        return await self.ended(30)


def _toml(settings: Section) -> str:
    """Strings, numbers, booleans and lists are written in TOML as in JSON."""
    lines = []
    for name, values in settings.items():
        lines.append(f"[[{name}]]" if name in ("channels", "devices") else f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
