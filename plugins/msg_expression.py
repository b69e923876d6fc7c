"""Plugin type ``msg-expression``."""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct

from gateway import plugin
from gateway.errors import EvaluationError, ExpressionError, ItemError, MissingParameter
from gateway.expressions import Context as ExpressionContext
from gateway.expressions import compile_expression
from gateway.expressions.parse import LENGTH_MOST
from gateway.plugin import Context, Message, Plugin, PluginError
from gateway.plugin.base import OBLIGATORY, ParameterName

IDENTITY = OBLIGATORY - {"timestamp"}
"""What cannot be computed. ``timestamp`` can: clocks are set to local time."""


class Computed(Struct, forbid_unknown_fields=True, frozen=True):
    """A parameter, and how it is computed."""

    name: Annotated[ParameterName, Meta(description="the parameter that gets the value")]
    expression: Annotated[str, Meta(min_length=1, max_length=LENGTH_MOST, description="what computes the value")]


class MsgExpression(Plugin):
    """Computes parameters by expressions, in their order: each one finds what those before it have computed. Where an
    expression reads a parameter that is missing, its parameter is not set. The previous message (`#name`, `mileage()`)
    is the device's telemetry: the last known value of each parameter."""

    class Config(plugin.Config):
        """The options."""

        expressions: Annotated[
            list[Computed],
            Meta(min_length=1, max_length=100, description="what is computed: objects with name and expression"),
        ]
        timezone: Annotated[
            str, Meta(min_length=1, max_length=64, description="IANA name of the timezone of hour() and its kind")
        ] = "UTC"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._timezone = _timezone(config.timezone)
        self._expressions = [(each.name, compile_expression(each.expression)) for each in config.expressions]
        self.needs_telemetry = any(expression.needs_previous for _, expression in self._expressions)

    @classmethod
    def check(cls, config: Config) -> None:
        """The names, the expressions and the timezone."""
        _timezone(config.timezone)
        for number, each in enumerate(config.expressions):
            where = f"configuration.expressions[{number}]"
            if each.name in IDENTITY:
                raise ItemError(f"{each.name} cannot be overwritten", f"{where}.name")
            try:
                compile_expression(each.expression)
            except ExpressionError as error:
                raise ItemError(str(error), f"{where}.expression") from None

    def process(self, message: Message, context: Context) -> Message:
        """The message with what the expressions give."""
        previous = context.last if self.needs_telemetry else None
        known = ExpressionContext(previous, self._timezone, lambda: context.now)
        for name, expression in self._expressions:
            try:
                message[name] = expression.evaluate(message, known)
            except MissingParameter:
                continue
            except EvaluationError as error:
                raise PluginError(f"{name}: {error}: {expression.text:.200}") from None
        return message


def _timezone(name: str) -> tzinfo:
    """Raises ItemError."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        reason = f"a timezone {name!r} is not known; it should be an IANA name, such as Europe/Vilnius"
        raise ItemError(reason, "configuration.timezone") from None
