"""Plugin type ``ble-beacons``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from gateway import plugin
from gateway.errors import ItemError
from gateway.plugin import Context, Message, Plugin, PluginError
from gateway.plugin.base import NAME

BEACONS = "ble.beacons"
PREFIX = "ble.beacon."
LABEL_MOST = 48
VALUES_MOST = 32
"""Of one beacon; ours have 17 at most."""
VALUE_NAME_MOST = 64
FIELDS_MOST = 1000
BeaconId = Annotated[str, Meta(min_length=1, max_length=128, description="id or MAC address of a beacon")]
Label = Annotated[str, Meta(min_length=1, max_length=LABEL_MOST, pattern=NAME, description="name of a beacon")]

_is_label = re.compile(NAME).match


class BleBeacons(Plugin):
    """Makes plain parameters of the array ble.beacons: ble.beacon.rssi.1, ble.beacon.temperature.1 and so on, by the
    order of the array; beacons that have a name get that in the place of the number: ble.beacon.temperature.freezer.
    Names are those of the configuration, and the fields that the plugin has for the device: the beacon's id and its
    name."""

    class Config(plugin.Config):
        """The options."""

        names: Annotated[
            dict[BeaconId, Label],
            Meta(
                max_length=FIELDS_MOST,
                description="names of beacons for all devices, by id or MAC address; case, colons and hyphens in an id "
                "do not count",
            ),
        ] = {}
        others: Annotated[
            Literal["number", "skip"],
            Meta(description="whether beacons without a name are numbered, or left in the array alone"),
        ] = "number"
        most: Annotated[
            int, Meta(ge=1, le=50, description="beacons of a message that become parameters; those with a name first")
        ] = 10
        erase: Annotated[bool, Meta(description="whether the array is removed")] = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._names = _by_id(config.names)

    @classmethod
    def check(cls, config: Config) -> None:
        """No beacon has two names."""
        if len(_by_id(config.names)) < len(config.names):
            raise ItemError("two of the ids mean the same beacon", "configuration.names")

    def process(self, message: Message, context: Context) -> Message:
        """The message with parameters of its beacons."""
        array = message.get(BEACONS)
        if not isinstance(array, list):
            return message
        beacons = [beacon for beacon in array if isinstance(beacon, dict)]
        if self.config.erase:
            del message[BEACONS]
        for label, beacon in self._labeled(beacons, self._names_for(context)):
            message.update((f"{PREFIX}{what}.{label}", value) for what, value in _values_of(beacon))
        return message

    def _names_for(self, context: Context) -> Mapping[str, str]:
        """Raises PluginError where a field of the device is no name."""
        if not context.fields:
            return self._names
        if len(context.fields) > FIELDS_MOST:
            raise PluginError(f"{len(context.fields)} fields; {FIELDS_MOST} are the most")
        for id, label in context.fields.items():
            if not isinstance(label, str) or len(label) > LABEL_MOST or not _is_label(label):
                allowed = f"1 to {LABEL_MOST} printable characters, without / # +"
                raise PluginError(f"field {id!r:.128}: the name of a beacon should have {allowed}")
        return {**self._names, **_by_id(context.fields)}

    def _labeled(self, beacons: list[dict[str, Any]], names: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """As many as may be, those with a name first."""
        named, others = [], []
        for beacon in beacons:
            label = _name_of(beacon, names)
            if label is not None:
                named.append((label, beacon))
            else:
                others.append(beacon)
        named = named[: self.config.most]
        yield from named
        if self.config.others == "number":
            for number, beacon in enumerate(others[: self.config.most - len(named)], 1):
                yield str(number), beacon


def _plain(id: str) -> str:
    """An id as trackers' messages have it."""
    return id.replace(":", "").replace("-", "").lower()


def _by_id(names: Mapping[str, str]) -> dict[str, str]:
    return {_plain(id): label for id, label in names.items()}


def _name_of(beacon: Mapping[str, Any], names: Mapping[str, str]) -> str | None:
    ids = (beacon.get("id"), beacon.get("mac.address"))
    return next((names[_plain(id)] for id in ids if isinstance(id, str) and _plain(id) in names), None)


def _values_of(beacon: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What can be a parameter: no lists, no objects, no names that break a topic."""
    for what, value in list(beacon.items())[:VALUES_MOST]:
        if len(what) <= VALUE_NAME_MOST and _is_label(what) and not isinstance(value, list | dict):
            yield what, value
