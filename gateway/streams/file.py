"""Messages into a file: JSON lines, rotated by size."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, TypeVar

from msgspec import Meta

from gateway.errors import ItemError, RemoteUnavailable
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo, Target, Timeout
from gateway.stream.template import SHOWN, fixed_begin

MiB = 1024 * 1024
CUT_MOST = 1 * MiB
"""Bytes at the end of a file in which a line that was cut is looked for; a message has less."""
CLOSE_TIME = 2.0
"""Seconds that a close waits for a disk that does not answer; the file is closed when it does."""
T = TypeVar("T")


class File(Target):
    """A file of JSON lines on the gateway's machine, one message a line, in the order in which they came.

    A batch is delivered when it is synchronized to the disk. A file that would become larger than its bound is renamed
    to ``PATH.1``, that one to ``PATH.2``, and so on; one that was moved away is begun anew. Two streams cannot write to
    the same file, and none writes to a file that does not begin as a message does.
    """

    class Config(Options):
        """Where, and how much."""

        path: Annotated[
            str,
            Meta(
                min_length=2,
                max_length=1024,
                description="the file, with its whole path; its folder must exist; %ident% and the like are not "
                "replaced",
            ),
        ]
        rotate_mb: Annotated[int, Meta(ge=0, le=1_000_000, description="MiB of a file at most; 0: no bound")] = 100
        keep: Annotated[int, Meta(ge=1, le=1000, description="rotated files that are kept; the oldest goes first")] = 10
        synchronize: Annotated[bool, Meta(description="false: a power cut may take the last seconds")] = True
        timeout: Annotated[Timeout, Meta(description="seconds that the disk may take for a batch")] = 30.0

    id = 9
    title = "File"

    @classmethod
    def check(cls, config: Any) -> None:
        """Relative paths would depend on where the gateway was started; a mask would name a file nobody looks for."""
        path = Path(config.path)
        if not path.is_absolute() or not config.path.isprintable() or ".." in path.parts or config.path.endswith("/"):
            raise ItemError("should be a whole path, such as /var/lib/avl-gateway/messages.jsonl", "configuration.path")
        if fixed_begin(config.path) != config.path:
            raise ItemError(f"is the path of one file for all messages, without {SHOWN}", "configuration.path")

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream)
        self._lines: Lines | None = None
        self._thread: ThreadPoolExecutor | None = None
        """Its own: a disk that hangs takes this one, and none of those that all share. It does one thing at a time."""

    async def open(self) -> None:
        if self._lines is None:
            lines = Lines(Path(self.config.path), self.config)
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="file-stream")
            self._lines = lines
            await self._do(lines.open)

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        if self._lines is None:
            raise RemoteUnavailable(f"{self.config.path} is not open")
        await self._do(self._lines.write, b"".join(b"%b\n" % outgoing.text for outgoing in batch))
        return []

    async def close(self) -> None:
        """What is under way in the thread ends first, also if that takes longer than this."""
        lines, thread = self._lines, self._thread
        self._lines = self._thread = None
        if lines is None or thread is None:
            return
        closing = thread.submit(lines.close)
        thread.shutdown(wait=False)
        await asyncio.wait([asyncio.wrap_future(closing)], timeout=CLOSE_TIME)

    async def _do(self, what: Callable[..., T], *arguments: Any) -> T:
        try:
            async with asyncio.timeout(self.config.timeout):
                return await asyncio.get_running_loop().run_in_executor(self._thread, what, *arguments)
        except TimeoutError:
            raise RemoteUnavailable(
                f"{self.config.path}: the disk did not answer within {self.config.timeout:g} s"
            ) from None
        except OSError as error:
            raise RemoteUnavailable(f"{self.config.path}: {error.strerror or error}") from None


class Lines:
    """The file, as one thread writes it. Raises OSError."""

    def __init__(self, path: Path, config: Any) -> None:
        self._path = path
        self._config = config
        self._fd: int | None = None

    def open(self) -> None:
        """Ready to append, behind a whole line."""
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
        try:
            self._claim(fd)
            self._mend(fd)
            if self._config.synchronize:
                self._synchronize_folder()
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def close(self) -> None:
        """Harmless where it is not open."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):  # what was confirmed is synchronized
                os.close(fd)

    def write(self, data: bytes) -> None:
        """Append whole lines; they are on the disk afterwards, if they are synchronized."""
        fd = self._rotated(len(data))
        self._append(fd, data)
        if self._config.synchronize:
            os.fdatasync(fd)

    def _claim(self, fd: int) -> None:
        """Two that rotate the same file would lose what the other one writes."""
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "is not a regular file")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(0, "another stream, or another program, has locked it") from None
        if os.pread(fd, 1, 0) not in (b"", b"{"):  # such as Redis' append-only file, which would be spoiled
            raise OSError(0, "has something else than messages")

    def _mend(self, fd: int) -> None:
        """After a power cut the last line may be a part of one: it was not confirmed, and comes once more."""
        size = os.fstat(fd).st_size
        end = os.pread(fd, CUT_MOST, max(0, size - CUT_MOST))
        cut = end[end.rfind(b"\n") + 1 :]
        if cut.startswith(b"{") and len(cut) < CUT_MOST:
            os.ftruncate(fd, size - len(cut))
        elif cut:  # that is not ours
            os.write(fd, b"\n")

    def _append(self, fd: int, data: bytes) -> None:
        """All of it or nothing: a line that is cut by a full disk would spoil the next one."""
        size = os.fstat(fd).st_size
        written = 0
        try:
            while written < len(data):
                written += os.write(fd, data[written:])
        except OSError:
            os.ftruncate(fd, size)
            raise

    def _rotated(self, more: int) -> int:
        """The file to write to."""
        assert self._fd is not None
        now = os.fstat(self._fd)
        is_moved = not self._path.exists() or not os.path.samestat(os.stat(self._path), now)
        is_full = now.st_size > 0 and 0 < self._config.rotate_mb * MiB < now.st_size + more
        if is_full and not is_moved:
            self._shift()
        if is_full or is_moved:
            self.close()
            self.open()
        return self._fd

    def _shift(self) -> None:
        for number in range(self._config.keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _synchronize_folder(self) -> None:
        """Otherwise a power cut can take a new file's name, and with it the file."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
