"""Changes that are brought to their end once they have begun."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar, cast

Action = TypeVar("Action", bound=Callable[..., Coroutine[Any, Any, Any]])


def whole(change: Action) -> Action:
    """A change that has begun is brought to its end, also where whoever wanted it is gone: a client that hung up.

    A method of an object with ``under_way``: a set of those that have begun.
    """

    @wraps(change)
    async def run(owner: Any, *args: Any, **values: Any) -> Any:
        task = asyncio.ensure_future(change(owner, *args, **values))
        owner.under_way.add(task)
        task.add_done_callback(owner.under_way.discard)
        return await asyncio.shield(task)

    return cast(Action, run)
