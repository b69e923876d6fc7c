"""How a request finds its operation, and what it says when there is none."""

from __future__ import annotations

import pytest

from gateway.api.answers import Answer
from gateway.api.errors import ApiError
from gateway.api.nouns import operations
from gateway.api.operations import Operation, Right, Router


async def nothing(call) -> Answer:
    return Answer()


LIST = Operation("GET", "/gw/devices/{devices}", nothing, "list")
CREATE = Operation("POST", "/gw/devices", nothing, "create")
TELEMETRY = Operation("GET", "/gw/devices/{devices}/telemetry/{parameters}", nothing, "telemetry")
QUEUE = Operation("GET", "/gw/devices/{devices}/commands-queue", nothing, "queue")
DESCRIPTION = Operation("GET", "/gw/api.json", nothing, "description")
OWN = Operation("GET", "/gw/own", nothing, "own", access=Right("gw/devices"))
ROUTER = Router([LIST, CREATE, TELEMETRY, QUEUE, DESCRIPTION, OWN])


@pytest.mark.parametrize(
    ("method", "path", "operation", "values"),
    [
        ("GET", "gw/devices/all", LIST, {"devices": "all"}),
        ("GET", "gw/devices/devices", LIST, {"devices": "devices"}),
        ("POST", "gw/devices", CREATE, {}),
        ("GET", "gw/devices/1,2/telemetry/a.b,c", TELEMETRY, {"devices": "1,2", "parameters": "a.b,c"}),
        ("GET", "gw/devices/1/commands-queue", QUEUE, {"devices": "1"}),
        ("GET", "gw/api.json", DESCRIPTION, {}),
        ("HEAD", "gw/api.json", DESCRIPTION, {}),
    ],
)
def test_a_path_leads_to_its_operation(method: str, path: str, operation: Operation, values: dict[str, str]):
    """Variables take whatever stands in their place; literal segments win."""
    assert ROUTER.find(method, path.split("/")) == (operation, values)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "gw", 404),
        ("GET", "", 404),
        ("GET", "gw/trucks/all", 404),
        ("GET", "gw/devices/1/telemetry", 404),
        ("GET", "gw/devices/1/telemetry/a/b", 404),
        ("GET", "gw/devices//telemetry/a", 404),
        ("PUT", "gw/devices", 405),
        ("BREW", "gw/devices/1", 405),
        ("HEAD", "gw/devices", 405),
        ("HEAD", "gw/own", 405),
    ],
)
def test_no_operation_is_404_or_405(method: str, path: str, status: int):
    """405 names the methods that there are."""
    with pytest.raises(ApiError) as raised:
        ROUTER.find(method, path.split("/"))
    assert raised.value.status == status
    if status == 405:
        assert any(known in raised.value.reason for known in ("GET", "POST"))


def test_the_names_of_all_operations_differ():
    """They label metrics and are the ids in the description."""
    names = [operation.name for operation in operations()]
    assert sorted(set(names)) == sorted(names)
    assert QUEUE.name == "get_gw_devices_devices_commands_queue"
