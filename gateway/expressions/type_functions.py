"""Functions that tell or change the kind of a value, and those that the compiler itself makes."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from gateway.expressions.function import Function
from gateway.expressions.values import NUMBERS, Number, as_text, number, number_in, text, truth, whole

_NUMBER = re.compile(r"\s*([+-]?)(0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*", re.ASCII)
_BASE_MOST = 36
_DIGITS_MOST = 256
FALSE_TEXTS = ("", "0", "false")


def _is_number(value: Any) -> bool:
    return value.__class__ in NUMBERS and value.__class__ is not bool


def _to_number(value: Any, base: Any = None) -> Number | None:
    if not isinstance(value, str):
        return whole(number(value)) if isinstance(value, bool) or value is None else number(value)
    if base is not None:
        return _in_base(text(value).strip(), base)
    match = _NUMBER.fullmatch(text(value))
    found = number_in(match[2]) if match else None
    return -found if match and found is not None and match[1] == "-" else found


def _in_base(digits: str, base: Any) -> Number | None:
    if not _is_number(base) or not 2 <= base <= _BASE_MOST or base != int(base):
        raise ValueError(f"the base of tonumber() should be 2 to {_BASE_MOST}")
    try:
        return whole(int(digits[: _DIGITS_MOST + 1], int(base))) if len(digits) <= _DIGITS_MOST else None
    except ValueError:
        return None


def _to_boolean(value: Any) -> bool:
    return value.strip().lower() not in FALSE_TEXTS if isinstance(value, str) else truth(value)


def _fail(reason: Any = "error()") -> NoReturn:
    raise ValueError(as_text(reason))


TYPE_FUNCTIONS = [
    Function("if(condition, yes, no)", "yes where the condition holds, else no; only one of them is evaluated"),
    Function("not(x)", "true where x is 0, false or null"),
    Function("exists(name[, ...])", 'whether the message has all these parameters: exists("position.latitude")'),
    Function("param(name)", 'a parameter whose name is no word of the language: param("my-name")'),
    Function("previous(name)", 'the value of a parameter in the message before, as #name: previous("din.1")'),
    Function("error([reason])", "no value: the evaluation ends with an error", _fail),
    Function("isnull(x)", "whether x is null: isnull($name) holds where the parameter is missing", lambda x: x is None),
    Function("isnumber(x)", "whether x is a number", _is_number),
    Function("isstring(x)", "whether x is a text", lambda x: isinstance(x, str)),
    Function("isboolean(x)", "whether x is true or false", lambda x: isinstance(x, bool)),
    Function("isjson(x)", "whether x is an array or an object", lambda x: isinstance(x, list | dict)),
    Function("tonumber(x[, base])", "x as a number; null where a text is none", _to_number),
    Function("toboolean(x)", 'x as true or false; the texts "", "0" and "false" are false', _to_boolean),
    Function("tostring(x)", "x as a text; an array or object as JSON", as_text),
]
