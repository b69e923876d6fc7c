"""The processes of a benchmark: started on free ports, looked at through ``/proc``, ended with the block."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).parent.parent
TWISTD = Path(sys.executable).parent / "twistd"
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

# No limit of Mosquitto's shall be what is measured: by default 20 messages are in flight, and beyond 1000 it drops.
MOSQUITTO_CONF = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 5000
max_queued_messages 0
set_tcp_nodelay true
log_dest none
"""


class NotStarted(Exception):
    """A process that a benchmark needs did not come up; the text has its output."""


@attrs.frozen
class Watched:
    """A running process, as ``/proc`` shows it."""

    pid: int

    @property
    def cpu_seconds(self) -> float:
        """User and system time, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    @property
    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    def until_idle(self, seconds: float, window: float = 1.0) -> None:
        """Wait until it takes less than a tenth of a core for a ``window``. Raises NotStarted after ``seconds``."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            before = self.cpu_seconds
            time.sleep(window)
            if self.cpu_seconds - before < 0.1 * window:
                return
        raise NotStarted(f"process {self.pid} was not idle within {seconds:.0f} s")

    def child(self, name: str) -> Watched | None:
        """The first child process, at any depth, whose command has this name."""
        for pid in _children(self.pid):
            if name in Path(f"/proc/{pid}/comm").read_text():
                return Watched(pid)
            if below := Watched(pid).child(name):
                return below
        return None


class CpuMeter:
    """CPU time of several processes since the meter was made."""

    def __init__(self, processes: dict[str, Watched]) -> None:
        self._processes = processes
        self._before = self._now()
        self._began = time.monotonic()

    def note(self, count: int) -> str:
        """Where the time went: microseconds of each process for each of ``count`` things.

        And, since a busy machine makes every figure worse, the share of one core that processes of nobody's took.
        """
        now = self._now()
        used = {name: seconds - self._before[name] for name, seconds in now.items()}
        foreign = used.pop("") / (time.monotonic() - self._began)
        each = ", ".join(f"{name} {seconds / max(1, count) * 1e6:.0f}" for name, seconds in used.items())
        return f"CPU us a record: {each}" + (f"; {foreign:.0%} of a core went elsewhere" if foreign > 0.1 else "")

    def _now(self) -> dict[str, float]:
        """CPU seconds by name; the empty name has those of processes that are neither watched nor this one."""
        own = time.process_time()
        seconds = {name: process.cpu_seconds for name, process in self._processes.items()}
        return seconds | {"": _busy_seconds() - own - sum(seconds.values())}


@attrs.frozen
class Gateway:
    """A gateway that is ready."""

    process: Watched
    tracker_address: tuple[str, int]
    data_dir: Path
    api_url: str

    @property
    def token(self) -> str:
        """The master token."""
        return (self.data_dir / "token").read_text().strip()

    def watched(self) -> dict[str, Watched]:
        """The gateway and its Redis."""
        redis = self.process.child("redis")
        return {"gateway": self.process} | ({"redis": redis} if redis else {})


@contextlib.contextmanager
def running_gateway(
    readers: bool = True,
    mqtt_port: int | None = None,
    telemetry: bool = False,
    plugin_folder: Path | None = None,
    workers: int = 1,
) -> Iterator[Gateway]:
    """The real gateway in a process of its own, with an empty data directory and embedded Redis.

    :param readers: False: neither registrar nor publisher runs, only what a tracker waits for
    :param mqtt_port: an external broker on this host; None: the gateway's embedded one
    :param plugin_folder: with types of plugins beside ours
    :param workers: processes that take connections, in all
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as data_dir:
        port, api_port = free_port(), free_port()
        conf = Path(data_dir) / "gateway.toml"
        mqtt = (mqtt_port or free_port(), mqtt_port is None)
        folders = str(plugin_folder or "")
        conf.write_text(_configuration(data_dir, port, api_port, readers, *mqtt, telemetry, folders, workers))
        command = [str(TWISTD), "--nodaemon", f"--pidfile={data_dir}/twistd.pid", "--python", str(ROOT / "twistd.tac")]
        with running(command, "gateway ready", {"GATEWAY_CONF": str(conf)}) as process:
            yield Gateway(process, ("127.0.0.1", port), Path(data_dir), f"http://127.0.0.1:{api_port}")


def _configuration(
    data_dir: str,
    port: int,
    api_port: int,
    readers: bool,
    mqtt_port: int,
    embedded: bool,
    telemetry: bool,
    folders: str,
    workers: int,
) -> str:
    local = "interface=127.0.0.1"
    broker = (
        f'url = "embedded"\nlisten = "tcp:{mqtt_port}:{local}"\nlisten_ws = "tcp:{free_port()}:{local}"'
        if embedded
        else f'url = "mqtt://127.0.0.1:{mqtt_port}"'
    )
    return f"""\
