"""What messages say of cells and access points, and the file of cells."""

from __future__ import annotations

import asyncio
import gzip
import os
import threading
from pathlib import Path

import pytest

from gateway.plugin import PluginError
from gateway.plugin.cell_file import CellFile
from gateway.plugin.cell_table import CellFileError, CellTable, Place
from gateway.plugin.cells import CELLS_MOST, POINTS_MOST, AccessPoint, Cell, Heard, heard
from tests.plugin_examples import CELLS

SERVING = {"gsm.mcc": 246, "gsm.mnc": 1, "gsm.lac": 20, "gsm.cellid": 4001, "gsm.signal.dbm": 71}
ROW = "GSM,246,1,20,{cell},0,25.3,54.7,1000,1,1,1,1,0\n"


def test_the_serving_cell_comes_first_and_neighbors_share_its_network():
    """As Teltonika's asset trackers send them; a level without its sign is one below zero."""
    message = SERVING | {
        "gsm.cellid.1": 11, "gsm.lac.1": 20, "gsm.signal.dbm.1": -80,
        "gsm.cellid.2": 12, "gsm.lac.2": 21, "gsm.mnc.2": 5,
        "gsm.cellid.3": 13,
        "gsm.network.type": "4G",
    }  # fmt: skip
    found = heard(message)
    assert found == Heard("lte", (Cell(246, 1, 20, 4001), Cell(246, 1, 20, 11), Cell(246, 5, 21, 12)))
    assert [cell.signal for cell in found.cells] == [-71, -80, None]


def test_cells_and_points_can_be_arrays():
    """Of objects with the same names."""
    message = {
        "gsm.cells": [SERVING["gsm.lac"], {"mcc": 246, "mnc": 2, "lac": 7, "cellid": 8, "signal.dbm": -90}],
        "wifi.access.points": [
            {"mac.address": "d897bac2f05a"},
            {"mac.address": "00-17-C5-CD-CA-AA", "signal.dbm": -51},
            *({"mac.address": wrong} for wrong in (None, 5, "", "00:17:c5", "00:00:00:00:00:00", [])),
        ],
    }
    assert heard(message) == Heard(
        "", (Cell(246, 2, 7, 8),), (AccessPoint("00:17:c5:cd:ca:aa"), AccessPoint("d8:97:ba:c2:f0:5a"))
    )


def test_how_strong_they_are_does_not_tell_two_places_apart():
    """Otherwise nothing would ever be in the cache."""
    points = [{"mac.address": f"0017c5cdca{n:02x}", "signal.dbm": -50 - n} for n in range(10)]
    turned = [{**point, "signal.dbm": -50} for point in reversed(points)]
    first = heard(SERVING | {"wifi.access.points": points})
    second = heard(SERVING | {"gsm.signal.dbm": -99, "wifi.access.points": turned})
    assert first == second
    assert hash(first) == hash(second)


def test_no_more_is_taken_than_services_take():
    """Of access points the strongest."""
    found = heard(
        {
            "gsm.cells": [{"mcc": 246, "mnc": 2, "lac": 7, "cellid": n} for n in range(1, 50)],
            "wifi.access.points": [{"mac.address": f"0017c5cdca{n:02x}", "signal.dbm": -100 + n} for n in range(50)],
        }
    )
    assert len(found.cells) == CELLS_MOST
    assert [point.signal for point in found.points] == list(range(-100 + 50 - POINTS_MOST, -50))


@pytest.mark.parametrize(
    "change",
    [
        {"gsm.mcc": None}, {"gsm.mcc": 0}, {"gsm.mcc": 1000}, {"gsm.mcc": "246"}, {"gsm.mcc": True},
        {"gsm.lac": 0}, {"gsm.lac": 65535}, {"gsm.cellid": 0}, {"gsm.cellid": 65535}, {"gsm.cellid": 2**28 - 1},
        {"gsm.cellid": 4001.5}, {"gsm.cells": "none"}, {"gsm.cells": [[]]},
    ],
)  # fmt: skip
def test_what_is_no_cell_is_left_out(change):
    """Among it what trackers send where they know none."""
    found = heard(SERVING | change)
    assert found.cells == ((Cell(246, 1, 20, 4001),) if "gsm.cells" in change else ())


