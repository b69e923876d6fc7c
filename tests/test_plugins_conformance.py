"""Every plugin type keeps the rules of tests/plugin_conformance.py; a file that is added to plugins/ is found here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta

from gateway import plugin
from gateway.plugin import Context, Message, Plugin, RemotePlugin
from gateway.plugin.types import IDS, PluginType, find_types
from tests import plugin_conformance as rules
from tests.conftest import LOOP
from tests.plugin_conformance import Bench
from tests.plugin_examples import EXAMPLES, Example

TYPES = find_types()
CASES = [
    pytest.param(type, example, id=f"{name}-{number}")
    for name, type in TYPES.items()
    for number, example in enumerate(EXAMPLES.get(name, ()))
]
each_type = pytest.mark.parametrize("type", TYPES.values(), ids=list(TYPES))


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(*request.param)
    LOOP.run_until_complete(made.plugin.open())
    yield made
    LOOP.run_until_complete(made.plugin.close())


each_example = pytest.mark.parametrize(
    "bench", [pytest.param(case.values, id=case.id) for case in CASES], indirect=True
)


def explore(bench: Bench, property: object, *strategies: st.SearchStrategy) -> None:
    """Run ``property`` on what the strategies give; fewer times where each costs a connection."""
    count = 15 if isinstance(bench.plugin, RemotePlugin) else 100
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings(max_examples=count, deadline=None, suppress_health_check=checks)(given(*strategies)(property))()


@each_type
def test_every_type_has_an_example(type: PluginType) -> None:
    """In tests/plugin_examples.py; without one nothing below would test it."""
    assert EXAMPLES.get(type.name)


def test_every_example_is_one_of_a_type() -> None:
    assert EXAMPLES.keys() <= TYPES.keys()


@each_type
def test_a_type_has_a_number(type: PluginType) -> None:
    """One that stays; it is what a client stores."""
    assert IDS[type.name] == type.id


@each_type
def test_a_type_and_its_options_are_described_and_bounded(type: PluginType) -> None:
    rules.described(type)


@pytest.mark.parametrize(("type", "example"), CASES)
def test_unknown_options_are_refused(type: PluginType, example: Example) -> None:
    rules.refuses_unknown_options(type, example)


@each_example
def test_it_does_something(bench: Bench) -> None:
    rules.does_something(bench)


@each_example
def test_what_it_adds_is_known(bench: Bench) -> None:
    rules.adds_what_is_known(bench)


@each_example
def test_whatever_the_message_is_it_raises_only_what_it_may(bench: Bench) -> None:
    explore(
        bench,
        lambda message, context: rules.raises_only_its_own(bench, message, context),
        rules.messages_near(bench.example),
        rules.contexts_near(bench),
    )


@each_example
def test_what_was_given_stays_as_it_was(bench: Bench) -> None:
    explore(
        bench,
        lambda message, fields: rules.leaves_what_it_was_given(bench, message, fields),
        rules.registered_near(bench.example),
        rules.objects_near(bench.example.fields),
    )


@pytest.mark.parametrize(("type", "example"), CASES)
def test_devices_do_not_influence_each_other(type: PluginType, example: Example) -> None:
    rules.keeps_nothing(Bench(type, example), type)


@each_example
def test_the_order_stays(bench: Bench) -> None:
    rules.keeps_the_order(bench)


# -- the suite itself: types that break a rule, each found by the rule


class Careless(Plugin):
    """A type of the tests that does nothing, of which others are made that break rules."""

    class Config(plugin.Config):
        """The options."""

    def process(self, message: Message, context: Context) -> Message:
        return message


class Changes(Careless):
    def process(self, message: Message, context: Context) -> Message:
        message["list"].append(1)
        return message


class Forgets(Careless):
    def process(self, message: Message, context: Context) -> Message:
        return {name: value for name, value in message.items() if name != "peer"}


class Renames(Careless):
    def process(self, message: Message, context: Context) -> Message:
        return message | {"ident": "another"}


class Adds(Careless):
    def process(self, message: Message, context: Context) -> Message:
        return message | {"unheard.of": 1}


class Remembers(Careless):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.seen: dict[str, Any] = {}

    def process(self, message: Message, context: Context) -> Message:
        self.seen.update(message)
        return self.seen | message


class Mixes(RemotePlugin):
    async def process_many(self, messages: Sequence[Message], context: Context) -> Sequence[Message | None]:
        return messages[::-1]


class Undescribed(Careless):
    class Config(plugin.Config):
        speed: Annotated[int, Meta(ge=0, le=5)] = 0


class Unbounded(Careless):
    class Config(plugin.Config):
        names: Annotated[list[str], Meta(max_length=5, description="names")] = []


WITH_LIST = Example(message={"list": [1]})


def _bench(cls: type[Plugin], example: Example = WITH_LIST) -> Bench:
    return Bench(PluginType("tested", cls, Path(__file__)), example)


@pytest.mark.parametrize("cls", [Changes, Forgets, Renames])
def test_the_suite_finds_a_type_that_spoils_messages(cls: type[Plugin]) -> None:
    bench = _bench(cls)
    with pytest.raises(AssertionError):
        rules.leaves_what_it_was_given(bench, bench.message, {})


def test_the_suite_finds_a_type_that_adds_what_nobody_knows() -> None:
    with pytest.raises(AssertionError, match="unheard"):
        rules.adds_what_is_known(_bench(Adds))


def test_the_suite_finds_a_type_that_makes_mistakes() -> None:
    bench = _bench(Changes, Example())
    with pytest.raises(KeyError):
        rules.raises_only_its_own(bench, bench.message, bench.context())


def test_the_suite_finds_a_type_that_keeps_something_of_devices() -> None:
    bench = _bench(Remembers)
    with pytest.raises(AssertionError):
        rules.keeps_nothing(bench, PluginType("tested", Remembers, Path(__file__)))


def test_the_suite_finds_a_type_that_changes_the_order() -> None:
    with pytest.raises(AssertionError):
        rules.keeps_the_order(_bench(Mixes))


def test_the_suite_finds_a_type_without_effect() -> None:
    with pytest.raises(AssertionError):
        rules.does_something(_bench(Careless))


@pytest.mark.parametrize(("cls", "reason"), [(Undescribed, "speed"), (Unbounded, "greatest length")])
def test_the_suite_finds_options_without_description_or_bound(cls: type[Plugin], reason: str) -> None:
    cls.__doc__ = "A type of the tests with a wrong option."
    with pytest.raises(AssertionError, match=reason):
        rules.described(PluginType("tested", cls, Path(__file__)))
