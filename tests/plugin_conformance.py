"""What every plugin type has to do: each function here is a rule, and fails where a type breaks it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from attrs import evolve
from hypothesis import strategies as st

from gateway import message as msg
from gateway.errors import RemoteError
from gateway.parameters import catalogue, find
from gateway.plugin import Context, DropMessage, Plugin, PluginError, RemotePlugin
from gateway.plugin.base import OBLIGATORY
from gateway.plugin.chain import Chain, Link, Trouble
from gateway.plugin.types import PluginType
from gateway.store import item
from gateway.store.item import Device
from tests.conftest import LOOP
from tests.plugin_examples import BASE, IDENT, RECEIVED, Example

Message = dict[str, Any]
DEVICE = Device(7, "Van", 14, 303, configuration={"ident": IDENT})
OTHER = Device(8, "Truck", 14, 303, configuration={"ident": "352093081452252"})
AGE = 100.0
"""Seconds by which telemetry is older than the message of an example."""
ALLOWED = (DropMessage, PluginError, RemoteError)


class Bench:
    """A plugin of a type, made of an example's configuration."""

    def __init__(self, type: PluginType, example: Example) -> None:
        config = msgspec.convert(example.config, type.cls.Config)
        type.cls.check(config)
        self.plugin: Plugin = type.cls(config)
        self.example = example
        self.trouble: list[Trouble] = []

    @property
    def message(self) -> Message:
        """The example's, whole, and a new one each time."""
        return copy.deepcopy(BASE | self.example.message)

    @property
    def telemetry(self) -> dict[str, tuple[float, Any]]:
        """The example's, as the registrar has it."""
        at = BASE["timestamp"] - AGE
        return {name: (at, copy.deepcopy(value)) for name, value in self.example.telemetry.items()}

    def context(self, device: Device = DEVICE, **values: Any) -> Context:
        """That of the example, but for ``values``."""
        given = {"fields": copy.deepcopy(self.example.fields), "telemetry": self.telemetry, "now": RECEIVED + 1}
        return Context(device, **{**given, **values})

    def directly(self, message: Message, context: Context) -> Message | None:
        """What the plugin itself makes of a message, or raises."""
        if isinstance(self.plugin, RemotePlugin):
            [result] = LOOP.run_until_complete(self.plugin.process_many([message], context))
            return result
        return self.plugin.process(message, context)

    def chain(self, device: Device = DEVICE, fields: Mapping[str, Any] | None = None) -> Chain:
        """The plugin alone, as it is run."""
        fields = copy.deepcopy(self.example.fields if fields is None else fields)
        link = Link(item.Plugin(3, "tested", self.plugin.name), self.plugin, fields=fields)
        return Chain(device, [link], self.trouble.append)

    def through(self, *messages: Message, **values: Any) -> list[Message | None]:
        """What the chain makes of messages."""
        chain = self.chain(**values)
        return LOOP.run_until_complete(chain.process_many(messages, self.telemetry, RECEIVED + 1))


def described(type: PluginType) -> None:
    """The class, and each of its options, says what it is for; everything has a bound."""
    assert len(type.description) > 20
    assert type.cls.__doc__ != Plugin.__doc__
    schema = msgspec.json.schema(type.cls.Config)
    for place, node in _nodes(schema["$defs"]):
        if "properties" in node:
            assert node["additionalProperties"] is False, f"{place}: takes unknown keys"
            missing = [name for name, option in node["properties"].items() if not option.get("description")]
            assert missing == [], f"{place}: options without a description: {missing}"
        assert _unbounded(node) == "", f"{place}: {_unbounded(node)}"


def _nodes(node: Any, place: str = "Config") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            yield place, node
        for name, value in node.items():
            if name != "default":
                yield from _nodes(value, f"{place}.{name}")
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value, place)


def _unbounded(node: dict[str, Any]) -> str:
    match node["type"]:
        case "string" if not {"maxLength", "enum", "const"} & node.keys():
            return "texts without a greatest length"
        case "array" if "maxItems" not in node:
            return "lists without a greatest number of entries"
        case "object" if "properties" not in node and "maxProperties" not in node and node.get("additionalProperties"):
            return "objects without a greatest number of entries"
        case "number" | "integer" if not (
            {"minimum", "exclusiveMinimum"} & node.keys() and {"maximum", "exclusiveMaximum"} & node.keys()
        ):
            return "numbers without bounds"
    return ""


def refuses_unknown_options(type: PluginType, example: Example) -> None:
    """A misspelt option is not silently without effect."""
    with pytest.raises(msgspec.ValidationError, match="no_such_option"):
        msgspec.convert({**example.config, "no_such_option": 1}, type.cls.Config)


