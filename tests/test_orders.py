"""What clients want of devices: checked before anything is stored, and written down."""

from __future__ import annotations

import asyncio

import pytest

from gateway.protocols.teltonika.commands import CommandError
from gateway.protocols.teltonika.settings import SettingError
from gateway.store import orders
from gateway.store.command import CommandRefused, NewCommand
from gateway.store.commands import QUEUE_MOST
from gateway.store.conversation import Conversation
from tests.commanded import IMEI, There


@pytest.fixture
def there(redis) -> There:
    return There(redis)


def test_a_command_that_the_device_does_not_have_is_refused_at_once(run, there):
    """Whether it shall be sent or wait; nothing is stored."""

    async def scenario() -> None:
        await there.start("ATC700")
        reason = "command setdigout properties validation failed: command definition setdigout is not found"
        with pytest.raises(CommandError, match=reason):
            await there.orders.send(there.device, "setdigout", {"states": "1"}, 5)
        with pytest.raises(CommandError, match=reason):
            await there.orders.enqueue(there.device, NewCommand("setdigout", {"states": "1"}))
        with pytest.raises(CommandError, match="command custom properties validation failed: exactly one of"):
            await there.orders.enqueue(there.device, NewCommand("custom"))
        assert await there.queue.waiting(there.device.id) == []
        assert there.events == []

    run(scenario())


def test_a_full_queue_refuses_and_says_nothing_to_the_log(run, there):
    async def scenario() -> None:
        await there.start()
        for _ in range(QUEUE_MOST):
            await there.orders.enqueue(there.device, NewCommand("getver"))
        there.events.clear()
        with pytest.raises(CommandRefused):
            await there.orders.enqueue(there.device, NewCommand("getver"))
        assert there.events == []

    run(scenario())


def test_a_removed_command_is_told_to_the_log(run, there):
    async def scenario() -> None:
        await there.start()
        first, second = await there.enqueue("getver"), await there.enqueue("getinfo")
        removed = await there.orders.remove(there.device.id, [first])
        assert [command.id for command in removed] == [first]
        assert there.events[-1] == (
            there.device.id,
            "COMMAND_REMOVED",
            {"ident": IMEI, "name": "getver", "command_id": first},
        )
        assert [command.id for command in await there.orders.remove(there.device.id)] == [second]
        assert await there.orders.remove(there.device.id) == []

    run(scenario())


@pytest.mark.parametrize("values", [{}, {"host": "x"}, {"port": 70000}])
def test_a_setting_that_cannot_be_is_refused_at_once(run, there, values):
    async def scenario() -> None:
        await there.start()
        with pytest.raises(SettingError):
            await there.orders.request_setting(there.device, "server", values)
        with pytest.raises(SettingError, match="setting engine is not found"):
            await there.orders.reread_setting(there.device, "engine")
        with pytest.raises(SettingError, match="setting engine is not found"):
            await there.orders.cancel_setting(there.device, "engine")
        assert await there.settings.all(there.device.id) == {}
        assert there.events == []

    run(scenario())


def test_a_cancelled_setting_is_told_to_the_log(run, there):
    """Once; where nothing is pending, nothing happens."""

    async def scenario() -> None:
        await there.start()
        assert await there.orders.cancel_setting(there.device, "server") is None
        await there.orders.request_setting(there.device, "server", {"port": 5027})
        cancelled = await there.orders.cancel_setting(there.device, "server")
        assert (cancelled.pending, cancelled.status) == (None, "unknown")
        assert there.codes() == ["SETTING_PENDING", "SETTING_CANCELLED"]
        there.connect()
        await there.refresh()
        assert there.tracker.obeyed == []

    run(scenario())


def test_a_client_does_not_wait_for_a_store_that_hangs(run, there, monkeypatch):
    """Redis froze while its command was under way, say: it learns that there was no answer, somewhat later."""

    async def scenario() -> None:
        await there.start()
        there.connect()
        monkeypatch.setattr(orders, "MARGIN", 0.01)
        monkeypatch.setattr(Conversation, "next_step", lambda *arguments: None)
        result = await there.orders.send(there.device, "getver", {}, 0.01)
        assert result.error == "failed to deliver command getver: no answer within 0.01 s"

    run(scenario())


def test_two_workers_serve_one_device_one_after_the_other(run, there, redis):
    """The tracker comes back to another worker: what waits goes there, and nothing is done twice."""

    async def scenario() -> None:
        await there.start()
        other = There(redis)
        await other.items.load()
        other.device, other.tracker = other.items.devices[there.device.id], there.tracker
        link = there.connect()
        link.is_mute = True
        await there.enqueue("getver")
        moved = other.connect()
        await other.refresh()
        assert there.tracker.obeyed == ["getver"]
        link.close()
        await there.settle()
        await other.refresh()
        assert there.tracker.obeyed == ["getver", "getver"]
        [result] = await other.results()
        assert (result["executed"], result["attempts"]) == (True, 2)
        link.let_go()
        assert len(link.unasked) == 1
        moved.close()
        await other.dispatcher.drain(5)

    run(scenario())


def test_two_workers_take_each_command_once(run, redis, there):
    """Both look at the same queues at the same moment."""

    async def scenario() -> None:
        await there.start()
        for _ in range(20):
            await there.queue.add(there.device.id, IMEI, NewCommand("getver"))
        workers = [there, There(redis)]
        await workers[1].items.load()
        workers[1].device = there.device
        for worker in workers:
            worker.connect()
        await asyncio.gather(*(worker.refresh() for worker in workers))
        results = await there.results()
        assert len(results) == len({result["id"] for result in results}) == 20
        assert sum(len(worker.tracker.obeyed) for worker in workers) == 20

    run(scenario())
