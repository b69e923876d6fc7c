"""Another Redis than the gateway's own, on a TCP port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.store.embedded import find_redis_server
from tests.targets.process import ServerProcess, ended_with_test, speaks


class RedisTarget(ServerProcess):
    """A redis-server whose data are in ``directory``, written at once; with a password if one is given."""

    def __init__(self, directory: Path, password: str = "") -> None:
        super().__init__("redis-target", [str(find_redis_server())], directory)
        self.password = password
        data = directory / self.name
        data.mkdir()
        self.command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(data)]
        self.command += ["--appendonly", "yes", "--appendfsync", "no", "--save", ""]
        if password:
            self.command += ["--requirepass", password]

    @property
    def url(self) -> str:
        """With the password."""
        return (
            f"redis://:{quote(self.password, safe='')}@{self.address}" if self.password else f"redis://{self.address}"
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answers(self) -> bool:
        # PING gives an error while it reads its file
        login = f"*2\r\n$4\r\nAUTH\r\n${len(self.password.encode())}\r\n{self.password}\r\n" if self.password else ""
        return speaks(self.port, f"{login}PING\r\n".encode(), b"+OK\r\n+PONG\r\n" if login else b"+PONG\r\n")


@pytest.fixture
def make_redis_target(tmp_path: Path) -> Iterator[Callable[..., RedisTarget]]:
    """Makes and starts Redises that a test may stop, kill and start again; they end with the test."""
    made: list[RedisTarget] = []

    def make(password: str = "") -> RedisTarget:
        made.append(RedisTarget(tmp_path, password))
        made[-1].start()
        return made[-1]

    with ended_with_test(made):
        yield make


@pytest.fixture
def redis_target(make_redis_target: Callable[..., RedisTarget]) -> RedisTarget:
    """A running Redis that takes anybody."""
    return make_redis_target()
