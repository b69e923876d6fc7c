"""Where the types of plugins are: each is a file, in ``plugins/`` or in a folder of the operator's.

``msg_erase.py`` is type ``msg-erase``. Nothing registers itself: a file's one subclass of Plugin is its type. A file of
the operator's replaces one of ours with the same name.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from zlib import crc32

from attrs import frozen

from gateway.errors import ConfigError
from gateway.plugin.base import Plugin

OURS = Path(str(importlib.import_module("gateway.plugins").__file__)).parent
FILE = re.compile(r"[a-z][a-z0-9_]{0,62}\.py")
FIRST_FOREIGN_ID = 1000
IDS = {
    "item-fields": 1,
    "item-telemetry": 2,
    "msg-expression": 3,
    "msg-erase": 4,
    "msg-cancel": 5,
    "msg-webhook": 6,
    "ble-beacons": 7,
    "position-lookup": 8,
    "geocoding": 9,
    "timestamp-fix": 10,
}
"""Numbers for ``type_id``; flespi's own are not published. Types of the operator's get theirs from their name."""


def type_id(name: str) -> int:
    """A number that stays the same for the same name."""
    return IDS.get(name) or FIRST_FOREIGN_ID + crc32(name.encode()) % 1_000_000


@frozen
class PluginType:
    """A type: its class, and the file that it is in."""

    name: str
    cls: type[Plugin]
    path: Path

    @property
    def id(self) -> int:
        """A number that stays the same for the same name."""
        return type_id(self.name)

    @property
    def description(self) -> str:
        """What the class says of itself."""
        return inspect.cleandoc(self.cls.__doc__ or "")


def find_types(folders: Iterable[Path] = ()) -> dict[str, PluginType]:
    """All types by name: ours, and those in ``folders``. Raises ConfigError that names the file."""
    found = {type.name: type for type in _types_in(OURS)}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"gateway.plugin_folders: {folder} should be a folder of plugin files")
        found.update((type.name, type) for type in _types_in(folder))
    return dict(sorted(found.items()))


def _types_in(folder: Path) -> Iterator[PluginType]:
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_"):
            continue
        if FILE.fullmatch(path.name) is None:
            raise ConfigError(f"{path}: the name should be of small letters, digits and _, such as add_speed.py")
        yield _type_of(path)


def _type_of(path: Path) -> PluginType:
    name = path.stem.replace("_", "-")
    module = _load(path)
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Plugin) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ConfigError(
            f"{path}: should have one class that is derived from gateway.plugin.Plugin, not {len(classes)}"
        )
    cls = classes[0]
    cls.name = name
    return PluginType(name, cls, path)


def _load(path: Path) -> ModuleType:
    name = (
        f"gateway.plugins.{path.stem}" if path.parent == OURS else f"gateway_plugins_{crc32(bytes(path))}_{path.stem}"
    )
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def named(types: Mapping[str, PluginType], id: int) -> PluginType | None:
    """The type with this number."""
    return next((type for type in types.values() if type.id == id), None)
