"""The benchmark of decoding compares two things that do the same work."""

from __future__ import annotations

from typing import Any

import pytest

from bench.decode import PACKETS, InSession, _frames, hand_written
from gateway.emulator.tape import Shape
from gateway.protocols.teltonika.frame import body_of
from gateway.protocols.teltonika.wire import CODEC_8_EXTENDED, decode_packet

TWENTY = PACKETS["20 records of 17 IO elements, Codec 8E"]


def as_baseline(record: dict[str, Any]) -> dict[str, Any]:
    """A wire record with its groups in one dict."""
    groups = [name for name in ("n1", "n2", "n4", "n8", "nx") if name in record]
    fields = {name: value for name, value in record.items() if name not in groups}
    return fields | {"io": {avl_id: value for name in groups for avl_id, value in record[name]}}


@pytest.mark.parametrize("shape", PACKETS.values(), ids=list(PACKETS))
def test_the_baseline_reads_what_the_gateway_reads(shape: Shape) -> None:
    """Or the ratio would compare two different things."""
    body = body_of(_frames(shape)[0])
    by_hand = hand_written(shape.codec_id == CODEC_8_EXTENDED)(body)
    assert by_hand == [as_baseline(record) for record in decode_packet(body)["records"]]
    assert len(by_hand) == shape.records


def test_a_session_acknowledges_what_the_benchmark_sends() -> None:
    """The figure includes the answer."""
    assert InSession().take(_frames(TWENTY)[0]) == b"\0\0\0\x14"
