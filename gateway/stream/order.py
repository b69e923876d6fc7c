"""What of a batch that broke off is not to be sent again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from gateway.stream.target import Outgoing, Rejection


def mark_delivered(batch: Sequence[Outgoing], confirmed: Collection[int], rejected: Collection[int] = ()) -> None:
    """Mark the messages that the target confirmed, as far as order allows.

    One that was confirmed although an earlier one of its ident was not is sent again, behind that one: so the target
    has all of an ident in their order, if some of them twice. A rejected one is not waited for.
    """
    held: set[str] = set()
    for index, outgoing in enumerate(batch):
        if index in confirmed:
            outgoing.is_done = outgoing.ident not in held
        elif not outgoing.is_done and index not in rejected:
            held.add(outgoing.ident)


class Refusals:
    """What a target refused of a batch that broke off. The batch comes again, and these of it are not sent then."""

    def __init__(self) -> None:
        self._reasons: dict[Outgoing, str] = {}

    @contextmanager
    def of(self, batch: Sequence[Outgoing]) -> Iterator[dict[int, str]]:
        """Reasons by index, for the time of a delivery, which adds to them."""
        reasons = {index: self._reasons[one] for index, one in enumerate(batch) if one in self._reasons}
        try:
            yield reasons
        finally:
            self._reasons = {batch[index]: reason for index, reason in reasons.items()}


def as_rejections(reasons: Mapping[int, str]) -> list[Rejection]:
    """Of reasons by index."""
    return [Rejection(index, reason) for index, reason in sorted(reasons.items())]


def progress(batch: Sequence[Outgoing]) -> str:
    """How much of it is done with, for an error."""
    return f"{sum(one.is_done for one in batch)} of {len(batch)} messages"
