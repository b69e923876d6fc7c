"""docs/streams.md tells the truth: its tables are those of the code, its examples are taken, its numbers are right."""

from __future__ import annotations

import json
import re

import msgspec
import pytest

from docs.streams_table import ALL, BLOCK, PAGE, with_tables
from gateway.api.streams import TTL_LEAST
from gateway.store.event_codes import EventCode
from gateway.stream import queue, sender
from gateway.stream.protocols import find_protocols
from gateway.stream.state import Counters
from gateway.stream.template import NAMES, PLACES_MOST, SHOWN
from gateway.streams import traccar
from gateway.streams.flespi import NOT_IN_SELECTOR

PROTOCOLS = find_protocols()
PAGE_TEXT = PAGE.read_text()
TEXT = " ".join(PAGE_TEXT.split())
EXAMPLES = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", PAGE_TEXT, re.M | re.S)]


def test_the_tables_are_current():
    """``make docs`` writes them."""
    assert with_tables(PAGE_TEXT) == PAGE_TEXT


def test_every_type_has_a_section_and_an_example():
    assert set(BLOCK.findall(PAGE_TEXT)) == {ALL, *PROTOCOLS}
    assert re.findall(r"^## ([a-z]+)$", PAGE_TEXT, re.M) == sorted(PROTOCOLS)
    assert {example["protocol_name"] for example in EXAMPLES} <= set(PROTOCOLS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_examples_can_be_created(example):
    kind = PROTOCOLS[example["protocol_name"]].cls
    assert kind is not None
    kind.check(msgspec.convert(example["configuration"], kind.Config))


@pytest.mark.parametrize(
    "said",
    [
        "after a pause of a second, which doubles with each failure up to a minute",
        f"the first {sender.REJECTIONS_TOLD} of a batch have an entry each",
        f"`message` ({sender.EXCERPT_MOST:,} characters of it at most)",
        f"counted in the first {queue.COUNTED_MOST:,} packets of each log",
        f"waits for its delivery at most: {TTL_LEAST} to `limits.reader_retention`",
        f"messages of more than {traccar.FORM_MOST // 1024} KiB",
    ],
)
def test_the_limits_are_those_of_the_code(said):
    assert said in TEXT
    assert (sender.RETRY_FIRST, sender.RETRY_MOST) == (1, 60)


def test_what_a_message_fills_in_is_that_of_the_code():
    assert f"up to {PLACES_MOST} of these are replaced" in TEXT
    rows = re.findall(r"^\| (`%.*?%`) \|", PAGE_TEXT, re.M)
    assert sorted(re.findall(r"%(.*?)%", " ".join(rows))) == sorted(NAMES)
    filled = {name for name, protocol in PROTOCOLS.items() if SHOWN in str(msgspec.json.schema(protocol.config))}
    section = PAGE_TEXT.partition("### What a message fills in")[2].partition("| |")[0]
    assert set(re.findall(r"\(#(\w+)\)", section)) == filled


def test_codes_and_counters_are_those_of_the_code():
    codes = {
        int(code) for row in re.findall(r"^\| ([\d, ]+?)(?: with .*?)? \|", PAGE_TEXT, re.M) for code in row.split(",")
    }
    assert codes == {
        EventCode.CONFIGURATION_INVALID, EventCode.STREAM_CONNECTED, EventCode.STREAM_LOST, EventCode.STREAM_FAILED,
        EventCode.STREAM_SENT, EventCode.STREAM_RECOVERED, EventCode.STREAM_REJECTED, EventCode.DEVICE_SUBSCRIBED,
        EventCode.DEVICE_UNSUBSCRIBED, EventCode.CHANNEL_SUBSCRIBED, EventCode.CHANNEL_UNSUBSCRIBED,
    }  # fmt: skip
    assert all(f"`{name}`" in TEXT for name in msgspec.to_builtins(Counters()))


def test_what_an_ident_cannot_have_over_rest_is_told():
    said = re.search(r"idents with one of `([^`]*)`", TEXT)
    assert said is not None
    assert set(said[1].split()) == NOT_IN_SELECTOR


def test_what_osmand_names_otherwise_is_told():
    for here, there in traccar.ATTRIBUTES.items():
        assert f"`{here}`" in TEXT
        assert f"`{there}`" in TEXT
    assert all(f"`{there}`" in TEXT for there in traccar.POSITION.values())
