"""Whatever the description allows, and much that it does not, is sent to the running gateway: it never breaks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.integration.processes import Gateway
from tests.integration.trackers import Packets, imei, send_packet

pytestmark = pytest.mark.integration

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
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
    """Items to be found: a device that exists, and one of each kind that can be created."""
    headers = {"Authorization": gateway.token}
    with httpx.Client(base_url=gateway.api_url, headers=headers, timeout=20) as client:
        devices = [{"name": f"car {n}", "device_type_id": 10000, "configuration": {"ident": str(n)}} for n in range(3)]
        assert client.post("/gw/devices", json=devices).status_code == 200
        messages = [{"timestamp": 1_700_000_000 + n, "position.speed": n} for n in range(50)]
        assert client.post("/gw/devices/all/messages", json=messages).status_code == 200


def test_nothing_that_is_sent_breaks_the_api(run, tmp_path: Path):
    """No 500, and no answer that the description does not know."""
    gateway = Gateway(tmp_path)

    async def scenario() -> None:
        await gateway.ready()
        await send_packet(gateway.port, Packets(imei(1)))

    try:
        run(scenario(), timeout=60)
        seed(gateway)
        command = [
            *(
                str(SCHEMATHESIS),
                "run",
                f"{gateway.api_url}/gw/api.json",
                "--header",
                f"Authorization: {gateway.token}",
            ),
            *("--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES), "--workers", "1"),
            *("--phases", "examples,coverage,fuzzing", "--request-timeout", "30", "--continue-on-failure"),
            *("--suppress-health-check", "all", "--no-color", "--seed", "1"),
        ]
        report = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
        assert report.returncode == 0, report.stdout[-20_000:] + report.stderr[-2000:]
        log = gateway.stderr
        assert "Traceback" not in log, log[log.index("Traceback") :][:4000]
    finally:
        gateway.kill()
