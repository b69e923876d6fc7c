"""The commands that a tracker obeys: text in Codec 12 and 14, answered with text.

What the answers look like is taken from Teltonika's wiki: page Codec (its examples of ``getinfo``, ``getio`` and
``getver``) and the pages of the SMS/GPRS commands. ``cpureset`` gets no answer, the device restarts. A command of
Codec 14 for another IMEI is refused with type 0x11 and this device's IMEI.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs

from gateway.emulator.group import Group
from gateway.emulator.recorder import Record
from gateway.errors import DecodeError
from gateway.protocols.teltonika.frame import body_of, build_frame, has_good_crc
from gateway.protocols.teltonika.wire_commands import (
    CODEC_12,
    CODEC_14,
    NOT_MY_IMEI,
    REQUEST,
    RESPONSE,
    decode_command,
    encode_command,
)

UNKNOWN = "Unknown command or invalid format"
BAD_SYNTAX = "Bad syntax"
OUTPUTS = {1: 179, 2: 180, 3: 380}  # AVL ids of the digital outputs
_BYTE_IDS = 256  # Codec 8 has room for AVL ids below


@attrs.frozen
class Reply:
    """What a device does about a command: ``text`` is the command, ``answer`` its answer, ``data`` the answer's frame.

    ``restarts`` is cpureset: nothing is answered, and the link breaks.
    """

    text: str
    answer: str
    data: bytes = b""
    restarts: bool = False


@attrs.define
class _Output:
    value: int
    until: float | None  # None: for ever


class Commands:
    """One device's answers; ``look`` shows its newest record, ``now`` is the time in seconds since 1970."""

    __slots__ = ("_group", "_look", "_now", "_outputs", "_parameters", "_started", "imei")

    def __init__(
        self, imei: str, group: Group, look: Callable[[], Record | None], now: Callable[[], float] = time.time
    ) -> None:
        self.imei = imei
        self._group = group
        self._look = look
        self._now = now
        self._started = now()
        self._outputs: dict[int, _Output] = {}
        self._parameters: dict[str, str] = {}

    def reply(self, frame: bytes) -> Reply | None:
        """What to do about a frame from the server; None where a real device would be silent."""
        message = _request(frame)
        if message is None:
            return None
        text = message["payload"].decode("latin-1").strip()
        if message["codec_id"] == CODEC_14 and message["imei"] != self.imei:
            refusal = {"type": NOT_MY_IMEI, "imei": self.imei, "payload": b""}
            return Reply(text, f"not {message['imei']}", _frame(CODEC_14, refusal))
        if text == "cpureset":
            self._restart()
            return Reply(text, "", restarts=True)
        answer = self.obey(text)
        response = {"type": RESPONSE, "imei": self.imei, "payload": answer.encode("latin-1")}
        return Reply(text, answer, _frame(message["codec_id"], response))

    def obey(self, text: str) -> str:
        """Do what the text says; the answer."""
        name, *arguments = text.split(" ")
        command = _COMMANDS.get(name)
        return command(self, [argument for argument in arguments if argument]) if command else UNKNOWN

    def overlay(self, record: Record) -> Record:
        """The record with the outputs as they are; the same object while none was ever set."""
        if not self._outputs:
            return record
        outputs = {OUTPUTS[output]: self.output(output) for output in self._outputs if self._has_room(output)}
        values = dict(record["n1"]) | outputs
        total = record["total"] + len(values) - len(record["n1"])
        return {**record, "n1": list(values.items()), "total": total}

    def output(self, output: int) -> int:
        """Whether a digital output is on."""
        state = self._outputs.get(output)
        if state is None:
            return 0
        if state.until is not None and self._now() >= state.until:
            state.value, state.until = 1 - state.value, None
        return state.value

    def _has_room(self, output: int) -> bool:
        return self._group.codec != "8" or OUTPUTS[output] < _BYTE_IDS

    def _restart(self) -> None:
        self._started = self._now()
        self._outputs = {output: _Output(0, None) for output in self._outputs}

    def _getver(self, arguments: list[str]) -> str:
        uptime = self._now() - self._started
        return (
            f"Ver:03.28.07_00 GPS:AXN_5.10_3333 Hw:{self._group.model} Mod:15 IMEI:{self.imei} "
            f"Init:{_moment(self._started, '-')} Uptime:{uptime:.0f} MAC:60BDD0016261 SPC:1(0) AXL:0 OBD:0 BL:1.6 BT:4"
        )

    def _getinfo(self, arguments: list[str]) -> str:
        satellites = (self._look() or {}).get("satellites", 0)
        return (
            f"INI:{_moment(self._started)} RTC:{_moment(self._now())} RST:1 ERR:0 SR:0 BR:0 CF:0 FG:0 FL:0 TU:0/0 UT:0 "
            f"SMS:0 NOGPS:0:0 GPS:{3 if satellites else 2} SAT:{satellites} RS:3 RF:0 SF:1 MD:0"
        )

    def _getgps(self, arguments: list[str]) -> str:
        record = self._look()
        if record is None:
            return "GPS:0 Sat:0"
        at = time.gmtime(record["timestamp"] / 1000)
        return (
            f"GPS:{int(record['satellites'] > 0)} Sat:{record['satellites']} Lat:{record['latitude'] / 1e7:.6f} "
            f"Long:{record['longitude'] / 1e7:.6f} Alt:{record['altitude']} Speed:{record['speed']} "
            f"Dir:{record['angle']} Date:{at.tm_year}/{at.tm_mon}/{at.tm_mday} "
            f"Time:{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
        )

    def _getio(self, arguments: list[str]) -> str:
        record = self._look() or {"n1": [], "n2": []}
        values = dict(record["n1"]) | dict(record["n2"])
        inputs = " ".join(f"{name}:{values.get(avl_id, 0)}" for name, avl_id in _INPUTS.items())
        return f"{inputs} DO1:{self.output(1)} DO2:{self.output(2)}"

    def _getparam(self, arguments: list[str]) -> str:
        ids = [part for part in " ".join(arguments).split(";") if part]
        if not ids or not all(part.isdecimal() for part in ids):
            return BAD_SYNTAX
        known = _parameters(self._group) | self._parameters
        return ";".join(f"Param ID:{part} Val:{known.get(part, '0')}" for part in ids)

    def _setparam(self, arguments: list[str]) -> str:
        """Remembered, so that getparam tells it; what the device does stays as its group says."""
        pairs = [part.partition(":") for part in " ".join(arguments).split(";") if part]
        if not pairs or not all(number.isdecimal() and colon for number, colon, _ in pairs):
            return BAD_SYNTAX
        self._parameters |= {number: value for number, _, value in pairs}
        return "New value " + ";".join(f"{number}:{value}" for number, _, value in pairs)

    def _setdigout(self, arguments: list[str]) -> str:
        states, *seconds = arguments or [""]
        if not 1 <= len(states) <= len(OUTPUTS) or set(states) - set("01?"):
            return BAD_SYNTAX
        timeouts = [None if text == "?" else text for text in seconds[: len(states)]]
        if any(text is not None and not text.isdecimal() for text in timeouts):
            return BAD_SYNTAX
        timeouts += [None] * (len(states) - len(timeouts))
        return " ".join(map(self._set_output, range(1, 4), states, timeouts))

    def _set_output(self, output: int, state: str, seconds: str | None) -> str:
        if state == "?":
            return f"DOUT{output}:IGNORED"
        for_ever = seconds is None or seconds == "0"
        self._outputs[output] = _Output(int(state), None if for_ever else self._now() + int(seconds or 0))
        return f"DOUT{output}:{state} Timeout:{'INFINITY' if for_ever else seconds + 's' if seconds else ''}"


