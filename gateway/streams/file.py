"""Messages into a file: JSON lines, rotated by size."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from gateway.errors import ItemError, RemoteUnavailable
from gateway.stream.target import Options, Outgoing, Rejection, StreamInfo, Target

MiB = 1024 * 1024


class File(Target):
    """A file of JSON lines on the gateway's machine, one message a line, in the order in which they came.

    A batch is delivered when it is synchronized to the disk. A file that would become larger than its bound is renamed
    to ``PATH.1``, that one to ``PATH.2``, and so on.
    """

    class Config(Options):
        """Where, and how much."""

        path: Annotated[
            str,
            Meta(min_length=2, max_length=1024, description="the file, with its whole path; its folder must exist"),
        ]
        rotate_mb: Annotated[int, Meta(ge=0, le=1_000_000, description="MiB of a file at most; 0: no bound")] = 100
        keep: Annotated[int, Meta(ge=1, le=1000, description="rotated files that are kept; the oldest goes first")] = 10
        synchronize: Annotated[bool, Meta(description="false: a power cut may take the last seconds")] = True

    id = 9
    title = "File"

    @classmethod
    def check(cls, config: Any) -> None:
        """Relative paths would depend on where the gateway was started."""
        path = Path(config.path)
        if not path.is_absolute() or not config.path.isprintable() or ".." in path.parts:
            raise ItemError("should be a whole path, such as /var/lib/avl-gateway/messages.jsonl", "configuration.path")

    def __init__(self, config: Any, stream: StreamInfo) -> None:
        super().__init__(config, stream)
        self._path = Path(config.path)
        self._fd: int | None = None
        self._lock = asyncio.Lock()
        """A write that was cancelled goes on in its thread."""

    async def open(self) -> None:
        async with self._lock:
            if self._fd is None:
                self._fd = await asyncio.to_thread(self._opened)

    async def close(self) -> None:
        async with self._lock:
            fd, self._fd = self._fd, None
            if fd is not None:
                await asyncio.to_thread(os.close, fd)

    async def deliver(self, batch: Sequence[Outgoing]) -> Sequence[Rejection]:
        data = b"".join(b"%b\n" % outgoing.text for outgoing in batch)
        async with self._lock:
            writing = asyncio.ensure_future(asyncio.to_thread(self._write, data))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.wait([writing])
                raise
        return []

    def _opened(self) -> int:
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise RemoteUnavailable(f"{self._path}: {error.strerror}") from None

    def _write(self, data: bytes) -> None:
        try:
            self._rotate(len(data))
            assert self._fd is not None
            size = os.fstat(self._fd).st_size
            self._append(data, size)
            if self.config.synchronize:
                os.fdatasync(self._fd)
        except OSError as error:
            raise RemoteUnavailable(f"{self._path}: {error.strerror}") from None

    def _append(self, data: bytes, size: int) -> None:
        """All of it or nothing: a line that is cut by a full disk would spoil the next one."""
        assert self._fd is not None
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            os.ftruncate(self._fd, size)
            raise

    def _rotate(self, more: int) -> None:
        assert self._fd is not None
        size = os.fstat(self._fd).st_size
        is_moved = not self._path.exists() or not os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        is_full = size > 0 and 0 < self.config.rotate_mb * MiB < size + more
        if not is_full and not is_moved:
            return
        if is_full and not is_moved:
            for number in range(self.config.keep - 1, 0, -1):
                older = self._numbered(number)
                if older.exists():
                    older.replace(self._numbered(number + 1))
            self._path.replace(self._numbered(1))
        os.close(self._fd)
        self._fd = None
        self._fd = self._opened()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
