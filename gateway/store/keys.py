"""The names of the keys in Redis, all of them.

A key carries a hash tag (the part in braces), so that a Redis Cluster keeps what changes together on one node: all that
belongs to a shard of idents in ``{s<shard>}``, the items in ``{items}``.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen


def items(kind: str) -> str:
    """Hash: id -> an item of ``kind`` (channels, devices, plugins, streams) as JSON."""
    return f"gw:{{items}}:{kind}"


LINKS = "gw:{items}:links"
"""Hash: ``<kind>:<id>:<kind>:<id>`` -> what a plugin or a stream has to do with a device or a channel, as JSON."""
NEXT_IDS = "gw:{items}:next_ids"
"""Hash: kind of item -> the last id given away."""
PURGES = "gw:{items}:purges"
"""Hash: ``<kind>:<id>`` of a deleted item -> the item and when it was deleted, until nothing of it is left."""
DELETED = "gw:{items}:deleted"
"""Hash: ``<kind>:<name or ident>`` of a configured item that the API deleted -> what the configuration said of it."""

TOKENS = "gw:{items}:tokens"
"""Hash: token id -> the token as JSON, with the SHA-256 of its key."""
TOKENS_ACCESSED = "gw:{items}:tokens:accessed"
"""Hash: token id -> when it was last used, unix seconds."""


@frozen
class ShardKeys:
    """The keys of one shard of idents: its logs, its readers' cursors and all that belongs to its devices."""

    shard: int = 0

    def _key(self, rest: str) -> str:
        return f"gw:{{s{self.shard}}}:{rest}"

    def channel_log(self, channel_id: int) -> str:
        """Stream: every packet of a channel, in order of reception."""
        return self._key(f"channel:{channel_id}:log")

    def parked(self, channel_id: int) -> str:
        """Stream: packets that were acknowledged although they cannot be decoded, as raw bytes."""
        return self._key(f"channel:{channel_id}:parked")

    @property
    def device_log(self) -> str:
        """Stream: what the registrar made of the packets of this shard's devices."""
        return self._key("devices:log")

    @property
    def posted(self) -> str:
        """Stream: what came for devices by the API; the registrar reads it beside the channel logs."""
        return self._key("devices:posted")

    def deferred(self, device_id: int) -> str:
        """List: messages that wait for plugins which ask others, as they came, oldest first."""
        return self._key(f"device:{device_id}:deferred")

    @property
    def deferring(self) -> str:
        """Set: ids of the devices with such messages."""
        return self._key("devices:deferring")

    @property
    def processed(self) -> str:
        """Stream: what plugins that ask others made of messages; the registrar reads it beside the channel logs."""
        return self._key("devices:processed")

    @property
    def hidden(self) -> str:
        """Hash: channel id -> ranges of ``server.timestamp`` whose messages were deleted, as JSON."""
        return self._key("channels:hidden")

    @property
    def cursors(self) -> str:
        """Hash: ``<reader>|<stream>`` -> id of the last entry that the reader has delivered."""
        return self._key("cursors")

    def messages(self, device_id: int) -> str:
        """Sorted set: a device's messages as JSON, by their key in microseconds."""
        return self._key(f"device:{device_id}:messages")

    def merged(self, device_id: int) -> str:
        """Hash: a message's key in microseconds -> fingerprints of the messages that were merged into it."""
        return self._key(f"device:{device_id}:merged")

    def telemetry(self, device_id: int) -> str:
        """Hash: parameter -> ``{"ts": seconds, "value": ...}`` as JSON."""
        return self._key(f"device:{device_id}:telemetry")

    @property
    def lease(self) -> str:
        """String: the gateway that may write to this shard."""
        return self._key("lease")

    @property
    def sizes(self) -> str:
        """Hash: device id -> bytes that its messages take."""
        return self._key("devices:sizes")

    def log(self, kind: str, item_id: int) -> str:
        """Stream: the event log of an item; ``kind``: channels, devices, ..."""
        return self._key(f"log:{kind}:{item_id}")

    def idents(self, channel_id: int) -> str:
        """Hash: ident -> what a channel knows of it, as JSON."""
        return self._key(f"channel:{channel_id}:idents")

    def traffic(self, channel_id: int) -> str:
        """Sorted set: the idents of a channel whose traffic is kept, by their last one in seconds."""
        return self._key(f"channel:{channel_id}:traffic")

    def traffic_of(self, channel_id: int, ident: str) -> str:
        """Stream: what an ident sent and was sent on a channel."""
        return f"{self.traffic(channel_id)}:{ident}"

    def commands(self, device_id: int) -> str:
        """Hash: command id -> a command that waits to be sent to the device, as JSON."""
        return self._key(f"device:{device_id}:commands")

    def commands_result(self, device_id: int) -> str:
        """Stream: what became of the device's commands."""
        return self._key(f"device:{device_id}:commands_result")

    @property
    def commands_expiring(self) -> str:
        """Sorted set: ``<device id>:<command id>`` of all that wait, by when they expire, in seconds."""
        return self._key("devices:commands_expiring")

    @property
    def commanded(self) -> str:
        """Set: ids of the devices for which commands wait."""
        return self._key("devices:commanded")

    @property
    def settings_wanted(self) -> str:
        """Set: ``<device id>:<name>`` of the settings that are to be applied or read."""
        return self._key("devices:settings_wanted")

    def settings(self, device_id: int) -> str:
        """Hash: name of a setting -> what the device has, and what it shall have, as JSON."""
        return self._key(f"device:{device_id}:settings")

    @property
    def models_asked(self) -> str:
        """Hash: device id -> what a device of unknown model answered when it was asked for it."""
        return self._key("devices:models_asked")

    @property
    def ident_models(self) -> str:
        """Hash: ``<protocol id>:<ident>`` of a tracker that no device stands for -> the model that it said, as JSON."""
        return self._key("idents:models")

    # -- what belongs to one item, and goes with it

    def of_channel(self, channel_id: int) -> list[str]:
        """All keys of a channel."""
        return [
            self.channel_log(channel_id),
            self.parked(channel_id),
            self.log("channels", channel_id),
            self.idents(channel_id),
        ]

    def fields_of_channel(self, channel_id: int, readers: Sequence[str]) -> list[tuple[str, str]]:
        """Its fields in hashes of all: (key, field)."""
        log = self.channel_log(channel_id)
        return [(self.hidden, str(channel_id)), *((self.cursors, f"{reader}|{log}") for reader in readers)]

    def of_device(self, device_id: int) -> list[str]:
        """All keys of a device."""
        return [
            self.messages(device_id),
            self.merged(device_id),
            self.telemetry(device_id),
            self.log("devices", device_id),
            self.commands(device_id),
            self.commands_result(device_id),
            self.settings(device_id),
            self.deferred(device_id),
        ]

    def fields_of_device(self, device_id: int) -> list[tuple[str, str]]:
        """Its fields in hashes of all: (key, field)."""
        return [(self.sizes, str(device_id)), (self.models_asked, str(device_id))]

    def of_other(self, kind: str, item_id: int) -> list[str]:
        """All keys of a plugin or a stream."""
        return [self.log(kind, item_id)]
