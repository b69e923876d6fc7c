"""Which messages may be posted to devices: what is wrong with one is said of it, the others are taken."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway import message as msg
from gateway.api.call import Entry
from gateway.api.errors import ApiError

MESSAGES_MOST = 10_000
"""In one call, over all devices."""
YIELD_AFTER = 200
"""Messages that are looked at, some 2 ms."""

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
    try:
        msg.check_bounds(message)
    except msg.MessageError as error:
        raise ApiError.bad_request(error.reason, **({} if error.field is None else {"field": error.field})) from None
