"""Streams to Traccar, which cannot be run here: real HTTP servers do what its source says that it does."""

from __future__ import annotations

import json
from urllib.parse import parse_qs

import pytest

from gateway.errors import ItemError, RemoteRefused
from gateway.store.event_codes import EventCode
from gateway.stream.target import Outgoing, StreamInfo
from gateway.streams.traccar import FORM_MOST, NUMBERS, TEXTS, Traccar, form
from tests.stream_conformance import StreamConformance
from tests.targets.http import CLOSE, NEVER, Answer
from tests.test_stream_http import HttpKit

UNKNOWN = "unknown"
"""A device that Traccar does not have."""


class TraccarKit(HttpKit):
    """Behind a proxy, which answers 502 while Traccar is away."""

    protocol = "traccar"

    def _answer(self, asked) -> Answer:
        if self.is_held:
            return NEVER
        if self.is_refusing:
            return Answer(502, b"Bad Gateway")
        assert asked.method == "POST"
        return self.take(asked)

    def take(self, asked) -> Answer:
        raise NotImplementedError

    def refusing_configuration(self):
        return self.configuration()


class ReceiverKit(TraccarKit):
    """The receiver of flespi's streams: it reads all or nothing, and says 200."""

    def configuration(self):
        return {"uri": self.target.url, "timeout": 1.0}

    def refused_message(self):
        return {"position.latitude": 95}

    def take(self, asked) -> Answer:
        messages = asked.json()
        for message in messages:
            for name, value in message.items():
                if (
                    (name in NUMBERS and type(value) not in (int, float))
                    or (name in TEXTS and not isinstance(value, str))
                    or (name == "position.latitude" and abs(value) > 90)
                    or ("#" in name and not name.partition("#")[2].isdecimal())
                ):
                    return CLOSE
        self.taken += [message for message in messages if message["ident"] != UNKNOWN]
        return Answer()


class OsmAndKit(TraccarKit):
    """The OsmAnd port: a form in the body, where there is no query."""

    def configuration(self):
        return {"uri": f"{self.target.url}/", "receiver": "osmand", "without_position": "send", "timeout": 1.0}

    def refused_message(self):
        return {"text": "x" * FORM_MOST}

    def take(self, asked) -> Answer:
        assert not asked.query
        assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
        if len(asked.body) > 16384:
            return Answer(413)
        fields = {name: values[-1] for name, values in parse_qs(asked.body.decode("ascii")).items()}
        if fields.pop("id") == UNKNOWN:
            return Answer(400)
        self.taken.append(self.understood(fields, asked))
        return Answer()

    def understood(self, fields, asked):
        message = {"ident": parse_qs(asked.body.decode())["id"][0]}
        for name, text in fields.items():
            try:
                message[name] = float(text)
            except ValueError:
                message[name] = {"true": True, "false": False}.get(text, text)
        if "speed" in message:
            message["position.speed"] = round(message.pop("speed") * 1.852, 3)
        return message


