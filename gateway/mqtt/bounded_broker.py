"""amqtt, with what it gets wrong mended, and bounds where it has none.

These are overrides of methods that amqtt calls its own: ``tests/test_broker.py`` tells when a version has no such.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from amqtt.broker import Broker
from amqtt.session import Session

from gateway import metrics

QUEUED_MESSAGES = 1000
"""What may be taken from one client, and wait to be spread to all, before the next PUBLISH waits for its PUBACK."""
OFFLINE_MESSAGES = 10_000
"""Kept for a persistent session while its client is away; what comes later is dropped."""


class BoundedBroker(Broker):
    """``ready`` is awaited before a message is handed to a session: the place to wait for one that is behind."""

    def __init__(self, config: dict[str, Any], ready: Callable[[Session], Awaitable[None]]) -> None:
        super().__init__(config)
        self._ready = ready
        self._broadcast_queue = asyncio.Queue(QUEUED_MESSAGES)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """amqtt sends a client that connects what is retained for everybody's subscriptions; this, for its own."""
        subscribers = self._subscriptions.get(subscription[0], ())
        if any(subscriber.client_id == session.client_id for subscriber, _qos in subscribers):
            await super()._publish_retained_messages_for_subscription(subscription, session)

    async def _run_broadcast(self, running_tasks: deque[asyncio.Task[Any]]) -> None:
        """Spread one message.

        amqtt waits while it walks through the subscriptions, and leaves somebody out when one comes or goes meanwhile.
        """
        broadcast = await self._broadcast_queue.get()
        subscriptions = [
            subscription
            for topic_filter, subscribed in self._subscriptions.items()
            if self._matches(broadcast["topic"], topic_filter)
            for subscription in subscribed
        ]
        for session, qos in subscriptions:
            await self._ready(session)
            await self._hand_over(broadcast, session, broadcast.get("qos", qos), running_tasks)

    async def _hand_over(
        self, broadcast: dict[str, Any], session: Session, qos: int, running_tasks: deque[asyncio.Task[Any]]
    ) -> None:
        if session.transitions.state == "connected":
            handler = self._get_handler(session)
            if handler is not None:
                publishing = handler.mqtt_publish(broadcast["topic"], broadcast["data"], qos, retain=False)
                running_tasks.append(asyncio.ensure_future(publishing))
        elif qos and not session.clean_session:
            if session.retained_messages.qsize() < OFFLINE_MESSAGES:
                await self._retain_broadcast_message(broadcast, qos, session)
            else:
                metrics.count("mqtt_offline_messages_dropped")
