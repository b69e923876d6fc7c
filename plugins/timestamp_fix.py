"""Plugin type ``timestamp-fix``.

GPS counts weeks with ten bits: a receiver that does not know in which turn of 1024 weeks (19.6 years) it is gives a
time that is one or several turns too early. That is found by the size of the error, and by where the mended time lies:
a record that is merely old, such as one that the tracker kept, is younger than a turn.
"""

from __future__ import annotations

from math import ceil, floor
from typing import Annotated, Any, Literal

from msgspec import Meta

from gateway import plugin
from gateway.plugin import Context, DropMessage, Message, Plugin

DAY = 86400
WEEK = 7 * DAY
ROLLOVER = 1024 * WEEK
GPS_BEGAN = 315964800
"""6 January 1980: what is earlier comes from a clock that was never set."""
LATEST = 2.0**53
"""Up to where a number of seconds is exact."""
ORIGINAL = "timestamp.original"


class TimestampFix(Plugin):
    """Mends the timestamp of trackers whose clock is wrong: 1024 weeks or a multiple behind (GPS week rollover), or
    ahead of the time of reception. What the tracker sent stays in timestamp.original; messages that are merely old are
    left as they are."""

    class Config(plugin.Config):
        """The options."""

        rollover: Annotated[
            bool, Meta(description="whether a clock that is behind by 1024 weeks, or a multiple, is mended")
        ] = True
        oldest: Annotated[
            float,
            Meta(
                gt=0,
                le=5 * 365 * DAY,
                description="seconds before the reception that a mended rollover may lie; others, such as the first "
                "second of 1970 or 2000 of a clock that was never set, are left as they are",
            ),
        ] = 30 * DAY
        tolerance: Annotated[
            float, Meta(ge=0, le=30 * DAY, description="seconds that a timestamp may be ahead of the reception")
        ] = 3600
        future: Annotated[
            Literal["receive", "drop", "keep"],
            Meta(
                description="what happens to a message that is further ahead: its timestamp becomes the time of "
                "reception, it is not registered, or it is left as it is"
            ),
        ] = "receive"
        whole_weeks: Annotated[
            bool,
            Meta(
                description="whether a timestamp that is further ahead is mended by as few whole weeks as bring it "
                "back, instead of what `future` says"
            ),
        ] = False

    def process(self, message: Message, context: Context) -> Message:
        """The message with another ``timestamp``, or as it was."""
        sent: Any = message.get("timestamp")
        received: Any = message.get("server.timestamp")
        if not (_is_time(sent) and _is_time(received)):
            return message
        mended = self._mended(sent, received)
        return message if mended is None else _moved(message, sent, mended)

    def _mended(self, sent: float, received: float) -> float | None:
        """The right time; None where ``sent`` is left. Raises DropMessage."""
        latest = received + self.config.tolerance
        if sent <= latest:
            return self._forward(sent, received, latest) if self.config.rollover else None
        if self.config.whole_weeks and sent < LATEST:
            weeks: int = ceil((sent - latest) / WEEK)
            return sent - weeks * WEEK
        if self.config.future == "drop":
            raise DropMessage(f"timestamp {sent} is {sent - received:.0f} s ahead of its reception")
        return received if self.config.future == "receive" else None

    def _forward(self, sent: float, received: float, latest: float) -> float | None:
        if sent < GPS_BEGAN:
            return None
        turns: int = floor((latest - sent) / ROLLOVER)
        mended = sent + turns * ROLLOVER
        return mended if turns and received - mended <= self.config.oldest else None


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 2**64


def _moved(message: Message, sent: float, mended: float) -> Message:
    message.setdefault(ORIGINAL, sent)
    message["timestamp"] = mended
    if _is_time(message.get("timestamp.key")):
        message["timestamp.key"] = round(message["timestamp.key"] + (mended - sent), 6)
    return message
