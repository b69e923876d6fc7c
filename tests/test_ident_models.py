"""Trackers that no device stands for say what model they are, once, and their channel messages are read by it."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.store.ident_models import EXPIRY, FORGOTTEN_AT_ONCE, RENEWED_AFTER, IdentModels
from gateway.store.model_questions import TRIES_MOST
from tests.builders import FrameFactory
from tests.commands_rest import IMEI, KEYS, WAIT, There, Tracker, commanding, device_of
from tests.test_api_settings import says, until

NOW = 1_763_709_000.0
STRANGER = "352093081450007"
VERSION = "Ver:03.18.14_04 GPS:AXN_5.10_3333 Hw:FMB640 Mod:15 IMEI:352093081450007"
NO_MODEL = "Code Ver:01.06.15 Rev:1 Device IMEI:353976010139156 Device ID:000001"
IO = 10
"""A byte that FMB640 has a name for, and FMB120, by which unknown models are read, has not."""
NAME, RAW = "ain.2", f"custom.param.{IO}"


class Clock:
    """A clock that the test sets."""

    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def key(n: int = 1) -> tuple[int, str]:
    return 14, f"ident{n}"


# -- what is kept


def test_a_model_is_known_after_a_restart_too(run, redis, clock):
    async def scenario() -> None:
        models = IdentModels(redis, KEYS, clock)
        assert models.is_open(*key())
        await models.asked(key())
        assert models.is_open(*key())
        assert await models.answered(key(), VERSION)
        again = IdentModels(redis, KEYS, clock)
        await again.load()
        for one in (models, again):
            assert one.model_of(*key()) == "FMB640"
            assert not one.is_open(*key())
            assert one.model_of(15, key()[1]) is None

    run(scenario())


def test_no_model_and_no_answer_are_remembered_too(run, redis, clock):
    async def scenario() -> None:
        models = IdentModels(redis, KEYS, clock)
        assert not await models.answered(key(1), NO_MODEL)
        for _ in range(TRIES_MOST):
            assert models.is_open(*key(2))
            await models.asked(key(2))
        await models.load()
        for n in (1, 2):
            assert not models.is_open(*key(n))
            assert models.model_of(*key(n)) is None

    run(scenario())


def test_what_is_not_seen_for_long_is_forgotten(run, redis, clock):
    """A tracker whose model is known is remembered from its last connection on, one that named none is asked again."""

    async def scenario() -> None:
        models = IdentModels(redis, KEYS, clock)
        for n, text in enumerate((VERSION, VERSION, NO_MODEL)):
            await models.answered(key(n), text)
        clock.now += RENEWED_AFTER
        await models.seen(*key(0))
        await models.seen(*key(2))
        clock.now = NOW + EXPIRY
        assert [models.is_open(*key(n)) for n in range(3)] == [False, True, True]
        assert [models.model_of(*key(n)) for n in range(3)] == ["FMB640", None, None]
        await models.asked(key(3))
        assert set(await redis.hkeys(KEYS.ident_models)) == {b"14:ident0", b"14:ident3"}

    run(scenario())


def test_a_tracker_that_comes_back_often_is_noted_rarely(run, redis, clock):
    async def scenario() -> None:
        models = IdentModels(redis, KEYS, clock)
        await models.answered(key(), VERSION)
        before = await redis.hget(KEYS.ident_models, "14:ident1")
        clock.now += RENEWED_AFTER - 1
        await models.seen(*key())
        assert await redis.hget(KEYS.ident_models, "14:ident1") == before
        clock.now += 1
        await models.seen(*key())
        assert await redis.hget(KEYS.ident_models, "14:ident1") != before

    run(scenario())


def test_the_number_of_idents_has_a_bound(run, redis, clock):
    """The one that was not seen for longest goes."""

    async def scenario() -> None:
        models = IdentModels(redis, KEYS, clock, 3)
        for n in range(3):
            await models.answered(key(n), VERSION)
        clock.now += RENEWED_AFTER
        await models.seen(*key(0))
        await models.answered(key(3), VERSION)
        assert [models.model_of(*key(n)) for n in range(4)] == ["FMB640", None, "FMB640", "FMB640"]
        assert await redis.hlen(KEYS.ident_models) == 3

    run(scenario())


def test_what_is_over_goes_a_few_at_a_time(run, redis, clock):
    """Of many that were not seen since."""

    async def scenario() -> None:
        models = IdentModels(redis, KEYS, clock)
        for n in range(FORGOTTEN_AT_ONCE + 10):
            await models.asked(key(n))
        clock.now += EXPIRY
        await models.asked(key(1000))
        assert await redis.hlen(KEYS.ident_models) == 11
        await models.asked(key(1001))
        assert await redis.hlen(KEYS.ident_models) == 2

    run(scenario())


# -- on connections


async def named(there: There, tracker: Tracker) -> set[str]:
    """Which of the two names the tracker's next message has for the byte."""
    count = len(tracker.acknowledgements)
    tracker.send(tracker.frames.packet([tracker.frames.record(n1=[(IO, 2)])]))
    await tracker.until(lambda: len(tracker.acknowledgements) > count)
    [message] = await there.get("/gw/channels/1/messages", data={"count": 1, "reverse": True})
    assert message["ident"] == tracker.frames.imei
    return {NAME, RAW} & set(message)


