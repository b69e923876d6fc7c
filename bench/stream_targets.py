"""The real targets of the streams that are measured: each a context that gives the stream's configuration."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from attrs import frozen

from bench.processes import free_port, running


@frozen
class Setup:
    """``limit``: messages in a batch, and ``count``: messages in all, where a type has other ones than the rest."""

    protocol: str
    configuration: dict[str, Any]
    limit: int = 0
    count: int = 0


@contextlib.contextmanager
def _web(directory: Path) -> Iterator[str]:
    port = free_port()
    with running([sys.executable, "-m", "bench.web_server", str(port)], "ready"):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _http(directory: Path) -> Iterator[Setup]:
    with _web(directory) as url:
        yield Setup("http", {"uri": f"{url}/in"})


@contextlib.contextmanager
def _file(directory: Path) -> Iterator[Setup]:
    yield Setup("file", {"path": str(directory / "messages.jsonl")})


TARGETS: dict[str, Callable[[Path], AbstractContextManager[Setup]]] = {
    "http": _http,
    "file": _file,
}
