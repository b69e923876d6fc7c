"""Plugin type ``msg-erase``."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gateway import plugin
from gateway.errors import ItemError
from gateway.plugin import Context, Message, Plugin
from gateway.plugin.base import OBLIGATORY, Mask
from gateway.store.masks import Masks

KEPT = OBLIGATORY | {"timestamp.key"}
"""What no mask stands for; without ``timestamp.key`` messages of one timestamp would merge."""


class MsgErase(Plugin):
    """Removes parameters from messages before they are stored, published or become telemetry. Masks leave the
    obligatory parameters alone, and timestamp.key."""

    class Config(plugin.Config):
        """The options."""

        parameters: Annotated[
            list[Mask], Meta(min_length=1, max_length=500, description="what is removed: names, or masks such as can.*")
        ]

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._masks = Masks(config.parameters)

    @classmethod
    def check(cls, config: Config) -> None:
        """No obligatory parameter is named."""
        for name in config.parameters:
            if name in KEPT:
                raise ItemError(f"{name} cannot be removed", "configuration.parameters")

    def process(self, message: Message, context: Context) -> Message:
        """What is left."""
        return {name: value for name, value in message.items() if name in KEPT or not self._masks.choose(name)}
