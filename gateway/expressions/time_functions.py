"""Functions of time: unix seconds in the timezone of the context; without an argument, of the message's timestamp."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from gateway.expressions.context import Context
from gateway.expressions.function import Function, Message, before, of_message
from gateway.expressions.operators import subtract
from gateway.expressions.values import Number, bounded, number

TIMESTAMP = "timestamp"


def _of_date(part: Callable[[datetime], int]) -> Callable[..., int]:
    def applied(message: Message, context: Context, *arguments: Any) -> int:
        timestamp = bounded(number(arguments[0] if arguments else of_message(message, TIMESTAMP)))
        try:
            return part(datetime.fromtimestamp(timestamp, context.timezone))
        except (ValueError, OverflowError, OSError):
            raise ValueError(f"{timestamp} is no time in unix seconds") from None

    return applied


def _now(message: Message, context: Context) -> float:
    return context.clock()


def _duration(message: Message, context: Context) -> Number:
    return subtract(of_message(message, TIMESTAMP), of_message(before(context), TIMESTAMP))


_BARE = frozenset({TIMESTAMP})


def _date_function(name: str, description: str, part: Callable[[datetime], int]) -> Function:
    return Function(f"{name}([timestamp])", description, apply_to=_of_date(part), reads_bare=_BARE)


TIME_FUNCTIONS = [
    _date_function("second", "the second of the minute, 0 to 59", lambda at: at.second),
    _date_function("minute", "the minute of the hour, 0 to 59", lambda at: at.minute),
    _date_function("hour", "the hour of the day, 0 to 23, in the timezone of the evaluation", lambda at: at.hour),
    _date_function("day", "the day of the month, 1 to 31", lambda at: at.day),
    _date_function("weekday", "the day of the week, 0 is Sunday and 6 is Saturday", lambda at: at.isoweekday() % 7),
    _date_function("yearday", "the day of the year, 1 to 366", lambda at: at.timetuple().tm_yday),
    _date_function("month", "the month, 1 to 12", lambda at: at.month),
    _date_function("year", "the year", lambda at: at.year),
    Function("now()", "the time of the evaluation in unix seconds", apply_to=_now),
    Function("duration()", "seconds since the previous message", apply_to=_duration, reads=_BARE, needs_previous=True),
]
