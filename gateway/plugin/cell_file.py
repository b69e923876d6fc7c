"""A file of cells, read again when it changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from pathlib import Path

from twisted.logger import Logger

from gateway.plugin.base import PluginError
from gateway.plugin.cell_table import CellFileError, CellTable

LOOK_EVERY = 10.0
"""Seconds between two looks at the file; it is read when it looks the same twice, so not while it is written."""

Look = tuple[int, int, int]


class CellFile:
    """Holds the table; while it is read again, the one before it serves."""

    log = Logger()

    def __init__(self, path: Path, most: int, countries: Collection[int] = (), *, every: float = LOOK_EVERY) -> None:
        self._path = path
        self._most = most
        self._countries = countries
        self._every = every
        self._table: CellTable | None = None
        self.problem = ""
        """Why the last reading failed; empty where it did not."""
        self._is_tried = asyncio.Event()
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to read it, and to look after it."""
        if self._task is None:
            self._stop = threading.Event()
            self._task = asyncio.ensure_future(self._follow())

    async def close(self) -> None:
        """Forget it."""
        task, self._task, self._table = self._task, None, None
        if task is not None:
            self._stop.set()
            task.cancel()
            await asyncio.wait([task])
            self._is_tried.clear()

    async def table(self, seconds: float) -> CellTable:
        """The table; ``seconds`` to wait for the first reading at most. Raises PluginError."""
        self.open()
        try:
            async with asyncio.timeout(seconds):
                await self._is_tried.wait()
        except TimeoutError:
            raise PluginError(f"{self._path} is still being read") from None
        if self._table is None:
            raise PluginError(self.problem or f"{self._path} cannot be read")
        return self._table

    async def _follow(self) -> None:
        loaded, before = None, await asyncio.to_thread(self._look)
        while True:
            now = await asyncio.to_thread(self._look)
            if now == before and (now != loaded or not self._is_tried.is_set()):
                loaded = now
                await self._read()
            before = now
            await asyncio.sleep(self._every)

    def _look(self) -> Look | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    async def _read(self) -> None:
        try:
            self._table = await asyncio.to_thread(
                CellTable.read, self._path, self._most, self._countries, stop=self._stop
            )
            self.problem = ""
            if self._table.is_cut:
                self.log.warn(
                    "{path}: only the first {n} cells are taken (cells_most)", path=str(self._path), n=self._most
                )
        except CellFileError as error:
            self.problem = str(error)
            self.log.error("{problem}", problem=self.problem)
        finally:
            self._is_tried.set()
