"""The plugins and streams of devices and channels, as fields of these: those that the token may see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.api.call import Call
from gateway.api.items import Json
from gateway.store.links import Link


def plugins_of(call: Call, device_ids: Iterable[int]) -> dict[int, list[Json]]:
    """In the order in which they work, with their fields for the device."""
    plugins = call.parts.items.plugins

    def views(links: Mapping[int, Link]) -> list[Json]:
        mine = sorted((plugins[id].priority, id) for id in links)
        return [{"id": id, "name": plugins[id].name, "fields": links[id].fields} for _, id in mine]

    return {id: views(_visible(call, "devices", id, "plugins")) for id in device_ids}


def streams_of(call: Call, to: str, ids: Iterable[int]) -> dict[int, list[Json]]:
    """``to``: channels or devices, whose ids these are."""
    streams = call.parts.items.streams
    return {
        id: [{"id": one, "name": streams[one].name} for one in sorted(_visible(call, to, id, "streams"))] for id in ids
    }


def _visible(call: Call, to: str, id: int, kind: str) -> dict[int, Link]:
    permitted, items = call.access.ids("GET", f"gw/{kind}"), call.parts.items.of(kind)
    links = call.parts.items.links.to(to, id, kind)
    return {one: link for one, link in links.items() if one in items and (permitted is None or one in permitted)}
