"""The diagnostic log: one event a line, as text or as JSON, into the file that twistd was told, or standard error.

Messages of trackers never go here; they have their own ways out.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, Any, cast

import orjson
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEvent,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer, provider

from gateway import metrics

LEVELS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}
COUNTED = (LogLevel.warn, LogLevel.error, LogLevel.critical)
ROTATE_BYTES = 100 * 1024 * 1024
ROTATED_FILES = 10

OURS = "gateway."
LOG_FIRST, LOG_EVERY = 10, 1000


def as_text(event: dict[str, Any]) -> str | None:
    """``2026-11-21T02:50:00.123Z info channel.connection: closed ...``, and a traceback where there is one."""
    text = formatEvent(event)
    if not text and "log_failure" not in event:
        return None
    source = str(event.get("log_namespace", "-")).removeprefix(OURS)
    head = f"{_time(event)} {_level(event)} {source}: {text}"
    return head + _traceback(event) + "\n"


def as_json(event: dict[str, Any]) -> str | None:
    """The event as an object: time, level, source, text, and the event's own fields where JSON can hold them."""
    text = formatEvent(event)
    if not text and "log_failure" not in event:
        return None
    entry: dict[str, Any] = {
        "time": _time(event),
        "level": _level(event),
        "source": event.get("log_namespace", "-"),
        "text": text,
    }
    if "log_failure" in event:
        entry["traceback"] = event["log_failure"].getTraceback()
    entry["fields"] = {
        key: value
        for key, value in event.items()
        if not key.startswith("log_") and isinstance(value, str | int | float | bool | None)
    }
    return orjson.dumps(entry, default=repr, option=orjson.OPT_NON_STR_KEYS).decode() + "\n"


def _time(event: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(event.get("log_time", 0), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _level(event: dict[str, Any]) -> str:
    level = event.get("log_level")
    return level.name if level is not None else "info"


def _traceback(event: dict[str, Any]) -> str:
    failure = event.get("log_failure")
    return f"\n{failure.getTraceback().rstrip()}" if failure is not None else ""


@provider(ILogFilterPredicate)
def _is_chatter(event: dict[str, Any]) -> Any:
    """Twisted's own "Starting factory ..." and the like, which say nothing that the ready message does not."""
    is_error = event.get("isError") or event.get("log_level", LogLevel.info) > LogLevel.info
    is_ours = str(event.get("log_namespace", "")).startswith(OURS)
    return PredicateResult.maybe if is_ours or is_error else PredicateResult.no


@implementer(ILogObserver)
class Observer:
    """Writes events of ``least`` level and above to ``out`` in one of the two forms."""

    def __init__(self, out: IO[str], log_format: str, least: str) -> None:
        write = FileLogObserver(out, as_json if log_format == "json" else as_text)
        predicates = [_is_chatter] if least != "debug" else []
        self._filtered = FilteringLogObserver(write, [*predicates, LogLevelFilterPredicate(LEVELS[least])])

    def __call__(self, event: dict[str, Any]) -> None:
        level = event.get("log_level")
        if level in COUNTED:
            metrics.count("log_events", level=level.name)
        self._filtered(event)


def open_log(arguments: Sequence[str]) -> IO[str]:
    """Where twistd, given ``arguments``, should log: ``--logfile``, else standard error (``-n``) or twistd.log."""
    from twisted.scripts._twistd_unix import ServerOptions

    options = ServerOptions()
    try:
        options.parseOptions(list(arguments))
    except Exception:  # not started by twistd: a test, or somebody's own runner
        return sys.stderr
    name = options["logfile"]
    if name == "-" or (name is None and options["nodaemon"]):
        return sys.stderr
    file = LogFile.fromFullPath(name or "twistd.log", rotateLength=ROTATE_BYTES, maxRotatedFiles=ROTATED_FILES)
    return cast(IO[str], _Text(file))


class _Text:
    """A rotated log file that takes text, as far as an observer asks."""

    def __init__(self, file: LogFile) -> None:
        self._file = file

    def write(self, text: str) -> None:
        self._file.write(text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def reopen(self) -> None:
        """After logrotate has moved the file."""
        self._file.reopen()


class StandardLibrary(logging.Handler):
    """Brings what libraries say through ``logging`` into the same log."""

    def emit(self, record: logging.LogRecord) -> None:
        n = metrics.count("library_warnings", place=f"{record.module}:{record.lineno}")
        if n > LOG_FIRST and n % LOG_EVERY:
            return
        level = "error" if record.levelno >= logging.ERROR else "warn"
        Logger(namespace=record.name).emit(
            LogLevel.lookupByName(level), "{text} ({n}. time)", text=record.getMessage(), n=n
        )


def adopt_standard_library() -> None:
    """Warnings and errors of libraries that use ``logging`` (paho, amqtt, redis, asyncio) go into the same log."""
    root = logging.getLogger()
    root.handlers = [StandardLibrary(level=logging.WARNING)]
    root.setLevel(logging.WARNING)