_COMMANDS: dict[str, Callable[[Commands, list[str]], str]] = {
    "getver": Commands._getver,
    "getinfo": Commands._getinfo,
    "getgps": Commands._getgps,
    "getio": Commands._getio,
    "getparam": Commands._getparam,
    "setparam": Commands._setparam,
    "setdigout": Commands._setdigout,
}
_INPUTS = {"DI1": 1, "DI2": 2, "DI3": 3, "AIN1": 9, "AIN2": 6}


def _parameters(group: Group) -> dict[str, str]:
    """Ids of the FMB family (Teltonika wiki, page "FMB Parameter list")."""
    timing = group.timing
    values: dict[int, Any] = {
        113: int(group.codec == "8e"),
        1000: round(timing.open_link_timeout) or 259200,
        1001: round(timing.response_timeout),
        1002: int(timing.sort == "oldest"),
        1003: round(timing.ping_interval),
        2006: int(group.transport == "udp"),
        10050: round(timing.period),
        10054: timing.records_per_packet,
        10055: round(timing.send_period),
    }
    return {str(number): str(value) for number, value in values.items()}


def _request(frame: bytes) -> dict[str, Any] | None:
    if not has_good_crc(frame):
        return None
    try:
        body = decode_command(body_of(frame))
    except DecodeError:
        return None
    requests = [message for message in body["messages"] if message["type"] == REQUEST]
    known = body["codec_id"] in (CODEC_12, CODEC_14)
    return {"codec_id": body["codec_id"], **requests[0]} if requests and known else None


def _frame(codec_id: int, message: dict[str, Any]) -> bytes:
    return build_frame(encode_command(codec_id, message))


def _moment(seconds: float, between: str = "/") -> str:
    at = time.gmtime(seconds)
    return f"{at.tm_year}{between}{at.tm_mon}{between}{at.tm_mday} {at.tm_hour}:{at.tm_min:02}"
