"""Commands to devices: sent now, with their answers, or left in their queue."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from gateway.admin.client import AdminError, Client, Item
from gateway.admin.output import Output, column, when
from gateway.admin.selectors import DEVICES, ids

TEXTS = frozenset({"text", "hex", "states"})
"""Properties that are texts, whatever they look like."""
SHOWN = ("ident", "name", "response")
QUEUED = (column("id"), column("device", "device_id"), column("command", "name"), column("until", "expires", show=when))


def run_command(client: Client, options: Namespace, output: Output) -> list[str]:
    """``command DEVICE NAME KEY=VALUE ...``: the answers; with ``--queue`` what waits now."""
    order: Item = {"name": options.name, "properties": _properties(options.properties)}
    path = (*DEVICES.path, ids(client, DEVICES, options.selector))
    if options.queue:
        answer = client.send("POST", *path, "commands-queue", body=[order])
        output.items(answer.result, QUEUED, "nothing waits")
        return answer.failures
    answer = client.send("POST", *path, "commands", body=[{**order, "timeout": options.timeout}], wait=options.timeout)
    if not answer.result:
        raise AdminError(f"no device is {options.selector!r}")
    shown = answer.result if output.is_json else [{name: one.get(name) for name in SHOWN} for one in answer.result]
    output.details(shown)
    return answer.failures


def _properties(arguments: Sequence[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name:
            raise AdminError(f"{argument!r} should be like KEY=VALUE, such as param=2004")
        made[name] = text if name in TEXTS else _value(text)
    return made


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
