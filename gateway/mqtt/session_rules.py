"""What the clients of the embedded broker may do, as amqtt asks it: with amqtt's session, for each message."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amqtt.contexts import BaseContext
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session
from twisted.logger import Logger

from gateway import metrics
from gateway.mqtt.bounded_broker import QUEUED_MESSAGES
from gateway.mqtt.rights import Admission
from gateway.mqtt.topics import Topics
from gateway.mqtt.visitors import MiB, Visitor

ADMISSION = "gateway.admission"
"""Attribute of amqtt's session: whose it is, also while its client is away."""
BEHIND_MESSAGES, BEHIND_BYTES = 1000, 1 * MiB
"""Unacknowledged, or not yet taken by the network: a subscriber with more is waited for, but not longer than this."""
PATIENCE = 2.0


def admission_of(session: Session) -> Admission | None:
    """Whose session it is."""
    admission: Admission | None = session.attributes.get(ADMISSION)
    return admission


class SessionRules:
    """``visitors`` by client id: those who are connected."""

    log = Logger()

    def __init__(self, visitors: Mapping[str, Visitor], topics: Topics) -> None:
        self._visitors = visitors
        self._own_topics = topics.prefix + "/"

    def enter(self, session: Session) -> None:
        """A visitor became a client. A will that it could not publish is discarded as such a message would be."""
        visitor = self._visitors[session.client_id or ""]
        session.attributes[ADMISSION] = visitor.admission
        topic = session.will_topic or ""
        if session.will_flag and (any(sign in topic for sign in "+#$") or not self.may_publish(session, topic)):
            session.will_flag = False

    def is_own(self, topic: str) -> bool:
        """Whether only the gateway publishes there."""
        return topic.startswith(self._own_topics)

    def may_publish(self, session: Session, topic: str) -> bool:
        """The gateway anything; others what is not the gateway's (flespi discards it as silently)."""
        visitor, admission = self._visitors.get(session.client_id or ""), admission_of(session)
        if visitor is not None and visitor.is_gateway:
            return True
        return admission is not None and not self.is_own(topic) and admission.rights.may_publish(topic)

    def may_subscribe(self, session: Session, topic_filter: str) -> bool:
        """What its token allows."""
        admission = admission_of(session)
        return admission is not None and admission.rights.may_subscribe(topic_filter)

    def may_receive(self, session: Session, topic: str) -> bool:
        """A filter may cover more than its token allows."""
        admission = admission_of(session)
        return admission is not None and admission.rights.may_receive(topic)

    async def ready(self, session: Session) -> None:
        """Wait for a subscriber that is behind, which holds up the publisher; cut it when that takes too long."""
        visitor = self._visitors.get(session.client_id or "")
        if visitor is None:
            return
        for _ in range(int(PATIENCE / 0.01)):
            if visitor.gone.is_set() or not _is_behind(session, visitor):
                return
            await asyncio.sleep(0.01)
        metrics.count("mqtt_clients_cut")
        self.log.info("cut {peer!r}: it does not take what it subscribed to", peer=visitor.transport.peer)
        await visitor.cut()


def _is_behind(session: Session, visitor: Visitor) -> bool:
    return len(session.inflight_out) >= BEHIND_MESSAGES or visitor.transport.waiting_bytes > BEHIND_BYTES


class Entrance(BaseAuthPlugin):
    """amqtt asks this plugin; who may come in was decided at the door."""

    @dataclass
    class Config:
        """How amqtt gives a plugin its options."""

        rules: Any

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self._rules: SessionRules = self.config.rules

    async def authenticate(self, *, session: Session) -> bool | None:
        session.delivered_message_queue = asyncio.Queue(QUEUED_MESSAGES)
        self._rules.enter(session)
        return True
