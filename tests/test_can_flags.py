"""Bit masks of CAN adapters: every flag by its bit, and what has no name kept."""

from __future__ import annotations

from gateway.protocols.teltonika import can_flags
from gateway.protocols.teltonika.avl_ids import all_rows
from tests.test_normalize import io


def test_open_doors_are_bits() -> None:
    found = io(n2=[(90, 0x2100)])
    assert found == {
        "can.front.left.door.status": True,
        "can.front.right.door.status": False,
        "can.rear.left.door.status": False,
        "can.rear.right.door.status": False,
        "can.hood.status": False,
        "can.trunk.status": True,
        "can.roof.opened.status": False,
        "door.open.status": True,
    }
    assert io(n2=[(90, 0)])["door.open.status"] is False
    assert io("FMC650", n2=[(143, 0x0800)])["can.rear.right.door.status"] is True


def test_security_flags_of_both_protocols_are_expanded() -> None:
    """Bit 0 is the least significant of the whole value; business mode (bit 20) is not private."""
    p2 = io(n8=[(132, 1 << 25 | 1 << 40 | 1 << 20 | 0b11 | 2 << 48)])
    assert p2["can.engine.ignition.status"] is True
    assert p2["can.front.left.door.status"] is True
    assert p2["can.private.status"] is False
    assert p2["can.connection.state.1"] == 3
    assert p2["can.connection.state.2"] == 0
    assert p2["car.remote.control.state"] == 2
    assert p2["can.trunk.status"] is False
    assert "custom.param.132" not in p2
    p4 = io(n8=[(517, 1 << 8 | 1 << 44 | 1 << 48)])
    assert [p4[name] for name in ("can.engine.ignition.status", "can.drive.gear.status", "can.roof.opened.status")] == [
        True,
        True,
        True,
    ]
    assert p4["can.private.status"] is True


def test_control_and_indicator_flags_are_expanded() -> None:
    assert io(n4=[(123, 1 << 8)])["can.check.engine.indicator.status"] is True
    assert io("FMC650", n4=[(38, 1 << 31)])["can.driver.seatbelt.indicator.status"] is True
    assert io(n8=[(518, 1 << 9)])["can.cruise.status"] is True
    indicators = io(n8=[(519, 1 | 1 << 3 | 1 << 39)])
    assert indicators["can.mil.status"] is True
    assert indicators["can.esp.status"] is False
    assert indicators["can.cng.level.low.indicator.status"] is True
    assert io(n8=[(520, 1 << 20)])["can.mowing.status"] is True


def test_a_flag_without_a_name_keeps_the_whole_mask() -> None:
    """The bits 24 to 28 of the control flags are not documented well enough to be named."""
    found = io(n4=[(123, 1 << 24 | 1)])
    assert found["custom.param.123"] == 1 << 24 | 1
    assert found["can.stop.indicator.status"] is True


def test_the_flags_of_a_mask_do_not_overlap() -> None:
    for name, flags in can_flags.flag_maps().items():
        assert sum(flag.mask for flag in flags) == can_flags.known_bits(name), name
        assert len({flag.parameter for flag in flags}) == len(flags), name


def test_no_flag_crosses_the_border_of_a_byte() -> None:
    """They are expanded byte by byte."""
    crossing = [flag for flags in can_flags.flag_maps().values() for flag in flags if flag.bit % 8 + flag.bits > 8]
    assert crossing == []


def test_every_mask_that_the_dictionary_names_is_there() -> None:
    assert {row.detail for row in all_rows() if row.kind == "flags"} <= set(can_flags.flag_maps())
