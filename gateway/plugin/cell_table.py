"""A table of cells in memory, as OpenCellID exports it: where each is, by its numbers.

A row of the file is ``radio,mcc,net,area,cell,unit,lon,lat,range,...``, with or without a head; a name that ends in
``.gz`` means that it is compressed. A cell takes 18 bytes; with what arrays need to grow, a million takes 26 MB. It is
read in some 2.5 s by another thread, while the gateway goes on (14 ms late at worst). The cells lie in many short
sorted arrays, because the sort of a long one would keep all other threads waiting for as long as it takes.
"""

from __future__ import annotations

import gzip
import stat
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from attrs import frozen

from gateway.errors import GatewayError

PARTS = 4096
BLOCK = 64 * 1024
"""Characters that are read at once."""
LINE_MOST = 1024
ROWS_OF_A_TURN = 2000
"""Rows after which other threads have their turn, a few ms."""
RANGE_MOST = 65_535
"""Meters that two bytes hold."""
COLUMNS = 9


class CellFileError(GatewayError):
    """The file cannot be read, or has no cells."""


class _Unreadable(Exception):
    """What is wrong with the file, behind its name."""


@frozen
class Place:
    """``range`` in meters; 0 where it is not known."""

    latitude: float
    longitude: float
    range: int


class _Part:
    """Cells with the same remainder of their key."""

    __slots__ = ("keys", "latitudes", "longitudes", "ranges")

    def __init__(self) -> None:
        self.keys = array("Q")
        self.latitudes = array("f")  # to 2 m
        self.longitudes = array("f")
        self.ranges = array("H")

    def sort(self) -> None:
        """By key, so that it can be searched."""
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        self.keys = array("Q", [self.keys[at] for at in order])
        self.latitudes = array("f", [self.latitudes[at] for at in order])
        self.longitudes = array("f", [self.longitudes[at] for at in order])
        self.ranges = array("H", [self.ranges[at] for at in order])


class CellTable:
    """:meth:`read` makes one, in a thread."""

    def __init__(self) -> None:
        self._parts = [_Part() for _ in range(PARTS)]
        self.count = 0
        self.is_cut = False
        """Whether the file has more cells than were to be taken."""

    @classmethod
    def read(
        cls, path: Path, most: int, countries: Collection[int] = (), *, stop: threading.Event | None = None
    ) -> CellTable:
        """``most`` cells at most, of these countries (MCC), or of all; not to the end when ``stop`` is set.

        Raises CellFileError.
        """
        table = cls()
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise CellFileError(f"{path} should be a file of cells")
            with _opened(path) as file:
                table._fill(_lines(file), most, frozenset(countries), stop or threading.Event())
        except _Unreadable as error:
            raise CellFileError(f"{path} {error}") from None
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise CellFileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        if not table.count:
            raise CellFileError(f"{path} has no cells: rows of radio,mcc,net,area,cell,unit,lon,lat,range,...")
        for part in table._parts:
            part.sort()
        return table

    def find(self, mcc: int, mnc: int, lac: int, cid: int) -> Place | None:
        """Where it is."""
        key = _key(mcc, mnc, lac, cid)
        part = self._parts[key % PARTS]
        at = bisect_left(part.keys, key)
        if at == len(part.keys) or part.keys[at] != key:
            return None
        return Place(round(part.latitudes[at], 5), round(part.longitudes[at], 5), part.ranges[at])

    def _fill(self, lines: Iterator[str], most: int, countries: frozenset[int], stop: threading.Event) -> None:
        for number, line in enumerate(lines):
            if number % ROWS_OF_A_TURN == 0:
                time.sleep(0)
                if stop.is_set():
                    raise _Unreadable("was not read to its end")
            if self.count >= most:
                self.is_cut = True
                return
            self._add(line.split(",", COLUMNS), countries)

    def _add(self, row: list[str], countries: frozenset[int]) -> None:
        try:
            mcc, mnc, lac, cid = int(row[1]), int(row[2]), int(row[3]), int(row[4])
            longitude, latitude, meters = float(row[6]), float(row[7]), float(row[8])
        except (ValueError, IndexError):  # the head, or a row that is broken
            return
        if countries and mcc not in countries:
            return
        is_cell = 0 <= mcc <= 999 and 0 <= mnc <= 999 and 0 <= lac <= 65_535 and 0 <= cid < 2**28
        if not (is_cell and -90 <= latitude <= 90 and -180 <= longitude <= 180 and 0 <= meters < 1e9):
            return
        key = _key(mcc, mnc, lac, cid)
        part = self._parts[key % PARTS]
        part.keys.append(key)
        part.latitudes.append(latitude)
        part.longitudes.append(longitude)
        part.ranges.append(min(round(meters), RANGE_MOST))
        self.count += 1


def _key(mcc: int, mnc: int, lac: int, cid: int) -> int:
    """64 bits: 20, 16 and 28."""
    return (mcc * 1000 + mnc) << 44 | lac << 28 | cid


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="ascii", errors="replace")
    return path.open(encoding="ascii", errors="replace")


def _lines(file: IO[str]) -> Iterator[str]:
    """Without its own iteration, which would read a line of any length."""
    rest = ""
    while block := file.read(BLOCK):
        *lines, rest = (rest + block).split("\n")
        yield from lines
        if len(rest) > LINE_MOST:
            raise _Unreadable(f"has a line of more than {LINE_MOST} characters: that is no table of cells")
    yield rest
