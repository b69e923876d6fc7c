"""The documentation tells the truth: its commands and examples run, its links lead somewhere, its settings exist.

A block of shell or Python is marked by a comment before it:

    <!-- run -->              it is run to its end beside a running gateway, and succeeds
    <!-- run: text -->        it runs until interrupted; it is, as soon as its output has this text
    <!-- run: alone -->       it is run before there is a gateway, in the order of the page
    <!-- not run: reason -->  it cannot be run here

Blocks are run as they stand, in a directory that looks like the project's root; only the ports are others.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from docs.settings_table import PAGE as SETTINGS_PAGE
from docs.settings_table import with_tables
from gateway import config
from gateway.config import LISTS, SECTIONS
from gateway.store.embedded import find_redis_server
from tests.conftest import LOOP
from tests.integration.processes import Process, free_port, is_running, until
from tests.test_layering import ROWS, TELTONIKA

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PORTS = ("5027", "1883", "9001", "8080")
"""What the documentation and conf/gateway.toml listen on."""


@attrs.frozen
class Block:
    """A fenced block of a page; ``mark`` is the comment before it."""

    page: Path
    line: int
    language: str
    mark: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


FENCED = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for match in FENCED.finditer(text):
            line = text.count("\n", 0, match.start("text")) + 1
            yield Block(page, line, match["language"], match["mark"], match["text"])


BLOCKS = list(_blocks())
RUNNABLE = [block for block in BLOCKS if block.language in ("sh", "python")]
MARKED = [block for block in RUNNABLE if (block.mark or "").startswith("run")]
SERVING = [block for block in MARKED if block.text.strip() in ("make run", "make emulate")]
ALONE = [block for block in MARKED if block.mark == "run: alone"]
BESIDE = [block for block in MARKED if block not in SERVING and block not in ALONE]


class Root:
    """A directory like the project's root, whose settings and examples name free ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ports = {port: str(free_port()) for port in PORTS}
        for name in ("Makefile", "twistd.tac", "setup.cfg", "setup.py", "pyproject.toml"):
            (directory / name).symlink_to(ROOT / name)
        self._copy("conf/gateway.toml", lambda text: re.sub(r'^#(?=listen(_ws)? = ")', "", text, flags=re.M))
        self._copy("docs/subscribe.py", lambda text: text)
        self._link_environment(directory / ".venv")

    def _copy(self, name: str, change: Callable[[str], str]) -> None:
        path = self.directory / name
        path.parent.mkdir()
        path.write_text(self.with_ports(change((ROOT / name).read_text())))

    def _link_environment(self, venv: Path) -> None:
        """The present interpreter's, so that make finds nothing to install; newer than what it is made of."""
        venv.mkdir()
        for path in Path(sys.prefix).iterdir():
            if not path.name.startswith("installed"):
                (venv / path.name).symlink_to(path)
        (venv / "installed").touch()

    def with_ports(self, text: str) -> str:
        """The text with the ports of this root, also where a command leaves its default port out."""
        text = re.sub(r"\b(" + "|".join(PORTS) + r")\b", lambda match: self._ports[match[1]], text)
        return re.sub(r"\bmosquitto_sub (?!-p)", f"mosquitto_sub -p {self._ports['1883']} ", text)

    def process(self, block: Block) -> Process:
        """The block as a process, not yet started."""
        name = f"{block.page.stem}-{block.line}"
        text = self.with_ports(block.text)
        command = [sys.executable, "-c", text] if block.language == "python" else ["bash", "-euc", text]
        environment = {
            "ARGS": f"--to 127.0.0.1:{self._ports['5027']}",  # what the Makefile gives to the emulator
            "GATEWAY_CONF": "conf/gateway.toml",
            "GATEWAY_URL": f"http://127.0.0.1:{self._ports['8080']}",  # what gateway.admin speaks to
            "MAKEFLAGS": "",  # those of the make that runs the tests
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        return Process(name, command, self.directory, environment)


def _interrupt(process: Process) -> None:
    """Ctrl-C, which reaches all processes of a terminal."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


async def _starts(process: Process, block: Block) -> None:
    """Start it and wait for what its mark says."""
    process.start()
    try:
        await process.says((block.mark or "").removeprefix("run: "), timeout=20)
    except AssertionError as error:
        raise AssertionError(f"{block}: {error}\n{process.stdout}{process.stderr}") from None


async def _shows(process: Process, block: Block) -> None:
    """Start it, wait for its output, interrupt it, wait for its end."""
    try:
        await _starts(process, block)
    finally:
        _interrupt(process)
        await process.ended()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A root in which ``make run`` and ``make emulate`` are running, started as the README says."""
    made = Root(tmp_path_factory.mktemp("root"))
    running: list[Process] = []
    try:
        for block in sorted(SERVING, key=lambda block: block.line):
            process = made.process(block)
            running.append(process)
            LOOP.run_until_complete(_starts(process, block))
        yield made
        for process in reversed(running):
            _interrupt(process)
            LOOP.run_until_complete(process.ended())
    finally:
        for process in running:
            process.kill()


def test_the_readme_starts_a_gateway_and_a_tracker():
    """Otherwise nothing below would have anything to run beside."""
    assert [block.text.strip() for block in SERVING] == ["make run", "make emulate"]
    assert {block.page.name for block in SERVING} == {"README.md"}


@pytest.mark.parametrize("block", BESIDE, ids=str)
def test_what_is_shown_runs(run, root: Root, block: Block):
    """Commands and examples do what the page says, beside the gateway and the tracker of the README."""
    if "mosquitto_sub" in block.text and shutil.which("mosquitto_sub") is None:
        if os.environ.get("CI"):
            pytest.fail("mosquitto_sub is not installed")
        pytest.skip("mosquitto_sub is not installed")
    process = root.process(block)
    if block.mark != "run":
        run(_shows(process, block))
        return
    process.start()
    assert run(process.ended()) == 0, process.stderr


def test_the_daemon_starts_and_ends_as_shown(run, tmp_path: Path):
    """The two commands of docs/operations.md, one after the other."""
    alone = Root(tmp_path)
    start, stop = ALONE

    async def scenario() -> None:
        for block in (start, stop):
            if block is stop:
                await until(lambda: "connected to" in (tmp_path / "gateway.log").read_text(), "the daemon works", 15)
                pid = int((tmp_path / "gateway.pid").read_text())
            process = alone.process(block)
            process.start()
            assert await process.ended() == 0, process.stderr
        await until(lambda: not is_running(pid), "the daemon ends", 15)

    try:
        run(scenario(), timeout=60)
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((tmp_path / "gateway.pid").read_text()), signal.SIGKILL)


