"""Text to nodes. Whatever is wrong with the text becomes an ExpressionError that says what was found and expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lark import Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from gateway.errors import ExpressionError
from gateway.expressions.grammar import WRITTEN, parser
from gateway.expressions.nodes import Call, Chain, Choice, Literal, Node, Prefix, Reference, Step
from gateway.expressions.values import number_in, shown

LENGTH_MOST = 4096
DEPTH_MOST = 50
"""Operations within operations; more would be a program. It bounds the stack of compiling and evaluating."""
NODES_MOST = 1000
"""Operands and operations: with the bound on texts, what bounds an evaluation's time."""

CONSTANTS = {"true": True, "false": False, "null": None}
INSTEAD = {"and": "&&", "or": "||", "not": "!", "is": "==", "like": "~"}
"""What other languages write."""

_ESCAPE = re.compile(r"(?P<units>(?:\\u[0-9a-fA-F]{4})+)|\\x(?P<code>[0-9a-fA-F]{2})|\\(?P<sign>.)", re.DOTALL)
_SIGNS = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "/": "/", "\\": "\\", '"': '"', "'": "'"}


def parse(text: str) -> Node:
    """The nodes of an expression. Raises ExpressionError."""
    if len(text) > LENGTH_MOST:
        raise ExpressionError(LENGTH_MOST + 1, f"the expression has {len(text)} characters; {LENGTH_MOST} are possible")
    _check_unicode(text, 1)
    try:
        tree = parser().parse(text)
    except UnexpectedInput as error:
        raise _worded(error, text) from None
    return _Builder().build(tree, 1)


def _check_unicode(text: str, column: int) -> None:
    """Half of a surrogate pair cannot be sent back in UTF-8, nor compared with what others send."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ExpressionError(column + error.start, "half of a character: a surrogate without its other half") from None


def _worded(error: UnexpectedInput, text: str) -> ExpressionError:
    if isinstance(error, UnexpectedToken):
        is_end = error.token.type == "$END"
        column = len(text) + 1 if is_end else _column(error.token)
        found = "the expression ends here" if is_end else f"found {shown(str(error.token))}"
        if not text.strip():
            found = "the expression is empty"
        return ExpressionError(column, f"{found}, expected {_expected(error.accepts)}{_advice(str(error.token))}")
    at = error.pos_in_stream or 0
    sign = text[at : at + 1]
    if sign in ("'", '"'):
        return ExpressionError(at + 1, f"the text that begins here has no closing {sign}")
    allowed = error.allowed if isinstance(error, UnexpectedCharacters) else None
    return ExpressionError(at + 1, f"found {shown(sign)}, expected {_expected(allowed)}")


def _column(token: Token) -> int:
    return (token.start_pos or 0) + 1


def _expected(terminals: Any) -> str:
    names = set(terminals or ())
    if "NUMBER" in names:
        return "a value: a number, a text in quotes, a parameter, a function or ("
    if names == {"$END"}:
        return "an operator or the end"
    if "PLUS" not in names:
        return " or ".join(WRITTEN.get(name, name) for name in sorted(names, reverse=True))
    ends = [WRITTEN[name] for name in ("COLON", "COMMA", "RPAR", "$END") if name in names]
    return "an operator" + (f" or {ends[-1]}" if len(ends) == 1 else "")


def _advice(word: str) -> str:
    instead = INSTEAD.get(word.lower())
    return f"; write {instead} for {word}" if instead else ""


class _Builder:
    """Turns lark's tree into nodes and counts them."""

    def __init__(self) -> None:
        self._count = 0

    def build(self, tree: Tree[Token], depth: int) -> Node:
        head = _head(tree)
        column = _column(head)
        self._count += 1
        if self._count > NODES_MOST:
            raise ExpressionError(column, f"the expression has more than {NODES_MOST} operands and operators")
        if depth > DEPTH_MOST:
            raise ExpressionError(column, f"more than {DEPTH_MOST} operations stand within each other here")
        build: Callable[[_Builder, int, Tree[Token], int], Node] = _BUILDERS.get(tree.data, _Builder._chain)
        return build(self, column, tree, depth + 1)

    def _number(self, column: int, tree: Tree[Token], depth: int) -> Node:
        written = str(tree.children[0])
        value = number_in(written)
        if value is None:
            raise ExpressionError(column, f"{shown(written)} is too large for a number")
        return Literal(column, value)

    def _text(self, column: int, tree: Tree[Token], depth: int) -> Node:
        written = str(tree.children[0])[1:-1]
        value = _ESCAPE.sub(_unescaped, written) if "\\" in written else written
        _check_unicode(value, column)
        return Literal(column, value)

    def _name(self, column: int, tree: Tree[Token], depth: int) -> Node:
        name = str(tree.children[0])
        return Literal(column, CONSTANTS[name]) if name in CONSTANTS else Reference(column, "", name)

    def _marked(self, column: int, tree: Tree[Token], depth: int) -> Node:
        written = str(tree.children[0])
        return Reference(column, written[0], written[1:])

    def _call(self, column: int, tree: Tree[Token], depth: int) -> Node:
        name, *arguments = tree.children
        return Call(column, str(name), [self.build(_branch(argument), depth) for argument in arguments])

    def _prefix(self, column: int, tree: Tree[Token], depth: int) -> Node:
        return Prefix(column, str(tree.children[0]), self.build(_branch(tree.children[1]), depth))

    def _chain(self, column: int, tree: Tree[Token], depth: int) -> Node:
        first, *rest = tree.children
        signs, operands = rest[::2], rest[1::2]
        steps = [
            Step(_column(sign), str(sign), self.build(_branch(operand), depth))
            for sign, operand in zip(signs, operands, strict=True)
            if isinstance(sign, Token)
        ]
        return Chain(self.build(_branch(first), depth), steps)

    def _choice(self, column: int, tree: Tree[Token], depth: int) -> Node:
        condition, yes, no = (self.build(_branch(child), depth) for child in tree.children)
        return Choice(column, condition, yes, no)


_BUILDERS: dict[str, Any] = {
    "number": _Builder._number,
    "text": _Builder._text,
    "name": _Builder._name,
    "marked": _Builder._marked,
    "call": _Builder._call,
    "prefix": _Builder._prefix,
    "choice": _Builder._choice,
}


def _branch(child: Tree[Token] | Token) -> Tree[Token]:
    assert isinstance(child, Tree), "the grammar names every operand"
    return child


def _head(tree: Tree[Token]) -> Token:
    """The leftmost token: where the node begins."""
    child = tree.children[0]
    while isinstance(child, Tree):
        child = child.children[0]
    return child


def _unescaped(match: re.Match[str]) -> str:
    if match["units"]:
        units = bytes.fromhex(match["units"].replace("\\u", ""))
        return units.decode("utf-16-be", "surrogatepass")
    if match["code"]:
        return chr(int(match["code"], 16))
    return _SIGNS.get(match["sign"], match[0])
