"""The event log on MQTT: ``log/gw/{kind}/{id}/{event}``, QoS 0, not retained.

What cannot be sent at once is dropped and counted: the same entries can be read from the API.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from gateway import metrics
from gateway.aio import heed_cancellation
from gateway.mqtt.client import MqttClient
from gateway.mqtt.topics import Topics
from gateway.store.compact import compact_json
from gateway.store.event_codes import DESCRIPTIONS, EventCode

QUEUE_MOST = 5000
"""Entries: a second of what an embedded broker takes."""
AT_ONCE = 100
PAUSE = 0.05
"""Seconds until the next attempt while the connection takes no more."""
ATTEMPTS = 20


class LogTopics:
    """Give :meth:`publish` to ``EventLog.on_entry``."""

    def __init__(self, client: MqttClient, topics: Topics, *, maximum: int = QUEUE_MOST) -> None:
        self._client = client
        self._topics = topics
        self._maximum = maximum
        self._queue: deque[tuple[str, bytes, bytes]] = deque()
        self._has_news = asyncio.Event()

    def publish(self, kind: str, item_id: int, entry: dict[str, Any]) -> None:
        """Never waits."""
        if not self._client.is_connected or len(self._queue) >= self._maximum:
            metrics.count("mqtt_unconfirmed_dropped")
            return
        topic = self._topics.log(kind, item_id, _event_name(entry["event_code"]))
        payload = compact_json(entry, str)
        self._queue.append((topic, payload, b"%.6f" % entry["timestamp"]))
        self._has_news.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            heed_cancellation()
            await self._has_news.wait()
            self._has_news.clear()
            while self._queue:
                for _ in range(min(AT_ONCE, len(self._queue))):
                    await self._send(*self._queue.popleft())
                await asyncio.sleep(0)

    async def _send(self, topic: str, payload: bytes, timestamp: bytes) -> None:
        for _ in range(ATTEMPTS):
            link = self._client.link
            if link is None or not link.is_paused:
                break
            await asyncio.sleep(PAUSE)
        self._client.publish_unconfirmed(topic, payload, timestamp)


def _event_name(event_code: int) -> str:
    """The last level of the topic."""
    try:
        return DESCRIPTIONS[EventCode(event_code)][0]
    except (KeyError, ValueError):
        return str(event_code)
