"""Commands to devices (flespi's REST, "commands"): at once with ``/commands``, waiting for the device in
``/commands-queue``; ``/commands-result`` has what became of both.

One that fails at once, or is refused by its device, is an error with the command's id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.api.answers import Answer
from gateway.api.call import Call
from gateway.api.device_fields import select_devices
from gateway.api.errors import ApiError
from gateway.api.fields import FieldsQuery, FieldTable, ItemsQuery, paginate
from gateway.api.items import Json, one_by_one, refusal
from gateway.api.message_query import MessagesQuery, Wishes
from gateway.api.operations import Operation, Right
from gateway.api.selectors import select
from gateway.errors import GatewayError
from gateway.store.command import (
    TIMEOUT_LEAST,
    TIMEOUT_MOST,
    TIMEOUT_USUAL,
    CommandResult,
    Name,
    NewCommand,
    QueuedCommand,
)
from gateway.store.items import Device
from gateway.store.sources import Span

AT_ONCE_MOST = 500
"""Commands, over all devices, that one call waits for."""
QUEUED_MOST = 10_000
"""Commands, over all devices, that one call queues."""
DEVICES_MOST = 1000
"""Devices whose commands one call shows."""
ON_UDP = ": it sends over UDP, where there are no commands"

Field = UnsetType


class Order(Struct, forbid_unknown_fields=True):
    """A command to be sent now."""

    name: Name
    properties: Json = {}
    timeout: Annotated[
        int, Meta(ge=TIMEOUT_LEAST, le=TIMEOUT_MOST, description="seconds that the answer is waited for")
    ] = TIMEOUT_USUAL
    address: Literal["connection"] = "connection"


class CommandView(Struct):
    """A command that waits; ``timestamp``: when it came, ``attempts``: how often it was sent."""

    id: int | Field = UNSET
    device_id: int | Field = UNSET
    ident: str | Field = UNSET
    name: str | Field = UNSET
    properties: Json | Field = UNSET
    address: str | Field = UNSET
    priority: int | Field = UNSET
    max_attempts: int | Field = UNSET
    attempts: int | Field = UNSET
    condition: str | Field = UNSET
    expires: float | Field = UNSET
    timestamp: float | Field = UNSET
    meta: Json | Field = UNSET


class ResultView(Struct):
    """What became of a command; ``response``: text, or an object where the reply's form is known."""

    id: int | Field = UNSET
    command_id: int | Field = UNSET
    device_id: int | Field = UNSET
    ident: str | Field = UNSET
    name: str | Field = UNSET
    properties: Json | Field = UNSET
    address: str | Field = UNSET
    executed: bool | Field = UNSET
    response: Any = UNSET
    error: str | Field | None = UNSET
    attempts: int | Field = UNSET
    meta: Json | Field = UNSET
    timestamp: float | Field = UNSET


def _table(view: type[Struct]) -> FieldTable:
    names = view.__struct_fields__
    return FieldTable({name: partial(_field, name) for name in names}, names)


def _field(name: str, item: Any) -> Any:
    return getattr(item, name)


COMMANDS, RESULTS = _table(CommandView), _table(ResultView)


# -- at once


async def send(call: Call) -> Answer:
    """POST: waits until every device has answered, or its time is over."""
    devices, errors = await select_devices(call)
    _check_number(len(devices) * len(call.entries), AT_ONCE_MOST)
    jobs = [_send(call, device, entry.index, entry.value) for device in devices for entry in call.entries]
    outcomes = await asyncio.gather(*jobs)
    results = [one for one in outcomes if isinstance(one, CommandResult)]
    return Answer(results, [*errors, *(one for one in outcomes if isinstance(one, ApiError))])


async def _send(call: Call, device: Device, index: int, order: Order) -> CommandResult | ApiError:
    try:
        result: CommandResult = await call.parts.orders.send(device, order.name, order.properties, order.timeout)
    except GatewayError as error:
        return refusal(error, index=index, device_id=device.id)
    if result.executed:
        return msgspec.structs.replace(result, timestamp=round(time.time(), 6))
    hint = ON_UDP if not call.parts.orders.reaches(device) and _is_on_udp(call, device) else ""
    return ApiError.bad_request(f"{result.error}{hint}", id=result.id, index=index, device_id=device.id)


def _is_on_udp(call: Call, device: Device) -> bool:
    """Whether its last packet, on any channel, was a datagram."""
    seen = (call.parts.idents.find(channel_id, device.ident) for channel_id in call.parts.items.channels)
    latest = max((one for one in seen if one is not None), key=lambda one: one.last, default=None)
    return latest is not None and latest.transport == "udp"


def _check_number(number: int, most: int) -> None:
    if number > most:
        raise ApiError.too_large(f"{number} commands in all; {most} are possible in one call: select fewer devices")


# -- the queue


