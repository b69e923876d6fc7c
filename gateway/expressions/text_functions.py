"""Functions of texts. Positions count characters from 0; a negative one counts from the end."""

from __future__ import annotations

from typing import Any

from gateway.expressions.function import Function
from gateway.expressions.operators import matches
from gateway.expressions.values import TEXT_MOST, as_text, integer, short, text


def _part(value: Any, begin: Any, length: Any = TEXT_MOST) -> str:
    of, first, count = text(value), integer(begin), integer(length)
    if first < 0:
        first = max(0, len(of) + first)
    return of[first : first + max(0, count)]


def _concatenated(*values: Any) -> str:
    return short("".join(as_text(value) for value in values))


def _replaced(value: Any, old: Any, new: Any) -> str:
    of, wanted, instead = text(value), text(old), text(new)
    if not wanted:
        raise ValueError("replace() has nothing to look for: the second argument is empty")
    length = len(of) + of.count(wanted) * (len(instead) - len(wanted))
    if length > TEXT_MOST:
        raise ValueError(f"the text would have {length} characters; {TEXT_MOST} are possible")
    return of.replace(wanted, instead)


TEXT_FUNCTIONS = [
    Function("strlen(text)", "how many characters the text has", lambda value: len(text(value))),
    Function("substr(text, begin[, length])", "a part of the text; a negative begin counts from its end", _part),
    Function(
        "strpos(text, part)", "where the part begins in the text, -1 if nowhere", lambda a, b: text(a).find(text(b))
    ),
    Function("replace(text, old, new)", "the text with every old replaced by new", _replaced),
    Function("concat(x[, ...])", "the arguments as one text", _concatenated),
    Function("upper(text)", "the text in upper case", lambda value: short(text(value).upper())),
    Function("lower(text)", "the text in lower case", lambda value: short(text(value).lower())),
    Function("trim(text)", "the text without white space around it", lambda value: text(value).strip()),
    Function("match(text, mask)", "whether the text matches the mask, as text ~ mask", matches),
]
