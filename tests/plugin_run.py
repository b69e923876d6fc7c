"""A remote plugin in tests: made from a configuration, opened, and asked about messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from gateway.plugin import Context, RemotePlugin
from gateway.plugin.types import find_types
from gateway.store.item import Device
from tests.plugin_examples import BASE

DEVICE = Device(7, "Van 1/2", 14, 303, configuration={"ident": "352093081452251"})

Message = dict[str, Any]
Make = Callable[..., RemotePlugin]


def made(type: str, **config: Any) -> RemotePlugin:
    """As the gateway makes it; raises what is wrong with the configuration."""
    cls = find_types()[type].cls
    converted = msgspec.convert(config, cls.Config)
    cls.check(converted)
    plugin = cls(converted)
    assert isinstance(plugin, RemotePlugin)
    return plugin


@pytest.fixture
def make_plugin(run) -> Iterator[Make]:
    """Makes and opens plugins; they are closed with the test."""
    plugins = []

    def make(type: str, **config: Any) -> RemotePlugin:
        plugins.append(made(type, **config))
        run(plugins[-1].open())
        return plugins[-1]

    yield make
    for plugin in plugins:
        run(plugin.close())


def message(**values: Any) -> Message:
    """A whole one; ``_`` in names stands for a dot."""
    return {**BASE, **{name.replace("_", "."): value for name, value in values.items()}}


async def asked(plugin: RemotePlugin, *messages: Message, device: Device = DEVICE) -> list[Message | None]:
    """What it makes of copies of the messages."""
    return list(await plugin.process_many([dict(one) for one in messages], Context(device)))
