"""docs/plugins.md tells the truth: its files are loaded and run, its examples are taken, its tables are the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from docs.plugins_table import PAGE, with_tables
from gateway.errors import ItemError
from gateway.expressions import compile_expression
from gateway.plugin import DropMessage, Plugin, PluginError, RemotePlugin
from gateway.plugin.base import OBLIGATORY, Context
from gateway.plugin.chain import MESSAGE_MOST, SLOW
from gateway.plugin.lane import AT_ONCE, BATCH, WAITING_MOST
from gateway.plugin.types import find_types
from gateway.store.event_codes import EventCode
from tests.plugin_parts import DEVICE, MESSAGE, applied, chain
from tests.targets.http import Answer

TEXT = PAGE.read_text()
FILES = dict(re.findall(r"`(\w+\.py)`[^\n]*:\n\n<!-- [^\n]* -->\n```python\n(.*?)^```$", TEXT, re.M | re.S))
EXAMPLES = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", TEXT, re.M | re.S)]


@pytest.fixture
def own(tmp_path: Path):
    """Makes a plugin of a file of the page."""

    def make(name: str, **config: object) -> Plugin:
        (tmp_path / f"{name}.py").write_text(FILES[f"{name}.py"])
        type = find_types([tmp_path])[name.replace("_", "-")]
        assert type.path.parent == tmp_path
        checked = msgspec.convert(config, type.cls.Config)
        type.cls.check(checked)
        return type.cls(checked)

    return make


def test_every_file_of_the_page_is_tested_below():
    assert list(FILES) == ["add_knots.py", "speed_limit.py", "driver_of.py"]
    assert TEXT.count("```python") == len(FILES)


def test_a_file_of_ten_lines_is_a_type(own):
    plugin = own("add_knots")
    assert len(FILES["add_knots.py"].strip().splitlines()) <= 11
    assert applied(plugin, {"position.speed": 50}) == {"position.speed": 50, "position.speed.knots": 27.0}
    assert applied(plugin, {"din": 1}) == {"din": 1}


def test_the_file_with_options_does_what_it_says(own):
    plugin = own("speed_limit", limit=50)
    assert applied(plugin, {"position.speed": 60})["overspeeding.excess"] == 10
    assert "overspeeding.excess" not in applied(plugin, {"position.speed": 60}, {"limit": 80})
    with pytest.raises(PluginError, match="not 'fast'"):
        applied(plugin, {}, {"limit": "fast"})
    with pytest.raises(DropMessage):
        applied(plugin, {"position.speed": 500})
    with pytest.raises(ItemError, match="impossible should be above limit"):
        own("speed_limit", limit=90, impossible=80)
    with pytest.raises(msgspec.ValidationError):
        own("speed_limit", limit=500)


def test_the_file_that_asks_another_system_does_what_it_says(own, run, http_target):
    """Through a chain, as it is run."""

    async def scenario() -> None:
        plugin = own("driver_of", uri=http_target.url)
        assert isinstance(plugin, RemotePlugin)
        await plugin.open()
        made, trouble = chain(plugin)
        http_target.next(Answer(body=b'{"driver": "Bob"}'))
        assert await made.process_many([MESSAGE] * 2, {}, 0.0) == [MESSAGE | {"driver": "Bob"}] * 2
        http_target.next(Answer(body=b"[]"), Answer(status=404, body=b"who is that?"))
        for reason in ("no driver in the answer: []", "HTTP 404: who is that?"):
            assert await made.process_many([MESSAGE], {}, 0.0) == [MESSAGE]
            assert trouble.pop().reason == reason
        await plugin.close()
        assert {asked.path for asked in http_target.requests} == {f"/{DEVICE.ident}"}

    run(scenario())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["name"])
def test_examples_can_be_created(example: dict):
    """Each is a plugin of a type that is there."""
    assert example.keys() <= {"name", "type_name", "configuration", "validate_message", "priority"}
    cls = find_types()[example["type_name"]].cls
    config = msgspec.convert(example.get("configuration", {}), cls.Config)
    cls.check(config)
    cls(config)
    compile_expression(example.get("validate_message") or "1")


def test_the_example_of_a_speed_does_what_it_says():
    [example] = [example for example in EXAMPLES if example["name"] == "Speed"]
    cls = find_types()["msg-expression"].cls
    plugin = cls(msgspec.convert(example["configuration"], cls.Config))
    message = plugin.process({"position.speed": 108}, Context(DEVICE))
    assert message == {"position.speed": 108, "speed.ms": 30, "speeding.status": True}


def test_the_tables_of_options_are_current():
    """``make docs`` writes them."""
    assert with_tables(TEXT) == TEXT


def test_numbers_and_names_are_those_of_the_code():
    flat = " ".join(TEXT.split())
    assert (MESSAGE_MOST, SLOW) == (1024 * 1024, 0.05)
    numbers = (f"{AT_ONCE} of them", f"more than {WAITING_MOST:,} messages", f"up to {BATCH} at once", "1 MiB", "50 ms")
    for text in numbers:
        assert text in flat
    assert all(f"`{name}`" in TEXT for name in OBLIGATORY)
    codes = {int(code) for code in re.findall(r"^\| (\d{3}) \|", TEXT, re.M)}
    plugins = {code for code in EventCode if code.name.startswith("PLUGIN_")}
    assert codes == plugins | {EventCode.CONFIGURATION_INVALID}
