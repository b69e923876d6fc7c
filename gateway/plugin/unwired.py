"""Unwired Labs' LocationAPI, version 2: a POST of JSON with ``token``, ``radio``, ``mcc``, ``mnc``, ``cells``,
``wifi``.

The answer has ``status``: ``ok`` with ``lat``, ``lon`` and ``accuracy`` (meters), or ``error`` with ``message``, which
says that nothing matched, or that the token is wrong or its balance used up; the HTTP status may be 200 with it.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.errors import RemoteRefused
from gateway.plugin.cell_table import Place
from gateway.plugin.cells import AccessPoint, Cell, Heard
from gateway.web import Answer

NOTHING = ("no match", "location not found", "unable to")
NOT_ALLOWED = ("token", "balance", "credit", "limit", "expired", "key")
WIDE_CELL = 65_535
"""Cells of GSM have two bytes."""
ACCURACY_MOST = 1_000_000


def body(token: str, heard: Heard) -> bytes:
    """The question."""
    question: dict[str, Any] = {"token": token, "address": 0}
    if heard.cells:
        serving = heard.cells[0]
        radio = heard.radio or ("lte" if serving.cid > WIDE_CELL else "gsm")
        question |= {"radio": radio, "mcc": serving.mcc, "mnc": serving.mnc, "cells": list(map(_cell, heard.cells))}
    if heard.points:
        question["wifi"] = list(map(_point, heard.points))
    return orjson.dumps(question)


def _cell(cell: Cell) -> dict[str, Any]:
    numbers = {"mcc": cell.mcc, "mnc": cell.mnc, "lac": cell.lac, "cid": cell.cid}
    return numbers if cell.signal is None else {**numbers, "signal": cell.signal}


def _point(point: AccessPoint) -> dict[str, Any]:
    return {"bssid": point.bssid} if point.signal is None else {"bssid": point.bssid, "signal": point.signal}


def place(answer: Answer) -> Place | None:
    """Where it is; None where nothing matched.

    Raises RemoteRefused: with status 403 where it will not be otherwise for the next question.
    """
    try:
        said = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        raise _refused(f"an object of JSON should be answered: {answer.excerpt}", answer)
    message = str(said.get("message", ""))[:300]
    if said.get("status") != "ok":
        if answer.status == 404 or any(text in message.lower() for text in NOTHING):
            return None
        is_final = any(text in message.lower() for text in NOT_ALLOWED) and answer.status < 500
        raise _refused(message or answer.excerpt, answer, 403 if is_final else answer.status)
    latitude, longitude = _number(said.get("lat"), 90), _number(said.get("lon"), 180)
    if latitude is None or longitude is None:
        raise _refused(f"lat and lon should be degrees: {answer.excerpt}", answer)
    return Place(latitude, longitude, round(_number(said.get("accuracy"), ACCURACY_MOST) or 0))


def _number(value: Any, most: float) -> float | None:
    return float(value) if type(value) in (int, float) and -most <= value <= most else None


def _refused(reason: str, answer: Answer, status: int = 0) -> RemoteRefused:
    return RemoteRefused(f"HTTP {answer.status}: {reason}", status=status or answer.status, answer=answer.excerpt)
