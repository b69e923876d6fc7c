"""Plugin type ``item-fields``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any, Literal

from msgspec import Meta

from gateway import plugin
from gateway.errors import ItemError
from gateway.plugin import Context, Message, Plugin, PluginError
from gateway.plugin.base import NAME, NAME_MOST, OBLIGATORY, ParameterName

_is_name = re.compile(NAME).match


class ItemFields(Plugin):
    """Puts fields that do not change into each message: those of the configuration, and those that the plugin has for
    the device, which win over them. The obligatory parameters are never overwritten."""

    class Config(plugin.Config):
        """The options."""

        fields: Annotated[
            dict[ParameterName, Any], Meta(max_length=100, description="fields for all devices: name and value")
        ] = {}
        wins: Annotated[
            Literal["message", "field"],
            Meta(description="which of the two stays, where the message has a parameter of the same name"),
        ] = "message"
        prefix: Annotated[
            str,
            Meta(max_length=64, pattern=NAME + "|^(?![\\s\\S])", description="is put before the name of each field"),
        ] = ""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._fields = _named(config.fields, config.prefix)

    @classmethod
    def check(cls, config: Config) -> None:
        """The names with their prefix."""
        try:
            names = _named(config.fields, config.prefix)
        except PluginError as error:
            raise ItemError(str(error), "configuration.fields") from None
        for name in sorted(OBLIGATORY & names.keys()):
            raise ItemError(f"{name} is obligatory and cannot be a field", "configuration.fields")

    def process(self, message: Message, context: Context) -> Message:
        """The fields, as far as they may be there."""
        own = _named(context.fields, self.config.prefix) if context.fields else {}
        is_kept = OBLIGATORY if self.config.wins == "field" else OBLIGATORY | message.keys()
        for name, value in {**self._fields, **own}.items():
            if name not in is_kept:
                message[name] = deepcopy(value) if isinstance(value, list | dict) else value
        return message


def _named(fields: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The fields as parameters. Raises PluginError where one cannot be."""
    named = {prefix + name: value for name, value in fields.items()}
    for name in named:
        if len(name) > NAME_MOST or not _is_name(name):
            allowed = f"1 to {NAME_MOST} printable characters, without / # +"
            raise PluginError(f"a field {name[:NAME_MOST]!r} cannot be a parameter, which has {allowed}")
    return named
