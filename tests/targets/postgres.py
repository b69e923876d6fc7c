"""PostgreSQL with a cluster of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.targets.process import ServerProcess, ended_with_test, find_program, speaks

PASSWORD = "pass/word @1"  # to be quoted in a URL
QUOTED_PASSWORD = "pass%2Fword%20%401"
_STARTUP = struct.pack("!I", 3 << 16) + b"user\0postgres\0database\0postgres\0\0"
STARTUP = struct.pack("!I", len(_STARTUP) + 4) + _STARTUP
AUTHENTICATION = b"R"

# Without fsync what is committed outlives the death of the process, though not of the machine.
SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
full_page_writes = off
shared_buffers = 32MB
max_connections = 50
ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server.key'
"""
# Who connects decides what is asked of them.
ACCESS = """\
host    all keeper    127.0.0.1/32 scram-sha-256
hostssl all encrypted 127.0.0.1/32 trust
host    all encrypted 127.0.0.1/32 reject
host    all postgres  127.0.0.1/32 trust
host    all writer    127.0.0.1/32 trust
"""
ROLES = f"""\
CREATE ROLE keeper LOGIN SUPERUSER PASSWORD '{PASSWORD}';
CREATE ROLE encrypted LOGIN SUPERUSER;
CREATE ROLE writer LOGIN;
"""


class PostgresServer(ServerProcess):
    """A PostgreSQL in ``directory``, which its user must be able to reach: see :func:`postgres_directory`.

    ``postgres`` may connect without a password, ``keeper`` with :data:`PASSWORD`, ``encrypted`` only over TLS;
    ``writer`` may do only what it is granted.
    """

    def __init__(self, directory: Path) -> None:
        self._initdb = find_program("initdb", *_program_directories())
        self.data = directory / "data"
        program = str(Path(self._initdb).resolve().parent / "postgres")
        super().__init__("postgres", [program, "-D", str(self.data)], directory)
        self.command += ["-p", str(self.port)]
        self._user = self.options = postgres_user()
        self._ordinals = count(1)
        self.authority = directory / "authority.pem"
        """The certificate to trust for :attr:`tls_url`."""

    @property
    def url(self) -> str:
        """Of the administrator, who needs no password."""
        return self.url_of("postgres")

    @property
    def password_url(self) -> str:
        return self.url_of(f"keeper:{QUOTED_PASSWORD}")

    @property
    def tls_url(self) -> str:
        """Of one who is refused without TLS."""
        return f"{self.url_of('encrypted')}?sslmode=verify-full&sslrootcert={self.authority}"

    def url_of(self, user: str, database: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it; the first time the cluster is made before."""
        if not self.data.exists():
            self._make_cluster()
        super().start()

    def stop(self) -> None:
        """A fast shutdown: clients are told and disconnected."""
        self._end(signal.SIGINT)

    def answers(self) -> bool:
        # the port is open before, while it recovers from a kill
        return speaks(self.port, STARTUP, AUTHENTICATION)

    def new_database(self) -> str:
        """Make an empty database, and give the administrator's URL of it."""
        name = f"test_{next(self._ordinals)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url_of("postgres", name)

    def sql(self, statement: str, url: str = "") -> str:
        """Run a statement as an administrator does, with psql; rows are lines, values separated by ``|``."""
        psql = find_program("psql", Path(self._initdb).parent)
        command = [psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, url or self.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _make_cluster(self) -> None:
        options = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C"]
        self._run(self._initdb, "-D", str(self.data), *options)
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS)
        (self.data / "pg_hba.conf").write_text(ACCESS)
        self._certify()
        single = [self.command[0], "--single", "-D", str(self.data), "postgres"]
        self._run(*single, given=ROLES)

    def _certify(self) -> None:
        authority = Authority("databases")
        self.authority.write_bytes(authority.pem)
        key = self.data / "server.key"
        authority.sign("postgres").write(self.data / "server.pem", key)
        key.chmod(0o600)
        if self._user:
            shutil.chown(key, self._user["user"])

    def _run(self, *command: str, given: str = "") -> None:
        done = subprocess.run(
            command, cwd=self.directory, input=given, capture_output=True, text=True, timeout=60, **self._user
        )
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"


def _program_directories() -> list[Path]:
    """Debian keeps them off the PATH; the newest first."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)


def postgres_user() -> dict[str, Any]:
    """For ``subprocess``: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise AssertionError("there is no user postgres or nobody, and PostgreSQL refuses to run as root")


@contextlib.contextmanager
def postgres_directory() -> Iterator[Path]:
    """A directory that PostgreSQL's user can reach, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        if user := postgres_user():
            shutil.chown(name, user["user"], user["group"])
        yield Path(name)


@pytest.fixture
def make_postgres() -> Iterator[Callable[[], PostgresServer]]:
    """Makes and starts PostgreSQLs that a test may stop, kill and start again; they end with the test."""
    made: list[PostgresServer] = []
    with contextlib.ExitStack() as directories:

        def make() -> PostgresServer:
            made.append(PostgresServer(directories.enter_context(postgres_directory())))
            made[-1].start()
            return made[-1]

        with ended_with_test(made):
            yield make


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests that leave it running."""
    with postgres_directory() as directory, PostgresServer(directory) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """An empty database of the one PostgreSQL."""
    return postgres_server.new_database()
