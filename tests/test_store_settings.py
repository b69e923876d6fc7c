"""The settings of devices as the gateway knows them."""

from __future__ import annotations

import asyncio

import pytest

from gateway.store.keys import ShardKeys
from gateway.store.settings import ANSWER_TIME, ATTEMPTS_MOST, DeviceSettings, Shadow

KEYS = ShardKeys()
DEVICE = 7
NOW = 1_763_709_000.0


class Clock:
    """A clock that the test sets."""

    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(redis, clock) -> DeviceSettings:
    return DeviceSettings(redis, KEYS, clock)


async def shadow(settings: DeviceSettings, name: str = "server") -> Shadow:
    return (await settings.all(DEVICE))[name]


def test_of_a_new_device_nothing_is_known(run, settings):
    assert run(settings.all(DEVICE)) == {}


def test_what_is_requested_is_pending_until_the_device_has_it(run, settings, clock):
    async def scenario() -> None:
        pending = await settings.request(DEVICE, "server", {"port": 5027})
        assert (pending.pending, pending.status, pending.requested) == ({"port": 5027}, "pending", NOW)
        clock.now += 10
        taken = await settings.take(DEVICE)
        assert (taken.pending, taken.attempts) == ({"port": 5027}, 1)
        clock.now += 2
        done = await settings.told(DEVICE, taken, {"domain": "gw.example.com", "port": 5027})
        assert (done.pending, done.status, done.updated) == (None, "ok", NOW + 12)
        assert done.current == {"domain": "gw.example.com", "port": 5027}
        assert await shadow(settings) == done
        assert await settings.take(DEVICE) is None

    run(scenario())


def test_a_newer_request_replaces_the_pending_one(run, settings):
    """Also while that is under way: what the device has then is current, what was asked for meanwhile stays pending."""

    async def scenario() -> None:
        await settings.request(DEVICE, "server", {"port": 1})
        taken = await settings.take(DEVICE)
        await settings.request(DEVICE, "server", {"port": 2})
        after = await settings.told(DEVICE, taken, {"port": 1})
        assert (after.current, after.pending, after.status) == ({"port": 1}, {"port": 2}, "pending")
        assert await settings.failed(DEVICE, taken, "too late") is None
        again = await settings.take(DEVICE)
        assert (again.pending, again.attempts) == ({"port": 2}, 1)

    run(scenario())


def test_a_refused_setting_says_why_and_is_not_tried_again(run, settings):
    async def scenario() -> None:
        await settings.told(DEVICE, Shadow(name="server"), {"port": 1})
        await settings.request(DEVICE, "server", {"port": 2})
        failed = await settings.failed(DEVICE, await settings.take(DEVICE), "Bad syntax")
        assert (failed.status, failed.error, failed.pending) == ("rejected", "Bad syntax", None)
        assert failed.current == {"port": 1}
        assert await settings.failed(DEVICE, failed, "once more") is None
        assert await settings.take(DEVICE) is None
        wanted = await settings.request(DEVICE, "server", {"port": 3})
        assert (wanted.status, wanted.error) == ("pending", None)

    run(scenario())


def test_a_setting_can_be_read_again(run, settings):
    """What was known is forgotten until the device answers."""

    async def scenario() -> None:
        await settings.told(DEVICE, Shadow(name="server"), {"port": 1})
        reading = await settings.reread(DEVICE, "server")
        assert (reading.current, reading.status) == (None, "reading")
        taken = await settings.take(DEVICE)
        assert (taken.name, taken.pending) == ("server", None)
        assert (await settings.told(DEVICE, taken, {"port": 2})).status == "ok"
        await settings.reread(DEVICE, "server")
        unreadable = await settings.failed(DEVICE, await settings.take(DEVICE), "Unknown command")
        assert (unreadable.status, unreadable.error) == ("unreadable", "Unknown command")

    run(scenario())


def test_reading_again_leaves_pending_what_is_pending(run, settings):
    async def scenario() -> None:
        await settings.request(DEVICE, "server", {"port": 2})
        again = await settings.reread(DEVICE, "server")
        assert (again.pending, again.status) == ({"port": 2}, "pending")

    run(scenario())


