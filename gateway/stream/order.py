"""What of a batch that broke off is not to be sent again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gateway.stream.target import Outgoing


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
