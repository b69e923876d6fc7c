"""Processes that end with the test that started them, and whose logs are shown when it fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from integration.processes import Gateway, Process, RedisServer
from tests.conftest import LOOP

SHOWN_LINES = 60
_started: list[Process] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failure alone seldom tells what the other processes were doing."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for process in _started:
            for path in process.outputs():
                report.sections.append((f"end of {path.name}", _tail(path)))


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join(lines[-SHOWN_LINES:])


def _keep(process: Process) -> None:
    _started.append(process)


def _end(process: Process) -> None:
    process.kill()
    _started.remove(process)


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes gateways, not yet started; the test's parameters are sections of the settings."""
    made: list[Gateway] = []

    def make(directory: Path | None = None, **sections: Any) -> Gateway:
        directory = directory or tmp_path / f"gateway-{len(made)}"
        directory.mkdir(exist_ok=True)
        made.append(Gateway(directory, **sections))
        _keep(made[-1])
        return made[-1]

    yield make
    for gateway in made:
        _end(gateway)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One running gateway, everything embedded, for the tests of a module that leave it as it was."""
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    _keep(gateway)
    try:
        LOOP.run_until_complete(gateway.ready())
        yield gateway
        assert LOOP.run_until_complete(gateway.stop()) == 0
    finally:
        _end(gateway)


@pytest.fixture
def redis_process(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server that is not the gateway's child, running."""
    server = RedisServer(tmp_path)
    _keep(server)
    server.start()
    yield server
    _end(server)


@pytest.fixture
def random() -> Random:
    """Chance that can be repeated: ``GATEWAY_TEST_SEED=... pytest``."""
    seed = int(os.environ.get("GATEWAY_TEST_SEED") or int.from_bytes(os.urandom(4), "big"))
    print(f"GATEWAY_TEST_SEED={seed}")
    return Random(seed)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Files of a certificate of our own for 127.0.0.1, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path
