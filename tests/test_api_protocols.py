"""``/gw/channel-protocols``, their device types, and ``/gw/message-parameters``: the dictionary over REST."""

from __future__ import annotations

import pytest

from gateway.parameters import catalogue
from gateway.protocols.teltonika.device_types import device_types
from tests.items_rest import gateway, key_for
from tests.rest import Rest

URL = "/gw/channel-protocols"
PARAMETERS = "/gw/message-parameters"


@pytest.fixture
def scene(run, redis):
    """Runs a coroutine with the API."""

    def play(coroutine) -> None:
        async def with_gateway() -> None:
            async with gateway(redis) as there:
                await coroutine(there)

        run(with_gateway())

    return play


@pytest.mark.parametrize("selector", ["all", "14", "name=teltonika", 'name="teltonika"', '{name == "teltonika"}'])
def test_protocols(scene, selector: str):
    """flespi's example asks for these fields."""

    async def scenario(there: Rest) -> None:
        [protocol] = await there.get(f"{URL}/{selector}?fields=id,name,features,message_parameters")
        assert (protocol["id"], protocol["name"]) == (14, "teltonika")
        assert len(protocol["message_parameters"]) == len(catalogue())
        assert {"name": "position.latitude", "type": "number", "unit": "degrees"}.items() <= next(
            one for one in protocol["message_parameters"] if one["name"] == "position.latitude"
        ).items()
        assert await there.get(f"{URL}/{selector}") == [{"id": 14, "name": "teltonika"}]

    scene(scenario)


def test_a_protocol_or_a_field_that_there_is_not(scene):
    """flespi's answers: 403 with the id, and 400 for a title, which protocols do not have."""

    async def scenario(there: Rest) -> None:
        assert (await there.refused("GET", f"{URL}/13", 403))["id"] == 13
        assert (await there.refused("GET", f"{URL}/all?fields=title", 400))["field"] == "title"
        assert (await there.refused("GET", f"{URL}/teltonika", 400))["code"] == 2
        assert (await there.refused("GET", f"{URL}/14/device-types/325", 403))["id"] == 325

    scene(scenario)


def test_device_types(scene):
    """By id, name, and as flespi's clients ask for them."""

    async def scenario(there: Rest) -> None:
        base = f"{URL}/name=teltonika/device-types"
        assert len(await there.get(f"{base}/all")) == len(device_types())
        [kind] = await there.get(f"{base}/303?fields=id,name,title,protocol_id,protocol_name")
        assert kind == {
            "id": 303, "name": "fmb204", "title": "Teltonika FMB204", "protocol_id": 14, "protocol_name": "teltonika",
        }  # fmt: skip
        assert await there.get(f"{base}/name=fmb204?fields=device_type_name") == [{"device_type_name": "fmb204"}]
        answer = (await there.request("GET", f"{base}/name=fmb1*?limit=3&fields=name")).json()
        assert len(answer["result"]) == 3
        assert answer["pagination"]["count"] > 3

    scene(scenario)


def test_a_model_has_the_parameters_that_it_can_send(scene):
    """An FMB has OBD values and positions; an FTC of another family has positions and not the FMB's own."""

    async def scenario(there: Rest) -> None:
        names = {}
        for model in ("fmb120", "tat100", "teltonika"):
            [kind] = await there.get(f"{URL}/14/device-types/name={model}?fields=message_parameters")
            names[model] = {parameter["name"] for parameter in kind["message_parameters"]}
        assert names["fmb120"] & names["tat100"] >= {"ident", "position.latitude", "timestamp"}
        assert "can.engine.rpm" in names["fmb120"] - names["tat100"]
        assert names["teltonika"] == set(catalogue())

    scene(scenario)


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ("position.latitude,din", ["din", "position.latitude"]),
        ("name=position.lat*", ["position.latitude"]),
        ("position.l*", ["position.latitude", "position.longitude"]),
        ('{name == "din"}', ["din"]),
        ("custom.param.17", ["custom.param.<id>"]),
    ],
)
def test_parameters_are_found_by_name(scene, selector: str, wanted: list[str]):
    """Names, masks, conditions, expressions."""

    async def scenario(there: Rest) -> None:
        found = await there.get(f"{PARAMETERS}/{selector}?fields=name")
        assert sorted(parameter["name"] for parameter in found) == wanted

    scene(scenario)


def test_parameters_have_units(scene):
    """flespi's example; an unknown name is said so beside those that are there."""

    async def scenario(there: Rest) -> None:
        found = await there.get(f"{PARAMETERS}/all?fields=name,units,type")
        assert len(found) == len(catalogue())
        assert {"name": "position.speed", "units": "km/h", "type": "number"} in found
        answer = (await there.request("GET", f"{PARAMETERS}/din,nmae?fields=name")).json()
        assert answer["result"] == [{"name": "din"}]
        assert answer["errors"][0]["id"] == "nmae"
        assert (await there.refused("GET", f"{PARAMETERS}/nmae", 403))["id"] == "nmae"
        assert (await there.refused("GET", f"{PARAMETERS}/all?fields=unit", 400))["field"] == "unit"

    scene(scenario)


def test_the_dictionary_needs_a_right_too(scene):
    """An ACL that does not name it forbids it."""

    async def scenario(there: Rest) -> None:
        key = await key_for(there, {"uri": "gw/channel-protocols", "methods": ["GET"]})
        assert len(await there.get(f"{URL}/all/device-types/all?limit=1", key=key)) == 1
        await there.refused("GET", f"{PARAMETERS}/all", 403, key=key)
        await there.refused("GET", f"{PARAMETERS}/all", 401, key=None)

    scene(scenario)
