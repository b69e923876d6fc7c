"""Device types and the models behind them; which model an answer to getver names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols.teltonika import device_types as types
from gateway.protocols.teltonika.avl_ids import find_model, known_models, rows_for
from gateway.protocols.teltonika.models import model_from_getver
from gateway.protocols.teltonika.wire_commands import decode_command
from tests.test_vectors import VECTORS, data_of

GIVEN = 116
"""How many device types have been given an id; more may follow."""

IDS = "29603930662976868b9720ff4abda34cba5370ba8949c461dfe561a77a5b00c3"
FMB = "Ver:03.27.07_00 GPS:AXN_5.1.9 Hw:FMB920 Mod:13 IMEI:350424063817363 Init:2023-8-8 5:24 Uptime:8418658"


def test_an_id_once_given_is_never_given_to_another_type() -> None:
    """Devices keep the number of their type for ever: rows are added behind the others and never changed."""
    rows = (Path(types.__file__).parent / "data" / "device_types.csv").read_text().splitlines()[1:]
    assert len(rows) >= GIVEN
    assert hashlib.sha256("\n".join(rows[:GIVEN]).encode()).hexdigest() == IDS
    assert len({row.split(",")[0] for row in rows}) == len({row.split(",")[1] for row in rows}) == len(rows)


def test_every_model_is_a_device_type_and_every_device_type_a_model() -> None:
    named = {kind.model for kind in types.device_types().values() if kind.model is not None}
    assert named == set(known_models())


@pytest.mark.parametrize("name", sorted(known_models()))
def test_a_device_type_has_the_dictionary_of_its_model(name: str) -> None:
    kind = types.find_device_type(name)
    assert kind is not None
    assert types.model_of(kind.id) == name
    found = find_model(types.model_of(kind.id))
    assert found == known_models()[name]
    assert len(rows_for(found.family, found.table)) > 50


def test_a_device_type_without_a_model_is_read_as_the_most_common_family() -> None:
    assert types.model_of(types.UNKNOWN_TYPE) is None
    assert find_model(types.model_of(types.UNKNOWN_TYPE)).table == "fmb120"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("FMC660", "FMX6"), ("FMB955", "FMB"), ("FMC13B", "FMB"), ("FTC999", "FTX"), ("ATC799", "ATX"),
        ("TAT300", "AT"), ("FM6320", "FM63XY"), ("FM1205", "FM11XY"), ("FM36", "FM36"), ("FM3622", "FM36"),
        ("XYZ", "FMB"),
    ],
)  # fmt: skip
def test_a_model_newer_than_the_list_is_of_the_family_whose_names_begin_like_it(name: str, family: str) -> None:
    assert find_model(name).family == family
    assert 240 in rows_for(find_model(name).family, find_model(name).table)


@pytest.mark.parametrize(
    ("answer", "model"),
    [
        (FMB, "FMB920"),
        ("Ver:02.00.01_06 GPS:AXN_3.80_3333_16070400,0000,, Hw:TFT100 Mod:1 IMEI:352094000000000", "TFT100"),
        ("Ver:0.23.0-rc.1 GPS:AG3335A_V2.6.0 Hw:FTC961 Mod:1 Pos:43 IMEI:866344054201822", "FTC961"),
        ("Ver:03.29.02.Rev.00 GPS:AXN_5.10 Hw: FMC130 IMEI:352093081452251", "FMC130"),
        ("Ver:1 Hw:fmb130-btz9fd Mod:1", "FMB130"),
        ("Code Ver:03.27.07 Rev:00 Device:FMB640 Device IMEI:353976010139156", "FMB640"),
        ("Code Ver:01.06.15 Rev:1 Device IMEI:353976010139156 Device ID:000001 Bootloader Ver: 01.09", None),
        ("Code Ver:00.02.87 Device IMEI:352094087260177 Device ID:000014 BL Ver:06.45 Hw:K-Line TM25Q", None),
        ("Ver:1 Hw:QQQ999 Mod:1", None),
        ("RTC:2019/7/22 7:22 Init:2019/7/22", None),
        ("ShHw:FMB920", None),
        ("", None),
    ],
)  # fmt: skip
def test_an_answer_to_getver_names_the_model(answer: str, model: str | None) -> None:
    assert model_from_getver(answer) == model


def test_the_published_answer_to_getver_names_its_model() -> None:
    (vector,) = (vector for vector in VECTORS if vector["name"] == "wiki-codec14-getver-ack")
    (message,) = decode_command(data_of(vector)[8:-4])["messages"]
    assert model_from_getver(message["payload"].decode("ascii")) == "FMB120"


def test_an_answer_is_not_read_without_end() -> None:
    assert model_from_getver(" " * 2000 + FMB) is None


@given(st.text(max_size=300))
def test_any_text_names_a_known_model_or_none(text: str) -> None:
    for answer in (text, f"Hw:{text}"):
        model = model_from_getver(answer)
        assert model is None or types.find_device_type(model) is not None