class TestTraccarReceiver(StreamConformance):
    @pytest.fixture
    def kit(self):
        return ReceiverKit()

    def test_position_ident_and_time_go_under_the_names_that_it_reads(self, run, kit, carrier):
        async def check() -> None:
            convert = {"fields": ["n", "can.*"], "dots": "underscore"}
            await carrier.stream("traccar", {**kit.configuration(), "convert_message": convert})
            await carrier.receive({"n": 0, "position.latitude": 54.5, "can.rpm": 900, "x": 1})
            (message,) = await self.arrived(kit, carrier, 1)
            assert set(message) == {"n", "can_rpm", "ident", "timestamp", "position.latitude"}

        run(check())

    def test_what_would_break_a_batch_off_is_rejected_or_made_readable(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream("traccar", kit.configuration())
            await carrier.receive(
                {"n": 0, "battery.level": "full"},
                {"n": 1, "ibutton.code": 17, "vehicle.vin": None, "din": None},
                {"n": 2, "tank#left": 1},
                {"n": 3, "tank#2": 1},
            )
            messages = await self.arrived(kit, carrier, 2)
            assert messages[0]["ibutton.code"] == "17"
            assert not {"vehicle.vin", "din"} & set(messages[0])
            assert messages[1]["tank#2"] == 1
            await carrier.until(lambda: carrier.state(stream).counters.rejected == 2, "two are rejected")
            reasons = [entry["reason"] for entry in carrier.told(EventCode.STREAM_REJECTED, stream)]
            assert "battery.level should be a number" in reasons[0]
            assert "tank#left" in reasons[1]

        run(check())


class TestTraccarOsmAnd(StreamConformance):
    @pytest.fixture
    def kit(self):
        return OsmAndKit()

    def test_an_unknown_device_is_rejected_and_the_others_go_on(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream("traccar", kit.configuration())
            await carrier.receive({"n": 0}, {"n": 1}, ident=UNKNOWN)
            await carrier.receive({"n": 2}, ident="7")
            await self.arrived(kit, carrier, 1)
            await carrier.until(lambda: carrier.state(stream).counters.rejected == 2, "two are rejected")
            reason = carrier.told(EventCode.STREAM_REJECTED, stream)[0]["reason"]
            assert reason == "Traccar does not know the device 'unknown': HTTP 400"

        run(check())

    def test_without_a_position_a_message_is_rejected_unless_it_is_wanted(self, run, kit, carrier):
        async def check() -> None:
            stream = await carrier.stream("traccar", {**kit.configuration(), "without_position": "reject"})
            await carrier.receive(
                {"n": 0},
                {"n": 1, "position.latitude": 54.0, "position.longitude": 25.0},
                {"n": 2, "position.latitude": 54.0, "position.longitude": 225.0},
                {"n": 3, "position.latitude": 54.0},
            )
            await carrier.until(lambda: carrier.state(stream).counters.rejected == 3, "three are rejected")
            assert [message["n"] for message in kit.taken] == [1.0]
            assert "without_position" in carrier.told(EventCode.STREAM_REJECTED, stream)[0]["reason"]

        run(check())


def sent(**message) -> dict[str, str]:
    message = {name.replace("__", "."): value for name, value in message.items()}
    return form(Outgoing(json.dumps(message).encode(), "42"))


def test_a_position_has_the_names_and_units_of_osmand():
    fields = sent(
        ident="42", timestamp=1795230652.474, position__latitude=54.5, position__longitude=-25.25,
        position__speed=18.52, position__direction=90, position__altitude=120.5, position__hdop=0.8,
        position__accuracy=3, position__valid=True, battery__level=87,
    )  # fmt: skip
    assert fields == {
        "id": "42", "timestamp": "1795230652474", "lat": "54.5", "lon": "-25.25", "speed": "10", "bearing": "90",
        "altitude": "120.5", "hdop": "0.8", "accuracy": "3", "valid": "true", "batt": "87",
    }  # fmt: skip


def test_all_else_are_attributes():
    """Traccar's own names where it works with them; names that it would misread are set apart."""
    fields = sent(
        timestamp=100.9, position__satellites=9, engine__ignition__status=True, movement__status=False, din=3,
        driver__name="Ada Ö", id=5, speed=7, tags=[1, "a"], nothing=None, battery__level="full",
    )  # fmt: skip
    assert fields == {
        "id": "42", "timestamp": "100", "valid": "false", "sat": "9", "ignition": "true", "motion": "false", "din": "3",
        "driver.name": "Ada Ö", "custom.id": "5", "custom.speed": "7", "tags": '[1,"a"]', "battery.level": "full",
    }  # fmt: skip


def test_a_position_that_is_not_valid_is_sent_as_such():
    assert sent(position__latitude=1, position__longitude=2, position__valid=False)["valid"] == "false"
    assert sent(position__latitude=1, position__longitude=2)["valid"] == "true"


def test_an_ident_whose_request_fails_keeps_its_order(run, http_target):
    """What follows in it waits; other idents are done."""

    async def check() -> None:
        http_target.default = lambda asked: Answer(503 if b"id=b&" in asked.body else 200)
        config = Traccar.Config(uri=http_target.url, receiver="osmand", without_position="send")
        target = Traccar(config, StreamInfo(1, "traccar"))
        batch = [Outgoing(b"{}", ident) for ident in "abacb"]
        with pytest.raises(RemoteRefused, match="HTTP 503"):
            await target.deliver(batch)
        assert [outgoing.is_done for outgoing in batch] == [True, False, True, True, False]
        assert sum(b"id=b&" in asked.body for asked in http_target.requests) == 1
        await target.close()

    run(check())


@pytest.mark.parametrize("uri", ["traccar:5055", "http://", "http://traccar:5055/?id=1", "http://traccar:5055/#a"])
def test_addresses_that_cannot_be_are_refused(uri):
    with pytest.raises(ItemError) as refused:
        Traccar.check(Traccar.Config(uri=uri))
    assert refused.value.field == "configuration.uri"
