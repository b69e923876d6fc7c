"""Which messages are for a stream, and what becomes of them before they are sent."""

from __future__ import annotations

import json

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.expressions import compile_expression
from gateway.store.items import Link, Stream
from gateway.store.reader import LogEntry
from gateway.stream.selection import Form, Selection, moment_of
from gateway.stream.target import Conversion
from tests.streaming import KEYS, NOW, Carrier

CHANNEL, DEVICE = KEYS.channel_log(1), KEYS.device_log


def of_channel(at: float, ident: str = "1", channel_id: int = 1) -> LogEntry:
    return LogEntry(KEYS.channel_log(channel_id), f"{int(at * 1e6)}-0", ident, channel_id, [b"{}"])


def of_device(at: float, device_id: int = 1, ident: str = "1") -> LogEntry:
    return LogEntry(DEVICE, f"{int(at * 1e3)}-7", ident, device_id, [b"{}"])


class Chosen:
    """A stream without a sender, and what its selection says."""

    def __init__(self, redis) -> None:
        self.carrier = Carrier(redis)
        self.items = self.carrier.items

    async def begin(self, *links: tuple[str, int]) -> None:
        await self.items.load()
        await self.items.create_channel(name="trackers", protocol_id=14)
        self.stream = await self.items.create_stream(name="s", protocol="file")
        for to, id in links:
            await self.carrier.link(self.stream, to, id)

    @property
    def selection(self) -> Selection:
        return Selection(self.items.streams[self.stream.id], self.items, KEYS)

    def wants(self, entry: LogEntry) -> bool:
        return self.selection.wants(entry)


def test_without_links_nothing_is_for_it(run, redis):
    async def check() -> None:
        chosen = Chosen(redis)
        await chosen.begin()
        assert chosen.selection.logs() == {}
        assert not chosen.wants(of_channel(NOW + 1))
        assert not chosen.wants(of_device(NOW + 1))

    run(check())


def test_what_came_before_it_was_linked_is_not_for_it(run, redis):
    """And what comes after it was linked anew, is again."""

    async def check() -> None:
        chosen = Chosen(redis)
        await chosen.begin(("channels", 1))
        assert not chosen.wants(of_channel(NOW - 1))
        assert chosen.wants(of_channel(NOW))
        assert not chosen.wants(of_channel(NOW + 1, channel_id=2))
        await chosen.items.links.remove([Link("streams", 1, "channels", 1)])
        assert not chosen.wants(of_channel(NOW + 1))
        chosen.carrier.time = NOW + 100
        await chosen.carrier.link(chosen.stream, "channels", 1)
        assert [chosen.wants(of_channel(NOW + at)) for at in (99, 101)] == [False, True]

    run(check())


def test_the_log_is_read_from_the_first_link_on(run, redis):
    """That of the devices is one for all of them."""

    async def check() -> None:
        chosen = Chosen(redis)
        await chosen.begin()
        await chosen.carrier.device("1")
        await chosen.carrier.device("2")
        chosen.carrier.time = NOW + 5
        await chosen.carrier.link(chosen.stream, "devices", 2)
        chosen.carrier.time = NOW + 9
        await chosen.carrier.link(chosen.stream, "devices", 1)
        await chosen.carrier.link(chosen.stream, "channels", 1)
        assert chosen.selection.logs() == {CHANNEL: 1, DEVICE: 0}
        assert chosen.selection.begin(DEVICE) == f"{int((NOW + 5) * 1e3)}-0"
        assert chosen.selection.begin(CHANNEL) == f"{int((NOW + 9) * 1e6)}-0"
        assert [chosen.wants(of_device(NOW + 7, id)) for id in (1, 2)] == [False, True]

    run(check())


def test_of_a_linked_device_comes_its_own_version_and_not_the_channels(run, redis):
    """From the moment of its link on."""

    async def check() -> None:
        chosen = Chosen(redis)
        await chosen.begin(("channels", 1))
        device = await chosen.carrier.device("1")
        assert chosen.wants(of_channel(NOW + 1))
        assert not chosen.wants(of_device(NOW + 1, device.id))
        chosen.carrier.time = NOW + 10
        await chosen.carrier.link(chosen.stream, "devices", device.id)
        assert [chosen.wants(of_channel(NOW + at)) for at in (9, 11)] == [True, False]
        assert [chosen.wants(of_device(NOW + at, device.id)) for at in (9, 11)] == [False, True]
        assert chosen.wants(of_channel(NOW + 11, ident="2"))

    run(check())