[gateway]
data_dir = "{data_dir}"
readers = {str(readers).lower()}
workers = {workers}
plugin_folders = "{folders}"
[mqtt]
{broker}
telemetry = {str(telemetry).lower()}
[api]
listen = "tcp:{api_port}:{local}"
[limits]
connections = 10000
connections_per_address = 10000
[[channels]]
name = "bench"
protocol = "teltonika"
listen = ["tcp:{port}:{local}"]
unknown_ident = "register"
"""


@contextlib.contextmanager
def running_mosquitto() -> Iterator[tuple[Watched, int]]:
    """Mosquitto without limits that would count, and its port."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise NotStarted("there is no mosquitto; on Debian or Ubuntu: apt-get install mosquitto")
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
        conf.write(MOSQUITTO_CONF.format(port=port))
        conf.flush()
        os.chmod(conf.name, 0o644)  # it gives up root, and reads this afterwards
        with running([binary, "-c", conf.name]) as process:
            _wait_for_port(port)
            yield process, port


class Reports:
    """The JSON lines that a child process writes; ``last`` is the newest."""

    def __init__(self, out: Any) -> None:
        self.last: dict[str, Any] = {}
        self.on_report: list[Callable[[dict[str, Any]], object]] = []
        """Each is called with every line, in a thread of its own."""
        self._changed = threading.Condition()
        threading.Thread(target=self._read, args=(out,), daemon=True).start()

    def wait_for(self, condition: Any, seconds: float) -> bool:
        """Wait until ``condition(last)`` holds; False when it does not within ``seconds``."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: self.last and condition(self.last), seconds))

    def _read(self, out: Any) -> None:
        for line in out:
            with self._changed:
                self.last = json.loads(line)
                for told in self.on_report:
                    told(self.last)
                self._changed.notify_all()


@contextlib.contextmanager
def running_subscriber(port: int, topics: Sequence[str], has_lags: bool = False) -> Iterator[tuple[Watched, Reports]]:
    """``bench.subscriber`` on these topics of the broker at ``port``, subscribed; ``has_lags``: it tells each lag."""
    options = ["--lags"] if has_lags else []
    command = [sys.executable, "-m", "bench.subscriber", "--to", f"127.0.0.1:{port}", *options, *topics]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            reports = Reports(process.stdout)
            if not reports.wait_for(lambda last: True, 10):
                raise NotStarted("the subscriber did not subscribe")
            yield Watched(process.pid), reports
        finally:
            process.terminate()


@contextlib.contextmanager
def running(
    command: Sequence[str], ready: str | None = None, environment: dict[str, str] | None = None, seconds: float = 30
) -> Iterator[Watched]:
    """``command`` as a child process, once its output has a line with ``ready``.

    :raises NotStarted: when it ends or stays silent for ``seconds``
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        if ready is not None:
            _wait_for_line(process, ready, seconds)
        yield Watched(process.pid)
    finally:
        _end(process)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _wait_for_line(process: subprocess.Popen[str], ready: str, seconds: float) -> None:
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True).start()
    seen: list[str] = []
    until = time.monotonic() + seconds
    with contextlib.suppress(queue.Empty):
        while (line := lines.get(timeout=max(0.0, until - time.monotonic()))) is not None:
            seen.append(line)
            if ready in line:
                return
    raise NotStarted(f"no {ready!r} from {' '.join(map(str, process.args))}:\n{''.join(seen)}")  # type: ignore[arg-type]


def _read_lines(out: Any, lines: queue.Queue[str | None]) -> None:
    """Reads to the end, so that a process that goes on talking never waits for a full pipe."""
    for line in out:
        lines.put(line)
    lines.put(None)


def _wait_for_port(port: int, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise NotStarted(f"nothing listens on port {port}")


def _busy_seconds() -> float:
    """CPU time of everything on this machine since it was started."""
    user, nice, system, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return (int(user) + int(nice) + int(system)) / _TICKS


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
