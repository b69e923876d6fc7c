"""What a function of the language is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from gateway.expressions.context import Context

Apply = Callable[..., Any]
Message = Mapping[str, Any]
ARGUMENTS_MOST = 32
"""Of a function that takes any number of them."""


@frozen
class Function:
    """A row of the table of functions.

    ``apply`` gets the values of the arguments; ``apply_to``, if that is there instead, the message and the context
    before them. Both raise ValueError with a reason for the reader. A function with neither is the compiler's own.
    ``reads`` are the parameters that it looks at by itself; ``reads_bare`` those without any argument.
    """

    usage: str
    description: str
    apply: Apply | None = None
    apply_to: Callable[..., Any] | None = None
    reads: frozenset[str] = frozenset()
    reads_bare: frozenset[str] = frozenset()
    needs_previous: bool = False

    @property
    def name(self) -> str:
        """What stands before the parenthesis."""
        return self.usage.partition("(")[0]

    @property
    def least(self) -> int:
        """Arguments at least: those of ``usage`` that stand outside of brackets."""
        return _count(self.usage.partition("[")[0])

    @property
    def most(self) -> int:
        """Arguments at most."""
        return ARGUMENTS_MOST if "..." in self.usage else _count(self.usage)

    def as_dict(self) -> dict[str, Any]:
        """As flespi's API tells it: name, usage, description, and how many arguments."""
        arguments = {"min": self.least, "max": self.most}
        return {"name": self.name, "usage": self.usage, "description": self.description, "arguments": arguments}


class Missing(ValueError):
    """What a function reads is not there."""


def _count(usage: str) -> int:
    words = usage.partition("(")[2].strip("[]).").replace("[", "").split(",")
    return len([word for word in words if word.strip()])


def of_message(message: Message, name: str) -> Any:
    """A parameter that a function needs. Raises Missing."""
    if name not in message:
        raise Missing(f"the message has no {name}")
    return message[name]


def before(context: Context) -> Message:
    """The message before this one. Raises Missing where none is known."""
    if context.previous is None:
        raise Missing("no previous message is known here")
    return context.previous
