"""Named models: published packets, and values of each family's own tables, become the messages that they should.

tests/vectors/messages.json has both: ``vector`` names a packet of teltonika.json and all its ``messages``; ``io`` are
the elements of one record, and ``expect`` what they add to its message.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway import message as msg
from gateway.protocols.teltonika.avl_ids import find_model
from gateway.protocols.teltonika.datagram import DatagramReceived, receive_datagram
from gateway.protocols.teltonika.frame import body_of
from gateway.protocols.teltonika.normalize import normalizer_for
from gateway.protocols.teltonika.wire import CODEC_8_EXTENDED, decode_packet
from tests.builders import FrameFactory
from tests.test_vectors import VECTORS, data_of

Case = dict[str, Any]

CASES: list[Case] = json.loads((Path(__file__).parent / "vectors" / "messages.json").read_text())
PACKETS = [case for case in CASES if "vector" in case]
RECORDS = [case for case in CASES if "io" in case]
EMPTY: Case = {group: [] for group in ("n1", "n2", "n4", "n8", "nx")}


def body(name: str) -> bytes:
    """The body of a published packet."""
    (vector,) = (vector for vector in VECTORS if vector["name"] == name)
    if vector["transport"] == "tcp":
        return body_of(data_of(vector))
    event = receive_datagram(data_of(vector))
    assert isinstance(event, DatagramReceived)
    return event.body


@pytest.mark.parametrize("case", PACKETS, ids=lambda case: f"{case['vector']}, {case['model']}")
def test_a_published_packet_gives_these_messages(case: Case) -> None:
    packet = decode_packet(body(case["vector"]))
    messages = normalizer_for(case["model"]).normalize_all(packet["records"], packet["codec_id"])
    assert [msg.decode(msg.encode(message)) for message in messages] == case["messages"]


@pytest.mark.parametrize("case", RECORDS, ids=lambda case: case["name"])
def test_the_elements_of_a_record_give_these_parameters(case: Case) -> None:
    normalizer = normalizer_for(case["model"])
    elements = {
        group: [(avl_id, bytes.fromhex(value) if group == "nx" else value) for avl_id, value in pairs]
        for group, pairs in case["io"].items()
    }
    bare = normalizer.normalize(FrameFactory().record(CODEC_8_EXTENDED, **EMPTY), CODEC_8_EXTENDED)
    message = normalizer.normalize(FrameFactory().record(CODEC_8_EXTENDED, **EMPTY | elements), CODEC_8_EXTENDED)
    assert {name: value for name, value in message.items() if bare.get(name) != value} == case["expect"]


def test_every_family_has_a_case() -> None:
    families = {find_model(case["model"]).family for case in CASES}
    assert families == {"FMB", "FMX6", "FM63XY", "FM36", "FM11XY", "AT", "FTX", "ATX"}