def test_the_sample_of_redis_settings_is_taken_by_redis(run, tmp_path: Path):
    """With another port and another directory, which are the machine's matter."""
    sample = tmp_path / "redis.conf"
    sample.write_text((ROOT / "conf" / "redis.conf").read_text().replace("/var/lib/redis", str(tmp_path)))
    server = Process("redis", [find_redis_server(), str(sample), "--port", str(free_port())], tmp_path)
    server.start()
    try:
        run(server.says("Ready to accept connections"))
    finally:
        server.kill()
    assert list(tmp_path.glob("appendonly*"))


@pytest.mark.parametrize("block", RUNNABLE, ids=str)
def test_every_block_says_whether_it_is_run(block: Block):
    """A new example is run, or has a reason not to be."""
    assert re.fullmatch(r"run(: .+)?|not run: .+", block.mark or "")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=str)
def test_examples_of_settings_can_be_loaded(block: Block, tmp_path: Path):
    """Each is a whole configuration."""
    path = tmp_path / "gateway.toml"
    path.write_text(block.text)
    config.load(path, {})


def test_the_table_of_settings_is_current():
    """``make docs`` writes it."""
    page = SETTINGS_PAGE.read_text()
    assert page == with_tables(page)


KEY = re.compile(r"`(gateway|redis|mqtt|api|auth|limits|channels|devices)\.([a-z_]+)`")
VARIABLE = re.compile(r"\bGATEWAY_([A-Z]+)_([A-Z_]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_is_mentioned_exists(page: Path):
    """``section.key`` in code marks, and the variables of the environment."""
    text = page.read_text()
    mentioned = KEY.findall(text) if page.name != "parameters.md" else []
    mentioned += [(section.lower(), key.lower()) for section, key in VARIABLE.findall(text)]
    known = {(name, key.name) for name, kind in (SECTIONS | LISTS).items() for key in attrs.fields(kind)}
    files = {(path.stem, path.suffix[1:]) for path in ROOT.glob("*/*") if path.suffix}
    assert set(mentioned) - known - files == set()


LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    """To a file of the project and, where they name one, to a heading in it."""
    text = FENCED.sub("", page.read_text())
    missing = [target for target in LINK.findall(text) if "://" not in target and not _leads(page, target)]
    assert missing == []


def _leads(page: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = page.parent / name if name else page
    return path.exists() and (not anchor or anchor in _anchors(path.read_text()))


def _anchors(text: str) -> set[str]:
    """As the usual renderers make them: lower case, without punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LOG_TABLE = re.compile(r"<!-- log lines -->\n\n((?:\|.*\n)+)")
PLACE = r"\{[^{}]*\}"


def _documented_lines() -> list[str]:
    tables = LOG_TABLE.findall((ROOT / "docs" / "operations.md").read_text())
    cells = [row.split(" | ")[0] for table in tables for row in table.splitlines()[2:]]
    return [line for cell in cells for line in re.findall(r"`([^`]+)`", cell)]


def _code() -> str:
    """All sources, with texts that are written in several pieces made whole."""
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "gateway").rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", sources)


CODE = _code()


@pytest.mark.parametrize("line", _documented_lines())
def test_log_lines_are_those_of_the_code(line: str):
    """What is in braces may have another name there."""
    assert re.search(PLACE.join(map(re.escape, re.split(PLACE, line))), CODE)


def test_the_layers_are_those_that_are_checked():
    """ARCHITECTURE.md has the table of tests/test_layering.py."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows: dict[int, set[str]] = {
        int(number): set(re.findall(r"`([\w.]+)`", cell))
        for number, cell in re.findall(r"^\| (\d+) \| ([^|]*) \|", text, flags=re.M)
    }
    expected = {
        number: {name.removeprefix(f"{TELTONIKA}.") for part in row for name in part} for number, row in enumerate(ROWS)
    }
    assert rows == expected
