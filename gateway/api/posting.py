"""Which messages may be posted to devices: what is wrong with one is said of it, the others are taken."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from gateway.api.call import Entry, is_deeper
from gateway.api.errors import ApiError
from gateway.mqtt.topics import is_safe_level

KiB = 1024

MESSAGES_MOST = 10_000
"""In one call, over all devices."""
YIELD_AFTER = 200
"""Messages that are looked at, some 2 ms."""
MESSAGE_BYTES_MOST = 64 * KiB
"""As much as a packet of a tracker may have."""
PARAMETERS_MOST = 1024
"""As many as telemetry keeps."""
NAME_MOST = 128
LEVELS_MOST = 8
LATEST = 2**32 - 1
"""The year 2106."""
TIMES = ("timestamp", "timestamp.key")

Message = dict[str, Any]


async def checked(entries: list[Entry[Message]]) -> tuple[list[Message], list[ApiError]]:
    """The messages that can be posted, and an error for each that cannot."""
    messages, errors = [], []
    for count, entry in enumerate(entries, 1):
        if count % YIELD_AFTER == 0:
            await asyncio.sleep(0)
        try:
            _check(entry.value)
            messages.append(entry.value)
        except ApiError as error:
            errors.append(error.at(index=entry.index))
    return messages, errors


def _check(message: Message) -> None:
    if not message:
        raise ApiError.bad_request("the message is empty")
    if len(message) > PARAMETERS_MOST:
        raise ApiError.bad_request(f"the message has {len(message)} parameters; {PARAMETERS_MOST} are possible")
    for name in message:
        if len(name) > NAME_MOST or not is_safe_level(name):
            raise ApiError.bad_request(
                f"a parameter's name has 1 to {NAME_MOST} printable characters, without / # +", field=name[:NAME_MOST]
            )
    for name in TIMES:
        _check_time(name, message.get(name, 0.0))
    if any(is_deeper(value, LEVELS_MOST - 1) for value in message.values()):
        raise ApiError.bad_request(f"the message is nested deeper than {LEVELS_MOST} levels")
    size = len(orjson.dumps(message))
    if size > MESSAGE_BYTES_MOST:
        raise ApiError.bad_request(f"the message has {size} bytes; {MESSAGE_BYTES_MOST} are possible")


def _check_time(name: str, value: Any) -> None:
    if type(value) not in (int, float) or not 0 <= value <= LATEST:
        raise ApiError.bad_request(f"{name} should be a number: UNIX seconds, from 0 to {LATEST}", field=name)
