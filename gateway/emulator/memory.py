"""What a tracker keeps until it is acknowledged, and in which order it goes out.

Records of high priority and of panic first; among the others the newest or the oldest, as the device is set up. The
packet that is on its way stays as it is until it is acknowledged, whatever comes meanwhile.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from gateway.emulator.group import PACKET_RECORDS
from gateway.emulator.packets import Packet, Wrap, encode_record, fits, framed, join_records
from gateway.emulator.recorder import LOW_PRIORITY, Record
from gateway.emulator.tally import Tally


class PacketSource(Protocol):
    """Where a device's packets come from: its memory, or a capture."""

    @property
    def pending(self) -> Packet | None:
        """The packet that was taken and is not settled."""

    @property
    def is_done(self) -> bool:
        """Everything is settled, and nothing more will come."""

    @property
    def is_due(self) -> bool:
        """There is something to send."""

    def take(self) -> Packet | None:
        """The pending packet, or the next one if it is due."""

    def finish(self) -> None:
        """Nothing more is to come."""

    def settle(self) -> None:
        """The pending packet is acknowledged, or needs no acknowledgement."""


class Memory:
    """The records of one device.

    :param least: a packet is sent when so many records wait, when one of high priority does, and, once ``finish`` was
        called, with what is left
    :param most: bytes of body that a packet holds
    :param backlog: records kept while nothing can be sent; when it is full the oldest of low priority is dropped
    """

    __slots__ = (
        "_backlog", "_codec_id", "_is_finished", "_least", "_most", "_newest_first", "_ordinary", "_tally", "_urgent",
        "_wants_to_send", "_wrap", "pending",
    )  # fmt: skip

    def __init__(
        self,
        codec_id: int,
        tally: Tally,
        wrap: Wrap = framed,
        least: int = 1,
        most: int = 1257,
        backlog: int = 10_000,
        newest_first: bool = False,
    ) -> None:
        if not 1 <= least <= PACKET_RECORDS:
            raise ValueError(f"a packet holds 1 to {PACKET_RECORDS} records, not {least}")
        self.pending: Packet | None = None
        self._codec_id = codec_id
        self._tally = tally
        self._wrap = wrap
        self._least = least
        self._most = most
        self._backlog = backlog
        self._newest_first = newest_first
        self._ordinary: deque[bytes] = deque()
        self._urgent: deque[bytes] = deque()
        self._is_finished = False
        self._wants_to_send = False

    def __len__(self) -> int:
        """Records that are not yet in a packet."""
        return len(self._ordinary) + len(self._urgent)

    @property
    def is_done(self) -> bool:
        return self._is_finished and self.pending is None and not len(self)

    @property
    def is_due(self) -> bool:
        if self.pending is not None or self._urgent:
            return True
        waiting = len(self._ordinary)
        return waiting >= self._least or (waiting > 0 and (self._is_finished or self._wants_to_send))

    def store(self, record: Record) -> None:
        """Keep a record until it is acknowledged. Raises EncodeError."""
        data = encode_record(self._codec_id, record)
        self._tally.recorded += 1
        if len(self) >= self._backlog:
            (self._ordinary or self._urgent).popleft()
            self._tally.dropped += 1
        (self._ordinary if record["priority"] == LOW_PRIORITY else self._urgent).append(data)

    def flush(self) -> None:
        """Send what there is, even if it does not fill a packet."""
        self._wants_to_send = True

    def finish(self) -> None:
        """No record will follow."""
        self._is_finished = True

    def take(self) -> Packet | None:
        if self.pending is None and self.is_due:
            records = self._next_records()
            self._wants_to_send = False
            body = join_records(self._codec_id, records)
            self.pending = Packet(self._wrap(body), body, len(records))
            self._tally.packets += 1
        return self.pending

    def settle(self) -> None:
        assert self.pending is not None
        self._tally.acknowledged += self.pending.count or 0
        self.pending = None

    def _next_records(self) -> list[bytes]:
        records: list[bytes] = []
        size = 0
        while queue := self._urgent or self._ordinary:
            size += len(queue[-1 if self._newest_first else 0])
            if not fits(size, len(records) + 1, self._most):
                break
            records.append(queue.pop() if self._newest_first else queue.popleft())
        return records