def does_something(bench: Bench) -> None:
    """An example on which the plugin has no effect would test nothing."""
    [result] = bench.through(bench.message)
    if bench.example.is_remote:
        [trouble] = bench.trouble
        assert not trouble.is_drop
    else:
        assert result != bench.message
        assert [trouble for trouble in bench.trouble if not trouble.is_drop] == []


def adds_what_is_known(bench: Bench) -> None:
    """A parameter that the plugin adds is in the catalogue, or the configuration or the device's fields name it."""
    [result] = bench.through(bench.message)
    named = str(bench.example.config) + str(bench.example.fields)
    prefix = bench.example.config.get("prefix", "")
    added = (result or {}).keys() - bench.message.keys()
    unknown = [name for name in added if find(name) is None and f"'{name.removeprefix(prefix)}'" not in named]
    assert unknown == [], f"not in gateway/data/parameters.csv: {unknown}"


def raises_only_its_own(bench: Bench, message: Message, context: Context) -> None:
    """Whatever the message, the fields and telemetry are: any other exception is a mistake of the type."""
    try:
        result = bench.directly(copy.deepcopy(message), context)
    except ALLOWED:
        return
    if result is not None:
        msg.decode(msg.encode(result))


def leaves_what_it_was_given(bench: Bench, message: Message, fields: Mapping[str, Any]) -> None:
    """The message before the plugin is that of the channel, and the one that is kept after an error."""
    given = copy.deepcopy(message)
    [result] = bench.through(given, fields=fields)
    assert given == message
    if any(not trouble.is_drop for trouble in bench.trouble):
        assert result == message
    if result is not None:
        assert {name: result.get(name) for name in _identity(message)} == _identity(message)
        assert result.keys() >= OBLIGATORY & message.keys()
    bench.trouble.clear()


def _identity(message: Message) -> Message:
    return {name: message[name] for name in OBLIGATORY - {"timestamp"} if name in message}


def keeps_nothing(bench: Bench, type: PluginType) -> None:
    """What one device sends, or what becomes of its message, does not show in that of another."""
    alone = Bench(type, bench.example).through(bench.message, device=OTHER)
    [first] = bench.through(bench.message | {"custom.param.1": "of the first"})
    _spoil(first)
    assert bench.through(bench.message, device=OTHER) == alone


def _spoil(value: Any) -> None:
    """Change everything in it."""
    if isinstance(value, dict):
        for part in value.values():
            _spoil(part)
        value["spoiled"] = True
    elif isinstance(value, list):
        for part in value:
            _spoil(part)
        value.append("spoiled")


def keeps_the_order(bench: Bench) -> None:
    """What comes back stands where it was."""
    stamps = [RECEIVED + n / 1e6 for n in range(250)]
    results = bench.through(*({**bench.message, "server.timestamp": stamp} for stamp in stamps))
    assert [result["server.timestamp"] for result in results if result is not None] == [
        stamp for stamp, result in zip(stamps, results, strict=True) if result is not None
    ]


# -- what messages, fields and telemetry can be

NAMES = st.sampled_from([*catalogue(), *BASE, "ble.beacons", "timestamp.key", "timestamp.original"]) | st.text(
    max_size=20
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)  # fmt: skip
TIMES = st.floats(0, 2**33) | st.integers(0, 2**33)


def objects_near(example: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any value under any name, many of which are those of the example."""
    names = NAMES | st.sampled_from(sorted(example)) if example else NAMES
    return st.dictionaries(names, JSON | st.sampled_from([*example.values(), None]), max_size=8)


def messages_near(example: Example) -> st.SearchStrategy[Message]:
    """Anything that JSON can hold, also without what every message has."""
    near = objects_near(example.message)
    return near | near.map(lambda values: {**BASE, **copy.deepcopy(example.message), **values})


def registered_near(example: Example) -> st.SearchStrategy[Message]:
    """Messages as the registrar can get them: the obligatory ones are what they should be."""
    own = st.fixed_dictionaries({"timestamp": TIMES, "server.timestamp": TIMES})
    values = objects_near(example.message).map(lambda values: {k: v for k, v in values.items() if k != "timestamp.key"})
    return st.builds(lambda values, times: {**example.message, **values, **BASE, **times}, values, own)


def contexts_near(bench: Bench) -> st.SearchStrategy[Context]:
    """Fields of any kind, and telemetry of any age."""
    telemetry = st.dictionaries(
        NAMES | st.sampled_from(["din", *bench.example.telemetry]), st.tuples(TIMES, JSON), max_size=6
    )
    fields = st.just(bench.example.fields) | objects_near(bench.example.fields)
    return st.builds(lambda fields, values: evolve(bench.context(), fields=fields, telemetry=values), fields, telemetry)