async def enqueue(call: Call) -> Answer:
    """POST."""
    names = COMMANDS.chosen(call.query.fields)
    devices, errors = await select_devices(call)
    _check_number(len(devices) * len(call.entries), QUEUED_MOST)
    jobs = (
        (
            {"index": entry.index, "device_id": device.id},
            lambda device=device, new=entry.value: _enqueue(call, device, new),
        )
        for device in devices
        for entry in call.entries
    )
    queued, more = await one_by_one(jobs)
    return Answer([COMMANDS.project(command, names) for command in queued], [*errors, *more])


async def _enqueue(call: Call, device: Device, new: NewCommand) -> QueuedCommand:
    command: QueuedCommand = await call.parts.orders.enqueue(device, new)
    return command


async def list_queue(call: Call) -> Answer:
    """GET."""
    names = COMMANDS.chosen(call.query.fields)
    chosen, errors = await _select_queued(call)
    page, extra = paginate(chosen, call.query)
    return Answer([COMMANDS.project(command, names) for command in page], errors, extra)


async def remove(call: Call) -> Answer:
    """DELETE: what was removed."""
    names = COMMANDS.chosen(call.query.fields)
    chosen, errors = await _select_queued(call)
    removed: list[QueuedCommand] = []
    for device_id in dict.fromkeys(command.device_id for command in chosen):
        ids = [command.id for command in chosen if command.device_id == device_id]
        removed += await call.parts.orders.remove(device_id, ids)
    return Answer([COMMANDS.project(command, names) for command in removed], errors)


async def _select_queued(call: Call) -> tuple[list[QueuedCommand], list[ApiError]]:
    """Those that wait for the devices, and that the path means, in the order in which they are sent."""
    devices, errors = await select_devices(call)
    ids = [device.id for device in devices]
    if len(ids) > 1:
        ids = _bounded(await call.parts.commands.devices(), ids)
    waiting = [command for id in ids for command in await call.parts.commands.waiting(id)]
    chosen, more = await select(
        call.path["commands"], {command.id: command for command in waiting}, COMMANDS, turn=call.parts.turn
    )
    wanted = {command.id for command in chosen}
    return [command for command in waiting if command.id in wanted], [*errors, *more]


def _bounded(those: Iterable[int], ids: Sequence[int]) -> list[int]:
    found = [id for id in ids if id in those]
    if len(found) > DEVICES_MOST:
        raise ApiError.too_large(f"the commands of {len(found)} devices; {DEVICES_MOST} are possible in one call")
    return found


# -- results


async def read_results(call: Call) -> Answer:
    """GET with ``data``: by the time when they were over."""
    wishes = Wishes.of(call.data, call.parts.turn)
    devices, errors = await select_devices(call)
    ids = [device.id for device in devices]
    _bounded(ids, ids)
    if not ids:
        return Answer(errors=errors)
    return Answer(wishes.fulfil(call.parts.commands.results(ids, call.data.span)), errors)


async def list_results(call: Call) -> Answer:
    """GET of some, such as one by its id."""
    names = RESULTS.chosen(call.query.fields)
    devices, errors = await select_devices(call)
    ids = [device.id for device in devices]
    _bounded(ids, ids)
    found: dict[int, CommandResult] = {}
    async with aclosing(call.parts.commands.results(ids, Span())) as chunks:
        async for texts in chunks:
            for text in texts:
                result = msgspec.json.decode(text, type=CommandResult)
                found[result.id] = result
    chosen, more = await select(call.path["results"], found, RESULTS, turn=call.parts.turn)
    page, extra = paginate(chosen, call.query)
    return Answer([RESULTS.project(result, names) for result in page], [*errors, *more], extra)


QUEUE = "/gw/devices/{devices}/commands-queue"
RESULT = "/gw/devices/{devices}/commands-result"
QUEUE_RIGHT, RESULT_RIGHT = Right("gw/devices", "commands-queue"), Right("gw/devices", "commands-result")

OPERATIONS = [
    Operation(
        "POST", "/gw/devices/{devices}/commands", send, "Send commands to devices, and wait for their answers",
        access=Right("gw/devices", "commands"), body=list[Order], result=ResultView,
    ),
    Operation(
        "POST", QUEUE, enqueue, "Have commands wait for devices",
        access=QUEUE_RIGHT, query=FieldsQuery, body=list[NewCommand], result=CommandView,
    ),
    Operation(
        "GET", f"{QUEUE}/{{commands}}", list_queue, "The commands that wait for devices",
        access=QUEUE_RIGHT, query=ItemsQuery, result=CommandView,
    ),
    Operation(
        "DELETE", f"{QUEUE}/{{commands}}", remove, "Remove commands that wait",
        access=QUEUE_RIGHT, query=FieldsQuery, result=CommandView,
    ),
    Operation(
        "GET", RESULT, read_results, "What became of commands",
        access=RESULT_RIGHT, data=MessagesQuery, result=ResultView,
    ),
    Operation(
        "GET", f"{RESULT}/{{results}}", list_results, "What became of some commands",
        access=RESULT_RIGHT, query=ItemsQuery, result=ResultView,
    ),
]  # fmt: skip
