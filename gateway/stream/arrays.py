"""Batches as JSON arrays, and what becomes of one that is refused as a whole because of a single message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import orjson

from gateway.errors import RemoteRefused
from gateway.stream.target import Outgoing, Rejection
from gateway.web import Answer

OF_THE_BATCH = (400, 413, 422)
"""Statuses that speak of what was sent, not of the server or of who sent it."""

Part = Sequence[tuple[int, Outgoing]]
"""Some messages of a batch, with their places in it."""
Send = Callable[[Sequence[Outgoing]], Awaitable[Answer]]


def array(texts: Iterable[bytes]) -> bytes:
    """Of what is JSON already."""
    return b"[%b]" % b",".join(texts)


def with_needed(outgoing: Outgoing, needed: Callable[[str], bool]) -> bytes:
    """The message as it is sent, with what the target cannot do without: under its own name, whatever was chosen."""
    if outgoing.original is None:
        return outgoing.text
    missing = {name: value for name, value in outgoing.original.items() if needed(name)}
    return orjson.dumps({**outgoing.message, **missing})


def grouped(batch: Sequence[Outgoing], key: Callable[[Outgoing], str]) -> dict[str, list[tuple[int, Outgoing]]]:
    """The parts of a batch that go to the same place, each in the batch's order."""
    groups: dict[str, list[tuple[int, Outgoing]]] = {}
    for index, outgoing in enumerate(batch):
        groups.setdefault(key(outgoing), []).append((index, outgoing))
    return groups


async def post(send: Send, part: Part, *, skips: bool) -> list[Rejection]:
    """Send a part: status 200 takes it. Raises RemoteUnavailable and RemoteRefused.

    ``skips``: where it is refused for what it has, it is halved until what is refused is a single message.
    """
    answer = await send([outgoing for _, outgoing in part])
    if answer.status == 200:
        done(part)
        return []
    return await halved(send, part, answer.refusal(), skips=skips)


async def halved(send: Send, part: Part, refusal: RemoteRefused, *, skips: bool) -> list[Rejection]:
    """After a refusal of the whole part."""
    if not skips or refusal.status not in OF_THE_BATCH:
        raise refusal
    if len(part) == 1:
        return [Rejection(part[0][0], refusal.reason)]
    middle = len(part) // 2
    first = await post(send, part[:middle], skips=skips)
    return [*first, *await post(send, part[middle:], skips=skips)]


def done(part: Part) -> None:
    """The target has it: it is not sent again where another part fails."""
    for _, outgoing in part:
        outgoing.is_done = True
