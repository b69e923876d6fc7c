"""What a person, or a program, sees of a fleet: a live table, plain lines, or JSON; and a summary at the end."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from itertools import chain, repeat
from types import TracebackType
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.emulator.observers import plural
from gateway.emulator.tally import Tally, merged

_RATE_SECONDS = 5.0
# Narrow, so that a table of a million records fits into a terminal of 80 columns.
_COLUMNS = ("connected", "records", "acknow-\nledged", "waiting", "sent\nagain", "rec./s", "ack ms\np50", "p99")


class View(Protocol):
    """Shows the tallies; used as a context, so that a screen is left tidy."""

    period: float  # seconds between two updates

    def __enter__(self) -> View: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, tallies: Sequence[Tally], seconds: float) -> None: ...
    def summary(self, tallies: Sequence[Tally], seconds: float) -> None: ...


class Quiet:
    """Only the summary."""

    period = 0.5

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def __enter__(self) -> Quiet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There is nothing to tidy up."""

    def update(self, tallies: Sequence[Tally], seconds: float) -> None:
        """Nothing."""

    def summary(self, tallies: Sequence[Tally], seconds: float) -> None:
        for tally in tallies if len(tallies) == 1 else [*tallies, merged(list(tallies), "all")]:
            self._print(summarize(tally))

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)


class Rates:
    """How many records a second are acknowledged, of late: over the updates of the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, list[int]]] = deque([(0.0, [])])

    def update(self, tallies: Sequence[Tally], seconds: float) -> list[float]:
        """Records a second of each group."""
        self._seen.append((seconds, [tally.acknowledged for tally in tallies]))
        while len(self._seen) > 2 and self._seen[1][0] < seconds - _RATE_SECONDS:
            self._seen.popleft()
        since, before = self._seen[0]
        span = max(seconds - since, 1e-3)
        return [
            (tally.acknowledged - old) / span for tally, old in zip(tallies, chain(before, repeat(0)), strict=False)
        ]


class Lines(Quiet):
    """A line for each group, every few seconds."""

    period = 5.0

    def __init__(self, out: TextIO | None = None) -> None:
        super().__init__(out)
        self._rates = Rates()

    def update(self, tallies: Sequence[Tally], seconds: float) -> None:
        for tally, rate in zip(tallies, self._rates.update(tallies, seconds), strict=True):
            self._print(f"{time.strftime('%H:%M:%S')} {line(tally, rate)}")


class JsonLines(Quiet):
    """A JSON object for each update, and a last one of the kind "summary"."""

    period = 1.0

    def update(self, tallies: Sequence[Tally], seconds: float) -> None:
        self._print(_json("progress", tallies, seconds))

    def summary(self, tallies: Sequence[Tally], seconds: float) -> None:
        self._print(_json("summary", tallies, seconds))


class Screen(Quiet):
    """A table that stays in its place and moves."""

    period = 0.25

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._rates = Rates()
        self._live = Live(console=console or Console(), auto_refresh=False)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, tallies: Sequence[Tally], seconds: float) -> None:
        self._live.update(table(tallies, seconds, self._rates.update(tallies, seconds)), refresh=True)


def table(tallies: Sequence[Tally], seconds: float, rates: Sequence[float]) -> Table:
    """The fleet at a glance: a row for each group, and one for all where there are several."""
    total = merged(list(tallies))
    title = f"{total.devices:,} trackers, {_clock(seconds)}"
    if total.rejected:
        title += f", {_rejected(total)}"
    made = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("group", no_wrap=True)
    for name in _COLUMNS:
        made.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    for tally, rate in zip(tallies, rates, strict=True):
        made.add_row(*_cells(tally, rate))
    if len(tallies) > 1:
        made.add_row(*_cells(merged(list(tallies), "all"), sum(rates)), style="bold")
    return made


def line(tally: Tally, rate: float) -> str:
    """A group in one line."""
    return (
        f"{tally.name}: {tally.connected:,} of {tally.devices:,} connected, {tally.recorded:,} records, "
        f"{tally.acknowledged:,} acknowledged ({rate:,.0f}/s), "
        f"{tally.waiting:,} waiting, {tally.packets_sent_again:,} packets sent again, ack {_quantiles(tally)}"
        f"{', ' + _rejected(tally) if tally.rejected else ''}"
    )


def summarize(tally: Tally) -> str:
    """Everything in two lines, or three where something went wrong on request."""
    text = (
        f"{tally.name}: {plural(tally.recorded, 'record')} made, {tally.acknowledged:,} acknowledged, "
        f"{tally.waiting:,} not acknowledged, {tally.dropped:,} dropped\n"
        f"{plural(tally.packets, 'packet')}, {tally.packets_sent_again:,} sent again, "
        f"{plural(tally.connections, 'connection')}; {_times(tally)}"
    )
    if tally.commands:
        text += f"; {plural(tally.commands, 'command')}"
    if tally.rejected:
        text += f"; {_rejected(tally)}"
    if tally.faults:
        text += "\nfaults: " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in tally.faults.items())
    return text


def _rejected(tally: Tally) -> str:
    return f"{plural(tally.rejected, 'ident')} rejected (verdict 00)"


def _cells(tally: Tally, rate: float) -> list[str | Text]:
    connected = f"{tally.connected:,}/{tally.devices - tally.finished:,}"
    is_whole = tally.connected == tally.devices - tally.finished
    return [
        tally.name,
        Text(connected, "green" if is_whole else "yellow"),
        f"{tally.recorded:,}",
        f"{tally.acknowledged:,}",
        Text(f"{tally.waiting:,}", "" if tally.waiting <= tally.devices * 10 else "yellow"),
        f"{tally.packets_sent_again:,}",
        f"{rate:,.0f}",
        _number(tally.latencies.quantile(0.5)),
        _number(tally.latencies.quantile(0.99)),
    ]


def _times(tally: Tally) -> str:
    latencies = tally.latencies
    if not latencies.counts:
        return "no acknowledgement"
    times = " / ".join(
        _number(seconds) for seconds in (latencies.quantile(0.5), latencies.quantile(0.99), latencies.longest)
    )
    return f"acknowledged after {times} ms (p50 / p99 / longest)"


def _quantiles(tally: Tally) -> str:
    return f"p50 {_ms(tally.latencies.quantile(0.5))}, p99 {_ms(tally.latencies.quantile(0.99))}"


def _ms(seconds: float) -> str:
    return f"{_number(seconds)} ms" if seconds else "-"


def _number(seconds: float) -> str:
    return f"{seconds * 1e3:,.{1 if seconds < 0.1 else 0}f}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def _json(kind: str, tallies: Sequence[Tally], seconds: float) -> str:
    total = merged(list(tallies), "all")
    groups = [tally.as_dict() for tally in tallies]
    return json.dumps({"kind": kind, "seconds": round(seconds, 3), "groups": groups, "all": total.as_dict()})
