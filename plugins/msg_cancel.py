"""Plugin type ``msg-cancel``."""

from __future__ import annotations

from gateway.plugin import Context, DropMessage, Message, Plugin


class MsgCancel(Plugin):
    """Keeps messages from being registered for the device: those for which the plugin's validate_message is true, or,
    where that is empty, all. The channel keeps its own."""

    def process(self, message: Message, context: Context) -> Message:
        """There is none."""
        raise DropMessage