def test_a_tracker_without_a_device_is_asked_once_and_read_by_its_model(run, redis):
    """On the connection that it has, on later ones, and by another channel that asks."""

    async def scenario() -> None:
        async with commanding(redis, ask_model=True) as there:
            tracker = await Tracker(STRANGER, "FMB640").connect(there.port)

            async def has_told() -> bool:
                return b"FMB640" in (await redis.hget(KEYS.ident_models, f"14:{STRANGER}") or b"")

            await until(has_told)
            await there.settle()
            assert await named(there, tracker) == {NAME}
            await tracker.close()
            await tracker.connect(there.port)
            assert await named(there, tracker) == {NAME}
            await there.settle()
            assert tracker.obeyed == ["getver"]
            assert list(there.parts.items.devices) == [there.device.id]
            await tracker.close()

    run(scenario())


def test_what_the_answer_brings_is_known_after_a_start(run, redis):
    async def scenario() -> None:
        await IdentModels(redis, KEYS).answered((14, STRANGER), VERSION)
        async with commanding(redis, ask_model=True) as there:
            await there.lines._idents.load()
            tracker = await Tracker(STRANGER, "FMB640").connect(there.port)
            assert await named(there, tracker) == {NAME}
            assert tracker.obeyed == []
            await tracker.close()

    run(scenario())


def test_what_it_sends_over_udp_is_read_by_the_model_too(run, redis):
    """Where it cannot be asked."""

    async def scenario() -> None:
        await IdentModels(redis, KEYS).answered((14, STRANGER), VERSION)
        async with commanding(redis, ask_model=True) as there:
            await there.lines._idents.load()
            frames, loop = FrameFactory(STRANGER), asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                await loop.sock_connect(sender, ("127.0.0.1", there.port))
                await loop.sock_sendall(sender, frames.datagram([frames.record(n1=[(IO, 2)])]))
                assert await asyncio.wait_for(loop.sock_recv(sender, 100), WAIT)
            [message] = await there.get("/gw/channels/1/messages")
            assert {NAME, RAW} & set(message) == {NAME}

    run(scenario())


@pytest.mark.parametrize("text", [NO_MODEL, ""])
def test_one_that_names_no_model_stays_of_unknown_model(run, redis, text):
    async def scenario() -> None:
        async with commanding(redis, ask_model=True) as there:
            tracker = Tracker(STRANGER)
            tracker.obey = says(text)
            for _ in range(2):
                await tracker.connect(there.port)
                await tracker.until(lambda: tracker.obeyed)
                assert await named(there, tracker) == {RAW}
                await there.settle()
                await tracker.close()
            assert tracker.obeyed == ["getver"]

    run(scenario())


def test_one_that_hangs_up_on_the_question_is_asked_a_few_times(run, redis):
    async def scenario() -> None:
        async with commanding(redis, ask_model=True) as there:
            tracker = Tracker(STRANGER)
            tracker.obey = lambda _frame: None
            for _ in range(TRIES_MOST):
                await tracker.connect(there.port)
                await tracker.ended()
                await there.settle()
            await tracker.connect(there.port)
            assert await named(there, tracker) == {RAW}
            assert tracker.obeyed == ["getver"] * TRIES_MOST
            await tracker.close()

    run(scenario())


@pytest.mark.parametrize("configuration", [{}, {"ask_model": False}])
def test_a_channel_that_does_not_ask_does_not_look(run, redis, configuration):
    """Also where the tracker told another channel before."""

    async def scenario() -> None:
        await IdentModels(redis, KEYS).answered((14, STRANGER), VERSION)
        async with commanding(redis, **configuration) as there:
            await there.lines._idents.load()
            tracker = await Tracker(STRANGER, "FMB640").connect(there.port)
            assert await named(there, tracker) == {RAW}
            await there.settle()
            assert tracker.obeyed == []
            await tracker.close()

    run(scenario())


def test_the_ident_of_a_disabled_device_is_not_asked(run, redis):
    async def scenario() -> None:
        async with commanding(redis, ask_model=True) as there:
            device = await device_of(there, STRANGER, "")
            await there.patch(f"/gw/devices/{device.id}", json={"enabled": False})
            reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
            writer.write(FrameFactory(STRANGER).login())
            assert await asyncio.wait_for(reader.read(), WAIT) == b"\x00"
            writer.close()
            await writer.wait_closed()
            assert await redis.exists(KEYS.ident_models) == 0

    run(scenario())


def test_a_device_s_type_is_what_counts(run, redis):
    """Not what its tracker said before there was a device."""

    async def scenario() -> None:
        await IdentModels(redis, KEYS).answered((14, IMEI), VERSION)
        async with commanding(redis, ask_model=True) as there:
            await there.lines._idents.load()
            tracker = await Tracker(IMEI).connect(there.port)
            assert await named(there, tracker) == {RAW}
            assert tracker.obeyed == []
            await tracker.close()

    run(scenario())
