"""The plugin type position-lookup: from cells and access points to a position, by a service and by a file."""

from __future__ import annotations

import asyncio
import json

import pytest
from attrs import evolve

from gateway.errors import ItemError, RemoteRefused, RemoteUnavailable
from gateway.plugin import PluginError
from tests.authority import Authority
from tests.plugin_examples import CELL, CELLS
from tests.plugin_run import DEVICE, asked, made, message
from tests.targets.http import CLOSE, NEVER, Answer

OTHER = evolve(DEVICE, id=8)
OK = {"status": "ok", "balance": 99, "lat": 54.5, "lon": 25.5, "accuracy": 812}
FOUND = {
    "position.latitude": 54.5,
    "position.longitude": 25.5,
    "position.accuracy": 812,
    "position.valid": True,
    "position.source": "lbs",
}
NONE = {"status": "error", "message": "No matches found", "balance": 99}
FIX = {"position.latitude": 1.5, "position.longitude": 2.5}


def says(answer: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(answer).encode())


@pytest.fixture
def lookup(http_target, make_plugin):
    """The plugin with the service on this machine, which knows all places."""
    http_target.default = says(OK)

    def make(**config):
        return make_plugin(
            "position-lookup", **{"provider": "unwiredlabs", "token": "t0k", "uri": http_target.url, **config}
        )

    return make


def test_cells_are_located_by_the_service(run, http_target, lookup):
    """The question is as the service wants it, the answer becomes the position."""
    given = message(**CELL) | {"gsm.signal.dbm": 71, "gsm.cellid.1": 11, "gsm.lac.1": 21, "position.skipped": True}
    [result] = run(asked(lookup(), given))
    assert result == {name: value for name, value in given.items() if name != "position.skipped"} | FOUND
    [request] = http_target.requests
    assert request.method == "POST"
    assert request.json() == {
        "token": "t0k", "address": 0, "radio": "gsm", "mcc": 246, "mnc": 1,
        "cells": [{"mcc": 246, "mnc": 1, "lac": 20, "cid": 4001, "signal": -71},
                  {"mcc": 246, "mnc": 1, "lac": 21, "cid": 11}],
    }  # fmt: skip


def test_access_points_are_located_by_the_service(run, http_target, lookup):
    """The source says so."""
    given = message() | {"wifi.access.points": [{"mac.address": "0017C5CDCAAA", "signal.dbm": -51}]}
    [result] = run(asked(lookup(), given))
    assert result == given | FOUND | {"position.source": "wifi"}
    assert http_target.requests[0].json() == {
        "token": "t0k", "address": 0, "wifi": [{"bssid": "00:17:c5:cd:ca:aa", "signal": -51}]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("type", "cell", "radio"), [("3G", 9, "umts"), ("4G", 9, "lte"), (None, 9, "gsm"), (None, 134217985, "lte")]
)
def test_the_radio_is_that_of_the_network(run, http_target, lookup, type, cell, radio):
    """Where it is not known, a wide number is none of GSM."""
    run(asked(lookup(), message(**CELL) | {"gsm.network.type": type, "gsm.cellid": cell}))
    assert http_target.requests[0].json()["radio"] == radio


@pytest.mark.parametrize(
    ("when", "position", "is_asked"),
    [
        ("invalid", {}, True),
        ("invalid", FIX, False),
        ("invalid", FIX | {"position.valid": False}, True),
        ("invalid", FIX | {"position.valid": True}, False),
        ("invalid", {"position.latitude": 0, "position.longitude": 0}, True),
        ("missing", {}, True),
        ("missing", {"position.valid": False}, True),
        ("missing", FIX | {"position.valid": False}, False),
        ("missing", {"position.latitude": 54.5}, True),
    ],
)
def test_only_messages_without_a_position_are_looked_up(run, http_target, lookup, when, position, is_asked):
    """As the option says."""
    given = message(**CELL) | position
    [result] = run(asked(lookup(when=when), given))
    assert result == given | (FOUND if is_asked else {})
    assert len(http_target.requests) == is_asked


def test_messages_without_cells_pass(run, http_target, lookup):
    """Nothing is asked, not even of a service that fails."""
    http_target.default = CLOSE
    assert run(asked(lookup(), message(), message(gsm_mcc=246))) == [message(), message(gsm_mcc=246)]
    assert http_target.requests == []


def test_the_same_cells_are_asked_once(run, http_target, lookup):
    """Of all devices; whatever their signal."""
    plugin = lookup()
    messages = [message(**CELL) | {"gsm.signal.dbm": -60 - n} for n in range(5)]
    results = run(asked(plugin, *messages)) + run(asked(plugin, message(**CELL), device=OTHER))
    assert [result["position.latitude"] for result in results] == [54.5] * 6
    assert len(http_target.requests) == 1


