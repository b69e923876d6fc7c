"""What trackers answer to commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.emulator.commands import Commands
from gateway.emulator.group import Group
from gateway.protocols.teltonika.command_replies import io_of, pairs_of, parameters_of
from tests.test_exchange import VECTORS

VER = (
    "Ver:03.18.14_04 GPS:AXN_5.10_3333 Hw:FMB120 Mod:15 IMEI:352093081452251 Init:2018-11-22 7:13 Uptime:17234 "
    "MAC:60BDD0016261 SPC:1(0) AXL:0 OBD:0 BL:1.6 BT:4"
)
INFO = (
    "INI:2019/7/22 7:22 RTC:2019/7/22 7:53 RST:2 ERR:1 SR:0 BR:0 CF:0 FG:0 FL:0 TU:0/0 UT:0 SMS:0 NOGPS:0:30 GPS:1 "
    "SAT:0 RS:3 RF:65 SF:1 MD:0"
)
OLD_VER = "Code Ver:0.48.17 Device IMEI:353976010139156 Device ID:000001 Modem APP Ver:2007.11.07"
OLDER_VER = "Code Ver:01.06.15 Rev:1 Device IMEI:353976010139156 Device ID:000001 Bootloader Ver: 01.09"
STATUS = "Data Link: 0 GPRS: 1 Phone: 0 SIM: 0 OP: 24602 Signal: 5 Cell ID: 864 FwUpd:-9"


def test_the_vendor_s_own_examples_are_read() -> None:
    """The wiki's frames have these texts, so nothing here is made up."""
    assert VER.encode() in VECTORS["wiki-codec14-getver-ack"]
    assert INFO.encode() in VECTORS["wiki-codec12-getinfo-resp"]


@pytest.mark.parametrize(
    ("text", "some"),
    [
        (VER, {"Ver": "03.18.14_04", "Hw": "FMB120", "Init": "2018-11-22 7:13", "SPC": "1(0)", "BT": "4"}),
        (INFO, {"INI": "2019/7/22 7:22", "TU": "0/0", "NOGPS": "0:30", "MD": "0"}),
        (OLD_VER, {"Code Ver": "0.48.17", "Device IMEI": "353976010139156", "Modem APP Ver": "2007.11.07"}),
        (OLDER_VER, {"Rev": "1", "Device ID": "000001", "Bootloader Ver": "01.09"}),
        (STATUS, {"Data Link": "0", "OP": "24602", "Cell ID": "864", "FwUpd": "-9"}),
        ("DI1:1 AIN1:0 DO2:1\r\n", {"DI1": "1", "AIN1": "0", "DO2": "1"}),
        ("GPS:1 Sat:7 Lat:-54.71 Time:6:56:59", {"Lat": "-54.71", "Time": "6:56:59"}),
    ],
)
def test_keys_and_values_are_told_apart(text: str, some: dict[str, str]) -> None:
    """Values have spaces and colons in them, some keys have spaces."""
    found = pairs_of(text)
    assert found is not None
    assert {name: found.get(name) for name in some} == some
    assert text.count(":") >= len(found) >= len(some)


def test_no_word_of_a_reply_gets_lost() -> None:
    """Keys and values together are the text."""
    for text in (VER, INFO, OLD_VER, STATUS):
        found = pairs_of(text)
        assert found is not None
        assert "".join(f"{key}:{value}" for key, value in found.items()).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("text", ["", "OK", "Unknown command or invalid format", "All records are erased", "7:56"])
def test_what_has_no_keys_stays_text(text: str) -> None:
    assert pairs_of(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Param ID:2004 Val:gw.example.com", {"2004": "gw.example.com"}),
        ("Param ID:113 Val:1;Param ID:2006 Val:0", {"113": "1", "2006": "0"}),
        ("Param ID:1000 Value:300;10000:60", {"1000": "300", "10000": "60"}),
        ("Param ID 0242 Val: internet", {"242": "internet"}),
        ("New value 1001:25;11000:x", {"1001": "25", "11000": "x"}),
        ("New value 1001:25;\r\n", {"1001": "25"}),
        ("Param ID:1245 New Text:192.168.0.1", {"1245": "192.168.0.1"}),
        ("Param ID:5 New Val:1", {"5": "1"}),
        ("Param ID:2001 Val:;Param ID:2002 Val:", {"2001": "", "2002": ""}),
        ("Param ID:902 Val:a:1 b;c;903:d", {"902": "a:1 b;c", "903": "d"}),
    ],
)
def test_parameters_are_read_in_all_forms(text: str, expected: dict[str, str]) -> None:
    """Empty values too, and such as have a separator in them."""
    assert parameters_of(text) == expected


@pytest.mark.parametrize("text", ["", "Bad syntax", "Param ID:x Val:1", ";;", "New value", "ok;2004:x"])
def test_what_names_no_parameter_stays_text(text: str) -> None:
    assert parameters_of(text) is None


@given(
    st.dictionaries(
        st.integers(0, 99_999).map(str), st.text("abcXYZ019 .:/_-", max_size=20).map(str.strip), min_size=1, max_size=8
    )
)
def test_what_a_virtual_tracker_was_set_to_is_read_from_its_answers(values: dict[str, str]) -> None:
    """Its replies to setparam and to getparam name the same values."""
    tracker = Commands("352093081452251", Group(model="FMC130"), lambda: None)
    said = tracker.obey("setparam " + ";".join(f"{id}:{value}" for id, value in values.items()))
    assert parameters_of(said) == {id: _squeezed(value) for id, value in values.items()}
    assert parameters_of(tracker.obey("getparam " + ";".join(values))) == parameters_of(said)


def _squeezed(value: str) -> str:
    """The emulator splits its arguments at spaces."""
    return " ".join(value.split())


def test_the_value_of_an_avl_id_is_read() -> None:
    """In the words of the FM3622's manual and of the FMB630's."""
    assert io_of("I/O ID:3 Value:0") == {"3": "0"}
    assert io_of("IO ID:3 Value:0\r\n") == {"3": "0"}
    assert io_of("Unknown command or invalid format") is None


@pytest.mark.parametrize(
    "text", ["1:" + ";" * 65_000, "a:b " * 16_000, "x " * 32_000, "Param ID:1 Val:" + "y;" * 32_000]
)
def test_a_reply_beyond_all_measure_is_not_looked_at(text: str) -> None:
    """A frame has room for it, and time for it would be taken from all others."""
    assert (parameters_of(text), pairs_of(text)) == (None, None)
