"""Which way imports point. The table is that of the architecture; a new module needs a place in it.

Checked on the source, with ``ast``, so that imports inside functions and for type checkers count as well.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TELTONIKA = "protocols.teltonika"

# Each row has parts. A module imports from the rows above its own, and from its own part; not from other parts of its
# row. A name stands for the module and, if it is a package, for all that is in it; the longest name that fits holds.
ROWS: tuple[tuple[frozenset[str], ...], ...] = (
    (frozenset({"errors", "message", "parameters", "expressions", "signature"}),),
    (frozenset(f"{TELTONIKA}.{name}" for name in ("border", "bulk", "checksum", "frame", "wire", "wire_commands")),),
    (frozenset(f"{TELTONIKA}.{name}" for name in ("session", "exchange", "datagram")),),
    (frozenset({"protocols"}),),
    (frozenset({"store"}), frozenset({"web"})),
    (frozenset({"plugin", "plugins"}),),
    (frozenset({"registrar"}),),
    (frozenset({"mqtt"}),),
    (frozenset({"stream", "streams"}),),
    (frozenset({"channel"}),),
    (frozenset({"api", "panel"}),),
    (
        frozenset(
            [
                "assembly",
                "commanding",
                "config",
                "log",
                "observation",
                "provision",
                "readers",
                "rest",
                "service",
                "settings",
                "stages",
                "storage",
                "tokens",
                "workers",
            ]
        ),
    ),
)

# Small modules that any row may use, and that use none.
GROUND = frozenset({"", "aio", "metrics"})

# Programs beside the gateway: they may use the rows up to 3, and themselves.
TOOLS = frozenset({"admin", "emulator", "decode"})
LAST_ROW_OF_TOOLS = 3

# What has no place in a layer without I/O.
OUTSIDE = frozenset({"asyncio", "redis", "select", "socket", "threading", "time", "twisted"})


def sources() -> dict[str, Path]:
    """Every module of ours by its name inside ``gateway``; ``plugins/`` is installed as ``gateway.plugins``."""
    found = {}
    for folder, prefix in ((ROOT / "gateway", ()), (ROOT / "plugins", ("plugins",))):
        for path in folder.rglob("*.py"):
            parts = (*prefix, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


SOURCES = sources()
NAMES = sorted(SOURCES)


@cache
def imported(name: str) -> frozenset[str]:
    """Everything that the module imports, absolute: ``from gateway.store import log`` is ``gateway.store.log``."""
    return frozenset(_imported(ast.parse(SOURCES[name].read_text())))


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(name: str) -> set[str]:
    """The modules of ours that the module imports: of ``gateway.store.log.LogWriter`` that is ``store.log``."""
    return {_module(target) for target in imported(name) if target.split(".")[0] == "gateway"}


def _module(target: str) -> str:
    parts = target.split(".")[1:]
    lengths = range(len(parts), -1, -1)
    return next(name for name in (".".join(parts[:length]) for length in lengths) if name in SOURCES or not name)


def place_of(name: str) -> tuple[int, frozenset[str]] | None:
    """The row of a module and its part; None where the table has no place for it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        for row, of_row in enumerate(ROWS):
            for part in of_row:
                if prefix in part:
                    return row, part
    return None


def is_tool(name: str) -> bool:
    return name.split(".")[0] in TOOLS


def test_the_sources_are_found() -> None:
    """Otherwise all that follows would be true of nothing."""
    assert {"errors", "aio", "protocols.teltonika.session"} <= SOURCES.keys()
    assert "protocols.teltonika.frame" in ours("protocols.teltonika.session")


@pytest.mark.parametrize("name", NAMES)
def test_every_module_has_a_place(name: str) -> None:
    """In one row, on the ground floor, or among the tools."""
    assert name in GROUND or is_tool(name) or name == "protocols" or place_of(name) is not None


@pytest.mark.parametrize("name", [name for name in NAMES if name not in GROUND and not is_tool(name)])
def test_imports_point_upward(name: str) -> None:
    """To rows above, to the same part, to the ground floor."""
    place = place_of(name)
    assert place is not None, "the table above has no place for it"
    wrong = [target for target in ours(name) - GROUND if not _may_import(place, target)]
    assert wrong == []


def _may_import(place: tuple[int, frozenset[str]], target: str) -> bool:
    found = place_of(target)
    return found is not None and (found[0] < place[0] or found[1] == place[1])


@pytest.mark.parametrize("name", [name for name in NAMES if is_tool(name)])
def test_tools_use_the_protocols_and_nothing_above(name: str) -> None:
    """A virtual tracker that used the gateway's own session with storage would prove nothing."""
    wrong = [target for target in ours(name) - GROUND if not _is_for_tools(name, target)]
    assert wrong == []


def _is_for_tools(name: str, target: str) -> bool:
    found = place_of(target)
    return target.split(".")[0] == name.split(".")[0] or (found is not None and found[0] <= LAST_ROW_OF_TOOLS)


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_floor_stands_on_nothing(name: str) -> None:
    """Whoever may be used by all uses none."""
    assert ours(name) <= GROUND


@pytest.mark.parametrize("name", [name for name in NAMES if name.split(".")[0] == "protocols"])
def test_protocols_know_no_transport_no_storage_and_no_clock(name: str) -> None:
    """Bytes and values in, bytes and values out; the time comes as an argument."""
    assert {target.split(".")[0] for target in imported(name)} & OUTSIDE == set()
    assert ours(name) & GROUND <= {""}


def test_the_session_runs_without_twisted() -> None:
    """Not even indirectly: a program that only decodes does not load it."""
    code = (
        "import gateway.protocols.teltonika.session, sys; print({'twisted', 'asyncio', 'redis'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
