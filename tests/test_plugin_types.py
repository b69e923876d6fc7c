"""Where types of plugins are found, and what is said of a file that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.plugin.types import FIRST_FOREIGN_ID, IDS, OURS, find_types, named

ONE = """
from gateway.plugin import Plugin

class Own(Plugin):
    \"\"\"Says {text}.

    With more than one line.
    \"\"\"

    def process(self, message, context):
        return message | {{"own": "{text}"}}
"""


def _file(folder: Path, name: str, text: str = ONE.format(text="hello")) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def test_ours_are_the_files_of_the_folder() -> None:
    """By the name of the file, in order."""
    names = [path.stem.replace("_", "-") for path in sorted(OURS.glob("*.py")) if path.stem != "__init__"]
    assert list(find_types()) == names
    assert "msg-erase" in names


def test_a_file_of_the_operators_is_a_type(tmp_path: Path) -> None:
    """Its class is described by its docstring; its number comes from its name, and stays."""
    path = _file(tmp_path, "say_hello.py")
    type = find_types([tmp_path])["say-hello"]
    assert (type.name, type.path, type.cls.name) == ("say-hello", path, "say-hello")
    assert type.description == "Says hello.\n\nWith more than one line."
    assert type.id == find_types([tmp_path])["say-hello"].id >= FIRST_FOREIGN_ID
    assert named({"say-hello": type}, type.id) is type
    assert named({"say-hello": type}, IDS["msg-erase"]) is None


def test_a_file_of_the_operators_takes_the_place_of_ours(tmp_path: Path) -> None:
    """And keeps its number; of several folders the last one wins."""
    first, last = tmp_path / "first", tmp_path / "last"
    _file(first, "msg_erase.py", ONE.format(text="first"))
    path = _file(last, "msg_erase.py", ONE.format(text="last"))
    types = find_types([first, last])
    assert types["msg-erase"].path == path
    assert types["msg-erase"].id == IDS["msg-erase"]
    assert types.keys() == find_types().keys()
    assert find_types()["msg-erase"].path.parent == OURS


def test_a_class_that_is_imported_is_no_type(tmp_path: Path) -> None:
    """Only the one that the file makes is."""
    text = "from gateway.plugin import RemotePlugin, Plugin\nfrom gateway.plugins.msg_cancel import MsgCancel\n"
    _file(tmp_path, "cancel_more.py", text + "class More(MsgCancel):\n    pass\n")
    assert find_types([tmp_path])["cancel-more"].cls.__name__ == "More"


def test_a_file_that_begins_with_an_underscore_is_no_type(tmp_path: Path) -> None:
    """Nor is what is not Python."""
    _file(tmp_path, "_draft.py", "1 / 0")
    _file(tmp_path, "README.md", "")
    assert find_types([tmp_path]).keys() == find_types().keys()


@pytest.mark.parametrize("name", ["Bad.py", "bad-name.py", "1st.py", "a b.py", f"{'a' * 64}.py"])
def test_a_bad_name_is_told_with_a_good_one(tmp_path: Path, name: str) -> None:
    path = _file(tmp_path, name)
    with pytest.raises(ConfigError, match=r"such as add_speed\.py") as caught:
        find_types([tmp_path])
    assert str(caught.value).startswith(f"{path}: ")


TWO = ONE.format(text="one") + "class Second(Own):\n    pass\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "should have one class that is derived from gateway.plugin.Plugin, not 0"),
        ("from gateway.plugin import Plugin\n", "not 0"),
        (TWO, "not 2"),
        ("def broken(:\n", "cannot be loaded: SyntaxError"),
        ("import no_such_module_at_all\n", "cannot be loaded: ModuleNotFoundError"),
        ("1 / 0\n", "cannot be loaded: ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_name(tmp_path: Path, text: str, reason: str) -> None:
    path = _file(tmp_path, "wrong.py", text)
    with pytest.raises(ConfigError) as caught:
        find_types([tmp_path])
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


def test_a_file_that_was_mended_is_read_again(tmp_path: Path) -> None:
    """What could not be loaded leaves nothing behind."""
    _file(tmp_path, "mended.py", "1 / 0\n")
    with pytest.raises(ConfigError):
        find_types([tmp_path])
    _file(tmp_path, "mended.py", ONE.format(text="a longer one"))
    assert "mended" in find_types([tmp_path])


def test_a_folder_that_is_none_is_told_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.plugin_folders: .*/nowhere should be a folder"):
        find_types([tmp_path / "nowhere"])
