"""Plugins over REST: what tests of them have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.items_rest import gateway

URL = "/gw/plugins"
TYPE = '''
"""A type of the operator's."""
from typing import Annotated
from msgspec import Meta
from gateway import plugin
from gateway.errors import ItemError
from gateway.plugin import PluginError


class AskOracle(plugin.RemotePlugin):
    """Asks the oracle. It answers at once."""

    class Config(plugin.Config):
        uri: str = "http://oracle.example"
        password: Annotated[str, Meta(description="as the oracle gave it")] = ""
        limit: Annotated[int, Meta(ge=1, le=9, description="questions at once")] = 5

    @classmethod
    def check(cls, config):
        if config.limit == 7:
            raise ItemError("7 is a holy number", "limit")

    def __init__(self, config):
        super().__init__(config)
        if config.uri == "refused":
            raise PluginError("the oracle does not live there")
        if config.uri == "mistake":
            raise ZeroDivisionError("by nothing")
'''


def new(name: str = "test", **values: Any) -> dict[str, Any]:
    return {"name": name, "type_name": "msg-erase", "configuration": {"parameters": ["can.*"]}, **values}


def oracle(**configuration: Any) -> dict[str, Any]:
    return {"name": "oracle", "type": "ask-oracle", "configuration": configuration}


def device(ident: str) -> dict[str, Any]:
    return {"name": f"device {ident}", "configuration": {"ident": ident}}


def play_on(run, redis, folder: Path):
    """Runs a coroutine with the API, plugins 1 and 2, and devices 1, 2 and 3 with the idents a1, a2 and b3."""
    (folder / "ask_oracle.py").write_text(TYPE)

    def play(coroutine) -> None:
        async def with_plugins() -> None:
            async with gateway(redis, plugin_folders=[folder]) as there:
                await there.post(URL, [new("one"), new("two", type_name="item-fields", configuration={}, priority=-5)])
                await there.post("/gw/devices", [device("a1"), device("a2"), device("b3")])
                await coroutine(there)

        run(with_plugins())

    return play