def test_of_a_device_that_is_disabled_or_deleted_the_channels_version_comes(run, redis):
    """Nobody makes another one of its messages."""

    async def check() -> None:
        chosen = Chosen(redis)
        await chosen.begin(("channels", 1))
        device = await chosen.carrier.device("1")
        await chosen.carrier.link(chosen.stream, "devices", device.id)
        assert not chosen.wants(of_channel(NOW + 1))
        await chosen.items.change_device(device.id, lambda old: evolve(old, enabled=False))
        assert chosen.wants(of_channel(NOW + 1))
        await chosen.items.change_device(device.id, lambda old: evolve(old, enabled=True))
        assert not chosen.wants(of_channel(NOW + 1))
        await chosen.items.delete_device(device.id)
        assert chosen.wants(of_channel(NOW + 1))
        assert not chosen.wants(of_device(NOW + 1, device.id))

    run(check())


def test_what_comes_while_it_is_disabled_is_never_for_it(run, redis):
    """What came before and after, is: also after several pauses."""

    async def check() -> None:
        chosen = Chosen(redis)
        await chosen.begin(("channels", 1))
        for at, enabled in [(10, False), (20, True), (30, False)]:
            chosen.carrier.time = NOW + at
            await chosen.items.change_stream(1, lambda old, enabled=enabled: evolve(old, enabled=enabled))
        moments = (5, 10, 15, 20, 25, 30, 99)
        assert [at for at in moments if chosen.wants(of_channel(NOW + at))] == [5, 20, 25]
        chosen.carrier.time = NOW + 40
        await chosen.items.change_stream(1, lambda old: evolve(old, enabled=True))
        assert [at for at in moments if chosen.wants(of_channel(NOW + at))] == [5, 20, 25, 99]

    run(check())


def test_the_ids_of_both_logs_are_times():
    assert moment_of(of_channel(NOW + 0.25), is_device=False) == NOW + 0.25
    assert moment_of(of_device(NOW + 0.25), is_device=True) == NOW + 0.25


def test_a_stream_without_pauses_has_none():
    assert Stream(id=1, name="", protocol="file").pauses == []


# -- the form


def form(validate: str = "", **conversion) -> Form:
    return Form(compile_expression(validate) if validate else None, Conversion(**conversion) if conversion else None)


def take(form: Form, message: dict, is_device: bool = False):
    entry = of_device(NOW, 7) if is_device else of_channel(NOW, channel_id=3)
    return form.take(entry, orjson.dumps(message), is_device, NOW)


MESSAGE = {"ident": "1", "position.speed": 5, "position.fix.age": 2, "engine.ignition.status": True, "n": 1}


def test_a_message_that_is_not_changed_is_sent_byte_by_byte():
    """It is not even decoded."""
    text = b'{"n": 1.50, "a":"\\u00e9"}'
    outgoing = form().take(of_channel(NOW), text, False, NOW)
    assert outgoing is not None
    assert outgoing.text is text
    assert outgoing.original is None
    assert form().is_plain
    assert form(dots="keep").is_plain
    assert not form(dots="underscore").is_plain


def test_ids_say_whose_version_it_is():
    assert (take(form(), MESSAGE).channel_id, take(form(), MESSAGE).device_id) == (3, 0)
    assert (take(form(), MESSAGE, True).channel_id, take(form(), MESSAGE, True).device_id) == (0, 7)


@pytest.mark.parametrize(
    ("conversion", "names"),
    [
        ({"fields": ["position.*"]}, {"position.speed", "position.fix.age"}),
        ({"fields": ["n", "none"]}, {"n"}),
        ({"fields": ["none"]}, set()),
        ({"fields": ["*"]}, set(MESSAGE)),
        ({"fields": []}, set(MESSAGE)),
        (
            {"dots": "underscore"},
            {"ident", "position_speed", "position_fix_age", "engine_ignition_status", "n"},
        ),
        ({"dots": "camelcase"}, {"ident", "positionSpeed", "positionFixAge", "engineIgnitionStatus", "n"}),
        ({"dots": "camelcase", "fields": ["position.fix.*"]}, {"positionFixAge"}),
    ],
)
def test_parameters_are_chosen_by_their_own_names_and_renamed_afterwards(conversion, names):
    outgoing = take(form(**conversion), MESSAGE)
    assert set(outgoing.message) == names
    assert outgoing.source == MESSAGE


def test_what_is_validated_is_the_message_before_names_are_converted():
    strict = form("position.speed > 4 && n == 1", dots="underscore", fields=["ident"])
    assert take(strict, MESSAGE).message == {"ident": "1"}
    assert take(strict, {**MESSAGE, "position.speed": 4}) is None
    assert take(strict, {"n": 1}) is None  # an expression that has no value is not true


names = st.text(st.characters(codec="utf-8", exclude_characters="#+/"), min_size=1, max_size=20)
values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
)


@given(message=st.dictionaries(names, values, max_size=8), dots=st.sampled_from(["underscore", "camelcase"]))
def test_renaming_changes_no_value_and_loses_none_but_of_names_that_become_the_same(message, dots):
    sent = take(form(dots=dots), message).message
    assert all(value in message.values() for value in sent.values())
    assert not any("." in name for name in sent)
    if dots == "underscore":
        assert set(sent) == {name.replace(".", "_") for name in message}
    assert json.loads(take(form(), message).text) == message
