"""A run of the emulator in one process: the trackers of a share, their view, and how signals end it."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from gateway.emulator.capture import Recording
from gateway.emulator.endpoint import Endpoint, parse_address, tls_context
from gateway.emulator.fleet import Fleet, Plan, Share
from gateway.emulator.observers import Counting, Talking
from gateway.emulator.tally import Tally
from gateway.emulator.view import Quiet, Screen, View

FLUSH_SECONDS = 5.0  # after Ctrl-C, for what is still to be sent and acknowledged


def device_count(options: argparse.Namespace) -> int:
    """How many trackers there are."""
    return len(options.captured) or sum(group.devices for group in options.made.groups)


def run_share(options: argparse.Namespace, share: Share, view: View) -> Sequence[Tally]:
    """Run a share of the trackers to its end; what it did. Raises NeverConnected and ConfigError."""
    return asyncio.run(_run(options, share, view))


async def _run(options: argparse.Namespace, share: Share, view: View) -> Sequence[Tally]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with ExitStack() as stack:
        tap = stack.enter_context(Recording(options.record, is_first=False)) if options.record else None
        observe = _talking(options) if type(view) is Quiet and device_count(options) == 1 else Counting
        plan = Plan(options.made, _endpoint(options), observe, tap, share, tuple(options.captured))
        fleet, delays = plan.fleet(began)
        running = asyncio.create_task(fleet.run(began, delays, wait=options.wait))
        _end_on_signals(fleet.stop, running)
        if options.duration:
            loop.call_later(options.duration, fleet.stop)
        stack.enter_context(view)
        await _shown(running, view, fleet, began)
    view.summary(fleet.tallies, loop.time() - began)
    return fleet.tallies


async def _shown(running: asyncio.Task[None], view: View, fleet: Fleet, began: float) -> None:
    """Update the view until the fleet is done. Raises what the fleet raises."""
    loop = asyncio.get_running_loop()
    while not running.done():
        await asyncio.wait([running], timeout=view.period)
        if not running.done() or isinstance(view, Screen):
            view.update(fleet.tallies, loop.time() - began)
    if not running.cancelled():
        running.result()


def _endpoint(options: argparse.Namespace) -> Callable[[str], Endpoint]:
    needs_tls = any(group.transport == "tls" for group in options.made.groups)
    tls = tls_context(options.ca, options.insecure) if needs_tls else None
    return lambda address: Endpoint(*parse_address(address), tls=tls)


def _talking(options: argparse.Namespace) -> Callable[[Tally], Counting]:
    return lambda tally: Talking(tally, options.quiet)


def _end_on_signals(stop: Callable[[], None], running: asyncio.Task[None]) -> None:
    """The first signal ends the drive and leaves a moment for what is to be sent; a second one ends at once."""
    loop = asyncio.get_running_loop()
    signals_seen = 0

    def end() -> None:
        nonlocal signals_seen
        signals_seen += 1
        stop()
        loop.call_later(FLUSH_SECONDS if signals_seen == 1 else 0, running.cancel)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
