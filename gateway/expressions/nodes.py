"""What an expression consists of, once it is parsed. ``column`` counts from 1, from the beginning of the text."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

Constant = bool | int | float | str | None


@frozen
class Literal:
    """A number, a text, true, false or null."""

    column: int
    value: Constant


@frozen
class Reference:
    """A parameter: ``name``, ``$name`` (null where it is missing) or ``#name`` (of the message before)."""

    column: int
    sign: str
    name: str


@frozen
class Call:
    """A function and its arguments."""

    column: int
    name: str
    arguments: Sequence[Node]


@frozen
class Prefix:
    """One operand behind ``-``, ``+``, ``!`` or ``~``."""

    column: int
    operator: str
    operand: Node


@frozen
class Chain:
    """Operators of one priority, done from left to right: ``a - b + c`` is one, so that its length is no depth."""

    first: Node
    rest: Sequence[Step]

    @property
    def column(self) -> int:
        """Where the first operator stands."""
        return self.rest[0].column


@frozen
class Step:
    """An operator and what stands right of it."""

    column: int
    operator: str
    operand: Node


@frozen
class Choice:
    """``condition ? yes : no``, and ``if(condition, yes, no)``."""

    column: int
    condition: Node
    yes: Node
    no: Node


Node = Literal | Reference | Call | Prefix | Chain | Choice
