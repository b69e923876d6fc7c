"""Whatever the description allows, and much that it does not, is sent to the running gateway: it never breaks."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.integration.processes import Gateway
from tests.integration.trackers import Packets, imei, send_packet

pytestmark = pytest.mark.integration

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
]
EXAMPLES = 5
"""For each operation; the systematic cases come in addition."""


def seed(gateway: Gateway) -> None:
    """Items to be found: devices with messages, plugins and streams that are linked with them."""
    headers = {"Authorization": gateway.token}
    with httpx.Client(base_url=gateway.api_url, headers=headers, timeout=20) as client:
        devices = [{"name": f"car {n}", "device_type_id": 10000, "configuration": {"ident": str(n)}} for n in range(3)]
        assert client.post("/gw/devices", json=devices).status_code == 200
        messages = [{"timestamp": 1_700_000_000 + n, "position.speed": n} for n in range(50)]
        assert client.post("/gw/devices/all/messages", json=messages).status_code == 200
        plugins = [{"name": name, "type_name": "item-fields", "configuration": {}} for name in ("a", "b")]
        assert client.post("/gw/plugins", json=plugins).status_code == 200
        stream = {"name": "a", "protocol_name": "http", "configuration": {"uri": "http://127.0.0.1:9/"}}
        assert client.post("/gw/streams", json=[stream]).status_code == 200
        for path in ("/gw/plugins/all/devices/all", "/gw/streams/all/devices/all", "/gw/streams/all/channels/all"):
            assert client.post(path).status_code == 200


PROGRAM = "import gc; gc.disable(); from schemathesis.cli import schemathesis; schemathesis()"
"""Without the collector: hypothesis' callback in it breaks ast.parse of Python 3.11 ("recursion depth mismatch")."""
CHANGES_OF_CHANNELS = [f"{method}_gw_channels_channels" for method in ("put", "patch", "delete")]
"""They take away the channel whose messages a long poll waits for, and run alone."""


def try_all(gateway: Gateway, *options: str) -> None:
    """Fails with the report of what broke."""
    command = [
        *(sys.executable, "-c", PROGRAM, "run", f"{gateway.api_url}/gw/api.json"),
        *("--header", f"Authorization: {gateway.token}", "--seed", "1", "--workers", "1", "--no-color"),
        *("--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing"),
        *("--request-timeout", "30", "--continue-on-failure", "--suppress-health-check", "all", *options),
    ]
    report = subprocess.run(command, cwd=gateway.directory, capture_output=True, text=True, timeout=300, check=False)
    assert report.returncode == 0, "".join(line[:300] + "\n" for line in report.stdout.splitlines())[-20_000:]
    assert "Tested:" in report.stdout


async def send_for_ever(port: int) -> None:
    """A new tracker each time; the API's changes may be the end of any of them."""
    for number in itertools.count(1000):
        with suppress(ConnectionError):
            await send_packet(port, Packets(imei(number)))
        await asyncio.sleep(0.5)


@pytest.mark.timeout(400)
def test_nothing_that_is_sent_breaks_the_api(run, tmp_path: Path):
    """No 500, and no answer that the description does not know; trackers send meanwhile, so that polls end."""
    gateway = Gateway(tmp_path)

    async def scenario() -> None:
        await gateway.ready()
        traffic = asyncio.ensure_future(send_for_ever(gateway.port))
        await asyncio.to_thread(seed, gateway)
        skip = [part for name in CHANGES_OF_CHANNELS for part in ("--exclude-operation-id", name)]
        await asyncio.to_thread(try_all, gateway, *skip)
        assert not traffic.done(), traffic
        traffic.cancel()
        await asyncio.gather(traffic, return_exceptions=True)
        only = [part for name in CHANGES_OF_CHANNELS for part in ("--include-operation-id", name)]
        await asyncio.to_thread(try_all, gateway, *only)
        assert "Traceback" not in gateway.stderr
        assert await gateway.stop() == 0

    try:
        run(scenario(), timeout=380)
    finally:
        gateway.kill()
