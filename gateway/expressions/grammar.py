"""The grammar, as lark reads it: operators and their priorities are those of C, strings may have either quote.

Two things are flespi's: ``~`` between two texts is a match with a mask (before an operand it stays C's complement), and
a single ``=`` compares, as it did in its older filters.
"""

from __future__ import annotations

from functools import cache

from lark import Lark

GRAMMAR = r"""
?start: choice

?choice: either | either "?" choice ":" choice
?either: both (OR both)*
?both: any_bit (AND any_bit)*
?any_bit: odd_bit (PIPE odd_bit)*
?odd_bit: all_bits (CARET all_bits)*
?all_bits: equality (AMPERSAND equality)*
?equality: order ((EQUAL | TILDE) order)*
?order: shift (ORDER shift)*
?shift: sum (SHIFT sum)*
?sum: product ((PLUS | MINUS) product)*
?product: operand (FACTOR operand)*

?operand: (PLUS | MINUS | NOT | TILDE) operand -> prefix
    | NUMBER -> number
    | TEXT -> text
    | NAME -> name
    | MARKED -> marked
    | NAME "(" [choice ("," choice)*] ")" -> call
    | "(" choice ")"

OR: "||"
AND: "&&"
PIPE: "|"
CARET: "^"
AMPERSAND: "&"
EQUAL: "==" | "!=" | "="
TILDE: "~"
ORDER: /[<>]=|<(?!<)|>(?!>)/
SHIFT: "<<" | ">>"
PLUS: "+"
MINUS: "-"
FACTOR: "*" | "/" | "%"
NOT: "!"

NUMBER: /0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?/
TEXT: /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/s
NAME: /[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*/
MARKED: /[$#][A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*/

%ignore /[ \t\r\n\f]+/
"""

WRITTEN = {
    "OR": "||",
    "AND": "&&",
    "PIPE": "|",
    "CARET": "^",
    "AMPERSAND": "&",
    "QMARK": "?",
    "COLON": ":",
    "COMMA": ",",
    "LPAR": "(",
    "RPAR": ")",
    "$END": "the end",
}
"""How the reader knows the grammar's terminals."""


@cache
def parser() -> Lark:
    """The one parser; made when the first expression comes."""
    return Lark(GRAMMAR, parser="lalr", lexer="contextual", maybe_placeholders=False)
