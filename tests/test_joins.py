"""Values of one record that belong together, and such as claim the same parameter."""

from __future__ import annotations

import pytest

from tests.test_normalize import Message, io


def test_two_ids_are_one_iccid() -> None:
    """The second half has the zeros that lead it: without them the number would be shorter."""
    assert io(n8=[(11, 893700301), (14, 36001)]) == {"gsm.sim.iccid": "8937003010000036001"}
    assert io(n8=[(14, 36001), (11, 893700301)]) == {"gsm.sim.iccid": "8937003010000036001"}
    assert io(n8=[(11, 893700301)]) == {"custom.param.11": 893700301}
    assert io(n8=[(14, 0), (11, 0)]) == {"gsm.sim.iccid": ""}


def test_three_ids_are_one_iccid_in_ascii() -> None:
    parts = [
        int.from_bytes(b"89370030", "big"),
        int.from_bytes(b"10000360", "big"),
        int.from_bytes(b"01\0\0\0\0\0\0", "big"),
    ]
    assert io("FMC650", n8=list(zip((219, 220, 221), parts, strict=True))) == {"gsm.sim.iccid": "893700301000036001"}
    assert io("FTC134", nx=[(641, b"8937003010000036001\0\0\0")]) == {"gsm.sim.iccid": "8937003010000036001"}


def test_a_vin_is_text_in_one_piece_or_in_three() -> None:
    vin = "WVWZZZ1JZXW000001"
    assert io(nx=[(256, vin.encode())]) == {"vehicle.vin": vin}
    parts = [int.from_bytes(vin[at : at + 8].encode(), "big") for at in (0, 8)]
    assert io("FMC650", n8=[(233, parts[0]), (234, parts[1])], n1=[(235, ord(vin[16]))]) == {"vehicle.vin": vin}


def test_a_vin_that_is_no_text_is_hexadecimal() -> None:
    assert io(nx=[(256, b"\x00\xff")]) == {"custom.param.256": "00ff"}


def test_a_drivers_card_is_two_times_eight_characters() -> None:
    halves = [(195, int.from_bytes(b"DF000012", "big")), (196, int.from_bytes(b"34567890", "big"))]
    assert io("FMC650", n8=halves) == {"tacho.driver.card.code.1": "DF00001234567890"}
    assert io("FMC650", n8=[(195, 2**63)]) == {"custom.param.195": "8000000000000000"}


def test_a_card_in_one_piece_that_differs_from_the_one_in_halves_is_kept() -> None:
    """FMC150 has both: 147 and 148 from the CAN bus, 10165 from the tachograph."""
    halves = [(147, int.from_bytes(b"DF000012", "big")), (148, int.from_bytes(b"34567890", "big"))]
    same, other = (10165, b"DF00001234567890"), (10165, b"DF00001234567891")
    assert io("FMC150", n8=halves, nx=[same]) == {"tacho.driver.card.code.1": "DF00001234567890"}
    assert io("FMC150", nx=[other]) == {"tacho.driver.card.code.1": "DF00001234567891"}
    assert io("FMC150", n8=halves, nx=[other]) == {
        "tacho.driver.card.code.1": "DF00001234567890",
        "custom.param.10165": other[1].hex(),
    }


def test_a_driver_has_a_name_and_a_surname() -> None:
    assert io("FMC650", nx=[(10518, b"\x01Ann\0"), (10519, b"\x01Lee\0")]) == {"driver.name.1": "Ann Lee"}
    assert io("FMC650", nx=[(10519, b"\x01Lee\0")]) == {"driver.name.1": "Lee"}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (1, 45, {"harsh.acceleration.event": True, "absolute.acceleration": 0.45}),
        (2, 45, {"harsh.braking.event": True, "absolute.acceleration": 0.45}),
        (3, 30, {"harsh.cornering.event": True, "harsh.cornering.angle": 0.3}),
    ],
)
def test_a_harsh_event_is_its_type_and_its_value(kind: int, value: int, expected: Message) -> None:
    assert io(n1=[(253, kind), (254, value)]) == expected
    assert io(n1=[(254, value), (253, kind)]) == expected


def test_a_harsh_event_of_an_unknown_type_is_kept() -> None:
    assert io(n1=[(253, 9), (254, 45)]) == {"custom.param.253": 9, "custom.param.254": 45}


def test_lists_of_beacons_of_one_record_are_one_list() -> None:
    near, lost = bytes.fromhex("01030001c4"), bytes.fromhex("01030001a0")
    found = io("TMT250", nx=[(10828, near), (10831, lost)])["ble.beacons"]
    assert found == [{"proximity": "near", "rssi": -60}, {"proximity": "lost", "rssi": -96}]


def test_the_whole_cell_id_wins_over_the_half_of_it() -> None:
    """205 has two bytes, so on LTE the id does not fit; 636 has four."""
    assert io(n2=[(205, 0x5B73)], n4=[(636, 0x01235B73)]) == {"gsm.cellid": 0x01235B73, "custom.param.205": 0x5B73}
    assert io(n2=[(205, 0x5B73)], n4=[(636, 0)]) == {"gsm.cellid": 0x5B73, "custom.param.636": 0}
    assert io(n2=[(205, 0x5B73)]) == {"gsm.cellid": 0x5B73}


def test_neighbouring_cells_do_not_hide_the_serving_one() -> None:
    found = io("TMT250", n2=[(205, 1), (206, 2), (287, 3), (288, 4)], n4=[(241, 24602)], n1=[(1200, 7)])
    assert (found["gsm.cellid"], found["gsm.lac"], found["gsm.mnc"]) == (1, 2, 2)
    assert (found["gsm.cellid.1"], found["gsm.lac.1"], found["gsm.mnc.1"]) == (4, 3, 7)


def test_two_sources_of_one_parameter_are_settled_and_the_loser_is_kept() -> None:
    """CAN adapter (85) and OBD (36) both tell the engine's speed: the lower id wins, unless it says nothing."""
    assert io(n2=[(85, 900), (36, 910)]) == {"can.engine.rpm": 910, "custom.param.85": 900}
    assert io(n2=[(36, 910), (85, 900)]) == {"can.engine.rpm": 910, "custom.param.85": 900}
    assert io(n2=[(36, 0), (85, 900)]) == {"can.engine.rpm": 900, "custom.param.36": 0}
    assert io(n2=[(36, 900), (85, 900)]) == {"can.engine.rpm": 900}
