"""Several requests at a time, where only those that follow one another in a lane must keep their order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

P = TypeVar("P")
R = TypeVar("R")


async def side_by_side(lanes: Iterable[P], run: Callable[[P], Awaitable[list[R]]], most: int) -> list[R]:
    """Run each lane, ``most`` at a time; all end, then the first error of any is raised.

    After an error no other lane begins: a target that is away is asked for once by each that has begun.
    """
    places = asyncio.Semaphore(most)
    failed = False

    async def run_one(lane: P) -> list[R]:
        nonlocal failed
        async with places:
            if failed:
                return []
            try:
                return await run(lane)
            except BaseException:
                failed = True
                raise

    results = await asyncio.gather(*map(run_one, lanes), return_exceptions=True)
    found: list[R] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        found += result
    return found