def test_the_file_is_read_and_what_is_no_cell_is_left_out():
    """Head, broken rows, impossible numbers."""
    table = CellTable.read(CELLS, 100)
    assert table.count == 4
    assert table.find(246, 1, 20, 4001) == Place(54.68716, 25.27965, 1000)
    assert table.find(246, 1, 20, 4002) == Place(54.7, 25.3, 65535)
    assert table.find(246, 2, 512, 134217985) == Place(54.9, 23.9, 0)
    for unknown in ((246, 1, 20, 4003), (246, 1, 21, 4001), (247, 1, 20, 4001), (246, 2, 20, 4001)):
        assert table.find(*unknown) is None


def test_every_cell_of_many_is_found(tmp_path):
    """Whatever their order, and also compressed."""
    path = tmp_path / "cells.csv.gz"
    rows = [
        f"LTE,{mcc},{mnc},{lac},{cell * 7919},0,{lac / 1000},{mnc / 100},{cell},1,1,1,1,0"
        for mcc in (999, 1, 246) for mnc in (0, 999, 3) for lac in (65535, 0, 17) for cell in range(500)
    ]  # fmt: skip
    with gzip.open(path, "wt") as file:
        file.write("\n".join(rows))
    table = CellTable.read(path, 10_000_000)
    assert table.count == len(rows) == 13_500
    for mcc in (999, 1, 246):
        for mnc in (0, 999, 3):
            for cell in range(500):
                found = table.find(mcc, mnc, 17, cell * 7919)
                assert found is not None
                assert (round(found.latitude, 3), found.range) == (mnc / 100, cell)


def test_no_more_rows_than_allowed_and_only_those_of_the_countries(tmp_path):
    """Both bound the memory."""
    table = CellTable.read(CELLS, 2)
    assert (table.count, table.is_cut) == (2, True)
    path = tmp_path / "cells.csv"
    path.write_text(ROW.format(cell=1) + ROW.format(cell=2).replace("246", "260"))
    table = CellTable.read(path, 100, [260])
    assert (table.count, table.is_cut, table.find(246, 1, 20, 1)) == (1, False, None)


def make_nothing(path: Path) -> None:
    """There is no such file."""


CONTENTS = {
    "missing": make_nothing,
    "empty": lambda path: path.write_text(""),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 10),
    "one long line": lambda path: path.write_bytes(b"x" * 10_000_000),
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_a_file_that_is_no_table_is_named(tmp_path, kind):
    """And read no further than needed to see that."""
    path = tmp_path / "cells.csv"
    CONTENTS[kind](path)
    with pytest.raises(CellFileError, match=r"cells\.csv"):
        CellTable.read(path, 100)


def test_a_file_that_is_only_half_compressed_is_an_error(tmp_path):
    """As one that is just being copied."""
    path = tmp_path / "cells.csv.gz"
    path.write_bytes(gzip.compress(ROW.encode() * 1000)[:-20])
    with pytest.raises(CellFileError, match="cannot be read"):
        CellTable.read(path, 10_000)


def test_reading_ends_when_it_is_told_so(tmp_path):
    """The gateway does not wait for it when it stops."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(CellFileError, match="not read to its end"):
        CellTable.read(CELLS, 100, stop=stop)


def test_a_file_that_changes_is_read_again(run, tmp_path):
    """Also one that is not there at first; one that breaks leaves what was read before."""
    path = tmp_path / "cells.csv"

    async def until(file: CellFile, count: int) -> None:
        async with asyncio.timeout(10):
            while (await file.table(5)).count != count:
                await asyncio.sleep(0.01)

    async def scenario() -> None:
        file = CellFile(path, 100, every=0.01)
        with pytest.raises(PluginError, match="cannot be read: No such file"):
            await file.table(5)
        path.write_text(ROW.format(cell=1))
        while True:
            try:
                await until(file, 1)
                break
            except PluginError:
                await asyncio.sleep(0.01)
        path.write_text(ROW.format(cell=1) + ROW.format(cell=2))
        await until(file, 2)
        path.write_text("broken\n")
        while not file.problem:
            await asyncio.sleep(0.01)
        assert (await file.table(5)).count == 2
        await file.close()

    run(scenario())


def test_a_file_that_takes_long_is_waited_for_as_long_as_said(run, tmp_path):
    """The error says so."""
    path = tmp_path / "cells.csv"
    path.write_text("".join(ROW.format(cell=cell) for cell in range(1, 100_000)))

    async def scenario() -> None:
        file = CellFile(path, 1_000_000)
        with pytest.raises(PluginError, match="still being read"):
            await file.table(0.001)
        assert (await file.table(20)).count == 99_999
        await file.close()

    run(scenario())
