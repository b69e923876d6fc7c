"""What every type of stream must do. A type's test module has a kit with a real target, and derives from the suite.

Messages are numbered in ``n``. Deliveries may be repeated where something broke off; nothing may be lost, and the
first delivery of each message must come in the order of its ident.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from attrs import evolve

from gateway.store.event_codes import EventCode
from tests.streaming import KEYS, NOW, PROTOCOLS, Carrier, Message, numbers, without_repetitions


class Kit:
    """A real target of one type. Coroutines run on the loop of the tests."""

    protocol = ""
    text_only = False
    """Whether the target keeps texts, so that numbers come back as they were written."""

    async def start(self) -> None:
        """Get ready; the target is up afterwards, and empty."""

    async def close(self) -> None:
        """Nothing is left of it."""

    def configuration(self) -> dict[str, Any]:
        """Of a stream to this target."""
        raise NotImplementedError

    async def received(self) -> list[Message]:
        """All messages that the target has confirmed, in its own order."""
        raise NotImplementedError

    async def go_down(self) -> None:
        """The target cannot be reached any more; what it has confirmed stays. Harmless where it is down."""
        raise NotImplementedError

    async def come_up(self) -> None:
        """It can be reached again, at the same address."""
        raise NotImplementedError

    async def hold(self) -> None:
        """It takes what is sent and confirms nothing, until :meth:`release`."""
        raise NotImplementedError

    async def release(self) -> None:
        raise NotImplementedError

    async def refuse_all(self) -> None:
        """It can be reached, and takes no message, until :meth:`take_again`."""
        raise NotImplementedError

    async def take_again(self) -> None:
        raise NotImplementedError

    def refused_message(self) -> Message | None:
        """Parameters of a message that the target refuses for good, while it takes others; None: it takes all."""
        return None

    def refusing_configuration(self) -> dict[str, Any]:
        """Of a stream that goes on where single messages are refused."""
        return self.configuration()


class StreamConformance:
    """Derive ``TestX(StreamConformance)`` with a fixture ``kit`` that is not yet started."""

    @pytest.fixture
    def kit(self) -> Kit:
        raise NotImplementedError

    @pytest.fixture
    def carrier(self, redis) -> Carrier:
        return Carrier(redis)

    @pytest.fixture(autouse=True)
    def _around(self, run, kit, carrier):
        async def begin() -> None:
            await kit.start()
            await carrier.open()

        async def end() -> None:
            await carrier.close()
            await kit.close()

        run(begin(), 60)
        yield
        run(end(), 60)

    async def arrived(self, kit: Kit, carrier: Carrier, count: int, timeout: float = 30) -> list[Message]:
        """Wait for ``count`` different messages."""
        messages: list[Message] = []
        try:
            async with asyncio.timeout(timeout):
                while len(without_repetitions(numbers(messages := await kit.received()))) < count:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            states = [carrier.streams.status(id) for id in carrier.items.streams]
            raise AssertionError(
                f"{len(messages)} messages came, not {count}; {states}; {carrier.events[-5:]}"
            ) from None
        return messages

    # -- what is delivered

    def test_the_options_are_described_and_bounded(self, kit):
        """The API shows them, and takes them from outside."""
        protocol = PROTOCOLS[kit.protocol]
        assert protocol.cls is not None, protocol.reason
        assert protocol.id > 0
        assert protocol.title
        assert len(protocol.description) > 40
        schema = msgspec.json.schema(protocol.cls.Config)
        name = schema["$ref"].rpartition("/")[2]
        for option, described in schema["$defs"][name]["properties"].items():
            assert described.get("description"), option
            if described.get("type") == "string":
                assert "maxLength" in described or "enum" in described, option
            if described.get("type") == "array":
                assert "maxItems" in described, option
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**kit.configuration(), "no_such_option": 1}, protocol.cls.Config)
        protocol.cls.check(msgspec.convert(kit.configuration(), protocol.cls.Config))

    def test_messages_arrive_as_they_are_in_order(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream(kit.protocol, kit.configuration())
            for n in range(0, 60, 3):
                await carrier.receive({"n": n}, {"n": n + 1, "position.speed": 5.5}, ident=f"{1 + n % 2}")
                await carrier.receive({"n": n + 2, "text": 'Vilniaus gatvė "5"', "ok": True}, ident="3")
            messages = await self.arrived(kit, carrier, 60)
            for ident in ("1", "2", "3"):
                assert numbers(messages, ident) == sorted(numbers(messages, ident))
            assert sorted(numbers(messages)) == list(range(60))
            by_number = {message["n"]: message for message in messages}
            assert by_number[1]["position.speed"] == 5.5
            assert by_number[2]["text"] == 'Vilniaus gatvė "5"'
            assert by_number[2]["ok"] is True
            assert by_number[2]["ident"] == "3"
            state = carrier.state(stream)
            await carrier.until(lambda: state.counters.delivered == 60, "all are counted")
            assert (state.state, state.error, state.counters.rejected) == ("connected", "", 0)
            assert carrier.told(EventCode.STREAM_CONNECTED, stream)
            sent = carrier.told(EventCode.STREAM_SENT, stream)
            assert sum(entry["accepted"] for entry in sent) == 60
            assert sum(entry["read"] for entry in sent) == 60

        run(check(), 60)

    def test_of_a_device_that_is_linked_its_own_version_comes_once(self, run, kit, carrier):
        """Linked with a channel and with a device of it."""

        async def check() -> None:
            device = await carrier.device("1")
            stream = await carrier.stream(kit.protocol, kit.configuration())
            await carrier.link(stream, "devices", device.id)
            for n in range(0, 20, 2):
                await carrier.receive({"n": n}, ident="1")
                await carrier.register({"n": n, "driver": "Bob"}, device_id=device.id, ident="1")
                await carrier.receive({"n": n + 1}, ident="2")
            messages = await self.arrived(kit, carrier, 20)
            assert len(messages) == 20
            assert all(message.get("driver") == "Bob" for message in messages if message["ident"] == "1")
            assert not any("driver" in message for message in messages if message["ident"] == "2")

        run(check(), 60)

    def test_messages_are_chosen_and_names_converted(self, run, kit, carrier):
        async def check() -> None:
            configuration = {
                **kit.configuration(),
                "convert_message": {
                    "fields": ["n", "ident", "timestamp", "device.*", "position.*"],
                    "dots": "underscore",
                },
            }
            stream = await carrier.stream(kit.protocol, configuration, validate_message="n % 2 == 0")
            for n in range(10):
                await carrier.receive({"n": n, "position.speed": n, "can.rpm": 900})
            messages = await self.arrived(kit, carrier, 5)
            assert numbers(messages) == [0, 2, 4, 6, 8]
            assert all(message["position_speed"] == message["n"] for message in messages)
            assert not any("can.rpm" in message or "can_rpm" in message for message in messages)
            await carrier.until(lambda: carrier.state(stream).counters.delivered == 5, "five are counted")
            assert carrier.state(stream).counters.skipped >= 4  # the last one may not have been read with a batch

        run(check(), 60)

    # -- when something is wrong

    def test_a_target_that_is_down_at_the_start_gets_all_when_it_comes_up(self, run, kit, carrier):
        async def check() -> None:
            await kit.go_down()
            stream = await carrier.stream(kit.protocol, kit.configuration())
            for n in range(10):
                await carrier.receive({"n": n})
            await carrier.until(lambda: carrier.state(stream).state == "failing", "it says that it fails")
            assert carrier.state(stream).error
            assert carrier.told(EventCode.STREAM_FAILED, stream)[0]["reason"]
            await kit.come_up()
            messages = await self.arrived(kit, carrier, 10)
            assert without_repetitions(numbers(messages)) == list(range(10))
            await carrier.until(lambda: carrier.state(stream).state == "connected", "it says that it works again")
            assert carrier.state(stream).error == ""

        run(check(), 90)

    def test_a_target_that_goes_down_in_the_middle_misses_nothing(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream(kit.protocol, kit.configuration())
            for n in range(10):
                await carrier.receive({"n": n}, ident=f"{n % 2}")
            await self.arrived(kit, carrier, 10)
            await kit.go_down()
            for n in range(10, 30):
                await carrier.receive({"n": n}, ident=f"{n % 2}")
            await carrier.until(lambda: carrier.state(stream).state == "failing", "it says that it fails")
            await kit.come_up()
            messages = await self.arrived(kit, carrier, 30)
            for ident in ("0", "1"):
                order = without_repetitions(numbers(messages, ident))
                assert order == sorted(order)
            assert carrier.state(stream).counters.failures > 0
            await carrier.until(lambda: carrier.told(EventCode.STREAM_RECOVERED, stream), "it is told that it works")
            assert carrier.state(stream).state == "connected"

        run(check(), 90)

    def test_a_slow_target_is_waited_for_and_holds_up_no_other_stream(self, run, kit, carrier):
        async def check() -> None:
            await kit.hold()
            stream = await carrier.stream(kit.protocol, kit.configuration())
            other = await carrier.stream("file", await self._file(carrier))
            for n in range(10):
                await carrier.receive({"n": n})
            await carrier.until(lambda: carrier.state(other).counters.delivered == 10, "the other stream goes on")
            assert carrier.state(stream).counters.delivered == 0
            await kit.release()
            assert without_repetitions(numbers(await self.arrived(kit, carrier, 10, 60))) == list(range(10))

        run(check(), 120)

    async def _file(self, carrier: Carrier) -> dict[str, Any]:
        return {"path": f"{self.directory}/other.jsonl"}

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path):
        self.directory = tmp_path

    def test_a_target_that_refuses_all_gets_all_when_it_takes_again(self, run, kit, carrier):
        """What it answered can be read."""

        async def check() -> None:
            await kit.refuse_all()
            stream = await carrier.stream(kit.protocol, kit.configuration())
            for n in range(10):
                await carrier.receive({"n": n})
            await carrier.until(lambda: carrier.told(EventCode.STREAM_FAILED, stream), "it is told")
            reason = carrier.told(EventCode.STREAM_FAILED, stream)[0]["reason"]
            assert len(reason) > 10
            for _ in range(10):  # a connection that is opened again is no sign that messages are taken
                assert carrier.state(stream).state == "failing"
                await asyncio.sleep(0.02)
            await kit.take_again()
            assert without_repetitions(numbers(await self.arrived(kit, carrier, 10, 60))) == list(range(10))
            assert carrier.state(stream).counters.rejected == 0

        run(check(), 120)

    def test_a_message_that_is_refused_for_good_is_told_and_does_not_hold_up_others(self, run, kit, carrier):
        async def check() -> None:
            refused = kit.refused_message()
            if refused is None:
                assert kit.protocol in TAKES_ALL
                return
            stream = await carrier.stream(kit.protocol, kit.refusing_configuration())
            await carrier.receive(*({"n": n} for n in range(5)))
            await carrier.receive({"n": 100, **refused})
            await carrier.receive(*({"n": n} for n in range(5, 10)))
            messages = await self.arrived(kit, carrier, 10)
            assert without_repetitions(numbers(messages)) == list(range(10))
            state = carrier.state(stream)
            await carrier.until(lambda: state.counters.rejected == 1, "it is counted")
            (entry,) = carrier.told(EventCode.STREAM_REJECTED, stream)
            assert len(entry["reason"]) > 10
            assert entry["ident"] == "1"
            assert '"n":100' in entry["message"]

        run(check(), 60)

    def test_after_a_crash_between_delivery_and_cursor_nothing_is_missing(self, run, kit, carrier):
        async def check() -> None:
            await carrier.stream(kit.protocol, kit.configuration())
            await carrier.until(lambda: carrier.events and carrier.state(carrier.items.streams[1]).is_connected, "up")
            before = await carrier.redis.hgetall(KEYS.cursors)
            for n in range(10):
                await carrier.receive({"n": n})
            await self.arrived(kit, carrier, 10)
            await carrier.streams.stop()
            await carrier.redis.delete(KEYS.cursors)
            await carrier.redis.hset(KEYS.cursors, mapping=before)
            carrier.streams = carrier.new_streams()
            await carrier.streams.start()
            for n in range(10, 20):
                await carrier.receive({"n": n})
            messages = await self.arrived(kit, carrier, 20)
            assert without_repetitions(numbers(messages)) == list(range(20))

        run(check(), 60)

    def test_what_waits_for_longer_than_its_time_is_given_up_and_counted(self, run, kit, carrier):
        async def check() -> None:
            await kit.go_down()
            stream = await carrier.stream(kit.protocol, kit.configuration(), queue_ttl=60)
            for n in range(7):
                await carrier.receive({"n": n})
            await carrier.until(lambda: carrier.state(stream).state == "failing", "it says that it fails")
            carrier.time = NOW + 120
            await carrier.receive({"n": 7}, {"n": 8})
            await carrier.until(lambda: carrier.state(stream).counters.given_up == 7, "seven are given up")
            given_up = carrier.told(EventCode.STREAM_REJECTED, stream)
            assert sum(entry["given_up"] for entry in given_up) == 7
            await kit.come_up()
            assert without_repetitions(numbers(await self.arrived(kit, carrier, 2))) == [7, 8]

        run(check(), 90)

    # -- while it runs

    def test_a_disabled_stream_neither_queues_nor_forgets(self, run, kit, carrier):
        """flespi, "Streams": what waited is delivered afterwards, what came meanwhile is not."""

        async def check() -> None:
            await kit.go_down()
            stream = await carrier.stream(kit.protocol, kit.configuration())
            await carrier.receive({"n": 0}, {"n": 1})
            await carrier.until(lambda: carrier.state(stream).state == "failing", "it says that it fails")
            carrier.time += 1
            await carrier.items.change_stream(stream.id, lambda old: evolve(old, enabled=False))
            await carrier.until(lambda: carrier.state(stream).state == "disabled", "it is disabled")
            await kit.come_up()
            carrier.time += 1
            await carrier.receive({"n": 2})
            carrier.time += 1
            await carrier.items.change_stream(stream.id, lambda old: evolve(old, enabled=True))
            await carrier.receive({"n": 3})
            assert without_repetitions(numbers(await self.arrived(kit, carrier, 3))) == [0, 1, 3]

        run(check(), 90)

    def test_another_configuration_takes_over_where_the_old_one_was(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream(kit.protocol, {**kit.configuration(), "limit_messages": 3})
            for n in range(10):
                await carrier.receive({"n": n})
            await self.arrived(kit, carrier, 10)
            await carrier.items.change_stream(stream.id, lambda old: evolve(old, configuration=kit.configuration()))
            for n in range(10, 20):
                await carrier.receive({"n": n})
            assert without_repetitions(numbers(await self.arrived(kit, carrier, 20))) == list(range(20))

        run(check(), 60)

    def test_a_stream_ends_in_time_also_while_its_target_answers_nothing(self, run, kit, carrier):
        async def check() -> None:
            await kit.hold()
            await carrier.stream(kit.protocol, kit.configuration())
            await carrier.receive({"n": 0})
            await asyncio.sleep(0.2)
            async with asyncio.timeout(8):
                await carrier.streams.stop()
            await kit.release()

        run(check(), 60)


TAKES_ALL = ("file", "redis")
"""Types whose targets refuse no single message."""
