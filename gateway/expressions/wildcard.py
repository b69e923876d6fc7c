"""Masks: ``*`` stands for any text, also none, ``?`` for one character; ``\\*``, ``\\?`` and ``\\\\`` for themselves.

Without regular expressions: each part between two stars is searched once, from where the part before it ended, and the
earliest place is always good enough. So a match costs time linear in the text, whatever the mask and the text are.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Test = Callable[[str], bool]
Find = Callable[[str, int], int]
Part = list[str | None]
"""What stands between two stars, character by character; None is ``?``."""

_SIGN = re.compile(r"\\(?P<escaped>[*?\\])|(?P<star>\*+)|(?P<any>\?)|(?P<text>.)", re.DOTALL)


def has_wildcards(mask: str) -> bool:
    """Whether ``mask`` is more than a text: it has a ``*`` or a ``?``, be it escaped."""
    return "*" in mask or "?" in mask


def is_slow(mask: str) -> bool:
    """Whether the mask must be matched character by character: it has a ``?`` between two stars."""
    return any(None in part for part in _parts(mask)[1:-1])


def wildcard(mask: str) -> Test:
    """The test whether a text matches ``mask`` as a whole; upper and lower case differ."""
    parts = _parts(mask)
    if len(parts) == 1:
        return _equal(parts[0])
    first, *middle, last = parts
    if not (middle or first) and None not in last:
        return _ends_with("".join(filter(None, last)))
    if not (middle or last) and None not in first:
        return _starts_with("".join(filter(None, first)))
    return _several(first, [_finder(part) for part in middle], last)


def _parts(mask: str) -> list[Part]:
    parts: list[Part] = [[]]
    for sign in _SIGN.finditer(mask):
        if sign["star"]:
            parts.append([])
        else:
            parts[-1].append(None if sign["any"] else sign["escaped"] or sign["text"])
    return parts


def _equal(part: Part) -> Test:
    if None not in part:
        return "".join(filter(None, part)).__eq__
    return lambda text: len(text) == len(part) and _fits(part, text, 0)


def _starts_with(prefix: str) -> Test:
    return lambda text: text.startswith(prefix)


def _ends_with(suffix: str) -> Test:
    return lambda text: text.endswith(suffix)


def _several(first: Part, middle: list[Find], last: Part) -> Test:
    least = len(first) + len(last)

    def matches(text: str) -> bool:
        end = len(text) - len(last)
        if len(text) < least or not (_fits(first, text, 0) and _fits(last, text, end)):
            return False
        at = len(first)
        for find in middle:
            at = find(text, at)
            if at < 0:
                return False
        return at <= end

    return matches


def _fits(part: Part, text: str, begin: int) -> bool:
    return all(sign is None or text[at] == sign for at, sign in enumerate(part, begin))


def _finder(part: Part) -> Find:
    """Finds the part's first place at or after a position; the answer is where it ends, or -1."""
    return _find_any(part) if None in part else _find_text("".join(filter(None, part)))


def _find_text(wanted: str) -> Find:
    length = len(wanted)

    def find(text: str, begin: int) -> int:
        at = text.find(wanted, begin)
        return at + length if at >= 0 else -1

    return find


def _find_any(part: Part) -> Find:
    """With ``?``: all places at once, a bit of an integer for each sign that fits so far (Baeza-Yates and Gonnet)."""
    anything = sum(1 << at for at, sign in enumerate(part) if sign is None)
    fitting = {sign: anything for sign in part if sign is not None}
    for at, sign in enumerate(part):
        if sign is not None:
            fitting[sign] |= 1 << at
    complete = 1 << (len(part) - 1)

    def find(text: str, begin: int) -> int:
        state = 0
        for at in range(begin, len(text)):
            state = (state << 1 | 1) & fitting.get(text[at], anything)
            if state & complete:
                return at + 1
        return -1

    return find
