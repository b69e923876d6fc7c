"""amqtt, with what it gets wrong mended, and bounds where it has none.

These are overrides of methods that amqtt calls its own: ``tests/test_broker.py`` tells when a version has no such.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, Protocol

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.session import ApplicationMessage, Session

from gateway import metrics

QUEUED_MESSAGES = 1000
"""What may be taken from one client, and wait to be spread to all, before the next PUBLISH waits for its PUBACK."""
OFFLINE_MESSAGES = 10_000
"""Kept for a persistent session while its client is away; what comes later is dropped."""
FILTERS_MOST = 1000
"""Subscriptions of one client: each message is held against every filter."""
RETAINED_MOST = 10_000
"""Retained messages of clients; the gateway's own have a bound in what it knows of devices and parameters."""
YIELD_AFTER = 50
"""Retained messages looked at until others have their turn."""
REFUSED = 0x80


class Rules(Protocol):
    """What a session may do. ``ready``: wait for one that is behind, before it is handed a message."""

    async def ready(self, session: Session) -> None: ...

    def may_publish(self, session: Session, topic: str) -> bool: ...

    def may_subscribe(self, session: Session, topic_filter: str) -> bool: ...

    def may_receive(self, session: Session, topic: str) -> bool: ...

    def is_own(self, topic: str) -> bool:
        """Whether a topic is the gateway's."""


class _Subscriptions(dict[str, list[tuple[Session, int]]]):
    """By filter. amqtt waits while it walks through the filters, and fails when one comes or goes meanwhile."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))


class BoundedBroker(Broker):
    """Asks ``rules`` itself, where amqtt would start a task for each question."""

    def __init__(self, config: dict[str, Any], rules: Rules) -> None:
        super().__init__(config)
        self._rules = rules
        self._broadcast_queue = asyncio.Queue(QUEUED_MESSAGES)
        self._subscriptions = _Subscriptions()
        self._filters: Counter[str] = Counter()
        self._foreign_retained = 0

    async def end_session(self, client_id: str) -> None:
        """Forget a session with all that is kept for it."""
        await self._delete_session(client_id)

    # rights

    async def _topic_filtering(self, session: Session, topic: str, action: Action) -> bool:
        if action == Action.PUBLISH:
            return self._rules.may_publish(session, topic)
        if action == Action.SUBSCRIBE:
            return self._rules.may_subscribe(session, topic)
        return self._rules.may_receive(session, topic)

    # subscriptions

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        """The QoS that is granted, or :data:`REFUSED`."""
        before = len(self._subscriptions.get(subscription[0], ()))
        is_full = self._filters[session.client_id or ""] >= FILTERS_MOST
        if is_full and not self._is_subscribed(session, subscription[0]):
            return REFUSED
        granted = await super().add_subscription(subscription, session)
        if granted != REFUSED:
            self._count_filters(session, len(self._subscriptions[subscription[0]]) - before)
        return granted

    def _is_subscribed(self, session: Session, topic_filter: str) -> bool:
        subscribed = self._subscriptions.get(topic_filter, ())
        return any(subscriber.client_id == session.client_id for subscriber, _qos in subscribed)

    def _count_filters(self, session: Session, change: int) -> None:
        client_id = session.client_id or ""
        self._filters[client_id] += change
        if self._filters[client_id] <= 0:
            del self._filters[client_id]

    def _del_subscription(self, a_filter: str, session: Session) -> int:
        """amqtt keeps filters that nobody has any more, and looks at them for each message."""
        deleted = super()._del_subscription(a_filter, session)
        if deleted and not self._subscriptions[a_filter]:
            del self._subscriptions[a_filter]
        if deleted:
            self._count_filters(session, -deleted)
        return deleted

    async def _del_all_subscriptions(self, session: Session) -> None:
        for topic_filter in self._subscriptions:
            self._del_subscription(topic_filter, session)

    # retained messages

    async def retain_message(
        self,
        source_session: Session | None,
        topic_name: str | None,
        data: bytes | bytearray | None,
        qos: int | None = None,
    ) -> None:
        """Keep the last message of a topic; an empty one removes it."""
        before = len(self._retained_messages)
        is_foreign = not self._rules.is_own(topic_name or "")
        is_new = topic_name not in self._retained_messages
        if is_foreign and is_new and self._foreign_retained >= RETAINED_MOST:
            metrics.count("mqtt_retained_messages_dropped")
            return
        await super().retain_message(source_session, topic_name, data, qos)
        if is_foreign:
            self._foreign_retained += len(self._retained_messages) - before

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """amqtt sends a client that connects what is retained for everybody's subscriptions; this, for its own.

        And not all at once, nor what has been replaced meanwhile: the client would take it for the newer value.
        """
        topic_filter, qos = subscription
        if not self._is_subscribed(session, topic_filter):
            return
        publishing: set[asyncio.Task[Any]] = set()
        for number, topic in enumerate(list(self._retained_messages), 1):
            if number % YIELD_AFTER == 0:
                await asyncio.sleep(0)
            if self._matches(topic, topic_filter) and self._rules.may_receive(session, topic):
                await self._rules.ready(session)
                handler, retained = self._get_handler(session), self._retained_messages.get(topic)
                if handler is None:
                    break
                if retained is not None:
                    sending = handler.mqtt_publish(topic, retained.data, min(qos, retained.qos or qos), retain=True)
                    task = asyncio.ensure_future(sending)
                    publishing.add(task)
                    task.add_done_callback(publishing.discard)
        await asyncio.gather(*publishing, return_exceptions=True)

    async def _publish_session_retained_messages(self, session: Session) -> None:
        """What came while the client was away, as far as it may still have it."""
        kept: list[ApplicationMessage] = []
        while not session.retained_messages.empty():
            kept.append(session.retained_messages.get_nowait())
        for message in kept:
            if self._rules.may_receive(session, message.topic or ""):
                session.retained_messages.put_nowait(message)
        await super()._publish_session_retained_messages(session)

    # messages

    async def _run_broadcast(self, running_tasks: deque[asyncio.Task[Any]]) -> None:
        """Spread one message.

        amqtt waits while it walks through the subscriptions, and leaves somebody out when one comes or goes meanwhile.
        """
        broadcast = await self._broadcast_queue.get()
        topic = broadcast["topic"]
        subscriptions = [
            subscription
            for topic_filter, subscribed in self._subscriptions.items()
            if self._matches(topic, topic_filter)
            for subscription in subscribed
        ]
        for session, qos in subscriptions:
            if self._rules.may_receive(session, topic):
                await self._rules.ready(session)
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