@pytest.mark.parametrize("answer", [says(NONE), says(NONE, 404), says({"status": "error"}, 404)])
def test_an_unknown_place_leaves_the_message_and_is_remembered(run, http_target, lookup, answer):
    """Neither is an error."""
    http_target.default = answer
    plugin = lookup()
    assert run(asked(plugin, message(**CELL))) == [message(**CELL)]
    assert run(asked(plugin, message(**CELL))) == [message(**CELL)]
    assert len(http_target.requests) == 1


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (says({"status": "error", "message": "Invalid token"}), RemoteRefused, "HTTP 200: Invalid token"),
        (says({"status": "error", "message": "Balance over"}, 402), RemoteRefused, "HTTP 402: Balance over"),
        (says({"status": "error", "message": "Rate limit"}, 429), RemoteRefused, "HTTP 429: Rate limit"),
        (says({"status": "error"}), RemoteRefused, "HTTP 200"),
        (Answer(500, b"oops"), RemoteRefused, "HTTP 500: an object of JSON should be answered: oops"),
        (Answer(404, b"<html>"), RemoteRefused, "HTTP 404"),
        (Answer(302, b"", {"Location": "/x"}), RemoteRefused, "HTTP 302"),
        (Answer(200, b"[]"), RemoteRefused, "an object of JSON"),
        (Answer(200, b'{"status": "ok\xff"}'), RemoteRefused, "an object of JSON"),
        (says({**OK, "lat": "54"}), RemoteRefused, "lat and lon should be degrees"),
        (says({**OK, "lon": 181}), RemoteRefused, "lat and lon should be degrees"),
        (Answer(200, b" " * 70_000), RemoteRefused, "more than 65536 bytes"),
        (CLOSE, RemoteUnavailable, "127.0.0.1"),
        (NEVER, RemoteUnavailable, "did not answer"),
    ],
)
def test_any_other_answer_is_an_error_and_asked_no_more_for_a_while(run, http_target, lookup, answer, error, reason):
    """Neither the token nor the service's bill suffers from it."""
    http_target.next(answer)
    plugin = lookup(timeout=0.5)
    with pytest.raises(error, match=reason) as raised:
        run(asked(plugin, message(**CELL)))
    assert "t0k" not in str(raised.value)
    with pytest.raises(RemoteUnavailable, match="not asked again for"):
        run(asked(plugin, message(**CELL)))
    assert len(http_target.requests) == 1


def test_a_refused_token_is_left_in_peace_longer(run, http_target, lookup):
    """A service that is only down may be up again soon."""
    http_target.next(says({"status": "error", "message": "Invalid token"}))
    plugin = lookup()
    with pytest.raises(RemoteRefused):
        run(asked(plugin, message(**CELL)))
    with pytest.raises(RemoteUnavailable, match=r"not asked again for (59|60) s"):
        run(asked(plugin, message(**CELL)))


def test_nobody_listens(run, http_target, lookup):
    run(http_target.stop())
    with pytest.raises(RemoteUnavailable):
        run(asked(lookup(), message(**CELL)))


def test_the_service_is_known_by_the_own_authority(run, make_http_target, lookup, tmp_path):
    """And is not trusted without it."""
    authority = Authority("ours")
    target = make_http_target(authority.sign("server"))
    target.default = says(OK)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    plugin = lookup(uri=target.url, ca_file=str(tmp_path / "ca.pem"))
    assert run(asked(plugin, message(**CELL)))[0]["position.latitude"] == 54.5
    with pytest.raises(RemoteUnavailable, match="certificate"):
        run(asked(lookup(uri=target.url), message(**CELL)))


def test_questions_come_at_the_rate_and_what_has_no_turn_in_time_passes(run, http_target, lookup):
    """Messages are not held up for ever."""
    messages = [message(**CELL) | {"gsm.cellid": n} for n in range(1, 6)]
    results = run(asked(lookup(rate=10, wait=0.15), *messages))
    assert ["position.latitude" in result for result in results] == [True, True, False, False, False]
    assert len(http_target.requests) == 2


def test_a_device_that_waits_does_not_hold_up_another(run, http_target, lookup):
    plugin = lookup(timeout=20)
    http_target.default = lambda request: NEVER if request.json()["cells"][0]["cid"] == 4001 else says(OK)

    async def scenario() -> None:
        waiting = asyncio.ensure_future(asked(plugin, message(**CELL)))
        await http_target.until(1)
        [result] = await asked(plugin, message(**CELL) | {"gsm.cellid": 5}, device=OTHER)
        assert result["position.latitude"] == 54.5
        assert not waiting.done()
        waiting.cancel()

    run(scenario())


def test_cells_are_located_by_a_file(run, make_plugin):
    """The serving cell; where that is not in it, a neighbor; else the message stays."""
    plugin = make_plugin("position-lookup", provider="csv", file=str(CELLS))
    neighbor = CELL | {"gsm.cellid": 9999, "gsm.cellid.1": 4001, "gsm.lac.1": 20}
    unknown = CELL | {"gsm.cellid": 9999}
    points = {"wifi.access.points": [{"mac.address": "0017C5CDCAAA"}]}
    lte = {"gsm.mcc": 246, "gsm.mnc": 2, "gsm.lac": 512, "gsm.cellid": 134217985}
    results = run(asked(plugin, *(message(**values) for values in (CELL, neighbor, unknown, points, lte))))
    found = FOUND | {"position.latitude": 54.68716, "position.longitude": 25.27965, "position.accuracy": 1000}
    assert results[:4] == [
        message(**CELL, **found),
        message(**neighbor, **found),
        message(**unknown),
        message(**points),
    ]
    assert results[4]["position.latitude"] == 54.9
    assert "position.accuracy" not in results[4]


def test_a_file_that_is_missing_is_an_error_of_messages_with_cells(run, make_plugin):
    """Others pass."""
    plugin = make_plugin("position-lookup", provider="csv", file="/nowhere/cells.csv")
    assert run(asked(plugin, message())) == [message()]
    with pytest.raises(PluginError, match=r"/nowhere/cells\.csv cannot be read: No such file"):
        run(asked(plugin, message(**CELL)))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"provider": "unwiredlabs"}, "token"),
        ({"provider": "csv"}, "file"),
        ({"provider": "csv", "file": "a\0b"}, "file"),
        ({"provider": "unwiredlabs", "token": "t", "uri": "gopher://x/"}, "uri"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said_before(config, field):
    with pytest.raises(ItemError) as raised:
        made("position-lookup", **config)
    assert raised.value.field == f"configuration.{field}"