def test_what_is_pending_can_be_cancelled(run, settings):
    """Where nothing is, nothing happens; what is under way is not taken for what was cancelled."""

    async def scenario() -> None:
        assert await settings.cancel(DEVICE, "server") is None
        await settings.told(DEVICE, Shadow(name="server"), {"port": 1})
        await settings.request(DEVICE, "server", {"port": 2})
        taken = await settings.take(DEVICE)
        cancelled = await settings.cancel(DEVICE, "server")
        assert (cancelled.pending, cancelled.status, cancelled.current) == (None, "ok", {"port": 1})
        assert await settings.take(DEVICE) is None
        assert await settings.failed(DEVICE, taken, "no answer") is None
        await settings.request(DEVICE, "sleep", {"mode": "gps"})
        assert (await settings.cancel(DEVICE, "sleep")).status == "unknown"

    run(scenario())


def test_an_attempt_is_counted_before_it_is_made(run, settings, clock):
    """And nobody else makes one meanwhile, unless it is released."""

    async def scenario() -> None:
        await settings.request(DEVICE, "server", {"port": 1})
        taken = await settings.take(DEVICE)
        assert await settings.take(DEVICE) is None
        await settings.release(DEVICE, taken)
        assert (await settings.take(DEVICE)).attempts == 2
        clock.now += ANSWER_TIME
        assert (await settings.take(DEVICE)).attempts == 3

    run(scenario())


def test_a_device_that_never_answers_is_not_asked_for_ever(run, settings, clock):
    async def scenario() -> None:
        await settings.request(DEVICE, "server", {"port": 1})
        for _ in range(ATTEMPTS_MOST):
            assert await settings.take(DEVICE) is not None
            clock.now += ANSWER_TIME
        assert await settings.take(DEVICE) is None
        given_up = await shadow(settings)
        assert (given_up.status, given_up.error) == ("rejected", f"no answer after {ATTEMPTS_MOST} attempts")

    run(scenario())


def test_two_gateways_do_not_take_the_same_setting(run, settings, redis, clock):
    async def scenario() -> None:
        other = DeviceSettings(redis, KEYS, clock)
        for n in range(10):
            await settings.request(DEVICE, f"s{n}", {"x": n})
        taken = await asyncio.gather(*((settings, other)[n % 2].take(DEVICE) for n in range(20)))
        names = [one.name for one in taken if one is not None]
        assert len(names) == len(set(names)) > 0

    run(scenario())


def test_changes_at_the_same_time_are_all_made(run, settings, redis, clock):
    """One after the other: the version counts them."""

    async def scenario() -> None:
        other = DeviceSettings(redis, KEYS, clock)
        await asyncio.gather(*((settings, other)[n % 2].request(DEVICE, "server", {"port": n}) for n in range(20)))
        assert (await shadow(settings)).version == 20

    run(scenario())


def test_every_change_is_told(run, settings):
    """Whoever publishes them; one that fails keeps nobody from the change."""
    told = []

    def fails(device_id: int, changed: Shadow) -> None:
        raise RuntimeError

    async def scenario() -> None:
        settings.on_change += [fails, lambda device_id, changed: told.append((device_id, changed.status))]
        await settings.request(DEVICE, "server", {"port": 1})
        await settings.told(DEVICE, await settings.take(DEVICE), {"port": 1})

    run(scenario())
    assert told == [(DEVICE, "pending"), (DEVICE, "pending"), (DEVICE, "ok")]


def test_a_device_s_settings_are_its_own(run, settings):
    async def scenario() -> None:
        await settings.request(DEVICE, "server", {"port": 1})
        await settings.request(DEVICE, "apn", {"name": "internet"})
        assert list(await settings.all(DEVICE)) == ["apn", "server"]
        assert await settings.all(DEVICE + 1) == {}

    run(scenario())


def test_it_is_known_which_devices_have_settings_to_be_applied_or_read(run, settings):
    async def scenario() -> None:
        await settings.request(DEVICE, "server", {"port": 1})
        await settings.reread(DEVICE, "apn")
        await settings.request(DEVICE + 1, "server", {"port": 1})
        assert await settings.devices() == {DEVICE, DEVICE + 1}
        await settings.told(DEVICE, await settings.take(DEVICE), {"name": "x"})
        assert await settings.devices() == {DEVICE, DEVICE + 1}
        await settings.cancel(DEVICE, "server")
        assert await settings.devices() == {DEVICE + 1}
        await settings.forget(DEVICE)
        assert await settings.devices() == {DEVICE + 1}
        await settings.forget(DEVICE + 1)
        assert await settings.devices() == set()

    run(scenario())
