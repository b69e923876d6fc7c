"""Subscribers of the embedded broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from integration.processes import Gateway
from integration.trackers import Connection, Packets, imei
from tests.brokers import Subscriber

Run = Callable[..., Any]
SPEED = "flespi/state/gw/devices/1/telemetry/position.speed"


def test_a_subscriber_with_the_token_gets_messages_and_what_is_retained(run: Run, gateway: Gateway) -> None:
    """Messages of the channel and of the device as they come; telemetry also for who comes later."""
    topics = {f"flespi/message/gw/channels/1/{imei(0)}", "flespi/message/gw/devices/1", SPEED}

    async def scenario() -> None:
        options = {"version": 4, "username": f"FlespiToken {gateway.token}"}
        subscriber = await Subscriber(gateway.mqtt_port, "flespi/#", **options).subscribed()
        packets = Packets(imei(0), records=1)
        tracker = await Connection.open(gateway.port)
        await tracker.log_in(packets.login)
        packet = packets.make()
        await tracker.send(packet.data)
        assert await tracker.acknowledged() == 1
        messages = await subscriber.until(lambda messages: topics <= {message.topic for message in messages})
        by_topic = {message.topic: message for message in messages}
        for topic in sorted(topics - {SPEED}):
            message = orjson.loads(by_topic[topic].payload)
            assert (message["ident"], message["timestamp"]) == (packets.imei, packet.timestamps[0] / 1000)
            assert by_topic[topic].qos == 1
            assert not by_topic[topic].is_retained
        late = await Subscriber(gateway.mqtt_port, SPEED, **options).subscribed()
        retained = await late.until(lambda messages: messages)
        assert [(message.topic, message.payload, message.is_retained) for message in retained] == [(SPEED, b"50", True)]
        tracker.vanish()
        await subscriber.close()
        await late.close()

    run(scenario())


@pytest.mark.parametrize("username", [None, "somebody", ""])
def test_who_has_no_token_is_refused(run: Run, gateway: Gateway, username: str | None) -> None:
    """Positions of vehicles are nobody else's business."""

    async def scenario() -> None:
        stranger = Subscriber(gateway.mqtt_port, "flespi/#", version=4, username=username)
        assert await stranger.answered() == "Not authorized"
        await stranger.close()

    run(scenario())
