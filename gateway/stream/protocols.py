"""Where the types of streams are: each is a file in ``gateway/streams/``, and called as the file.

A type whose library is not installed is listed, with the reason why it cannot be used.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from attrs import frozen

import gateway.streams
from gateway.stream.target import Options, Target


@frozen
class StreamProtocol:
    """A type. ``cls`` is None where it cannot be used, for ``reason``."""

    name: str
    cls: type[Target] | None = None
    reason: str = ""

    @property
    def id(self) -> int:
        """flespi's ``protocol_id``; 0 where the type cannot be used."""
        return self.cls.id if self.cls is not None else 0

    @property
    def title(self) -> str:
        """For people."""
        return self.cls.title if self.cls is not None else self.name

    @property
    def description(self) -> str:
        """What the class says of itself."""
        return inspect.cleandoc(self.cls.__doc__ or "") if self.cls is not None else self.reason

    @property
    def config(self) -> type[Options]:
        """Its options."""
        return self.cls.Config if self.cls is not None else Options


def find_protocols() -> dict[str, StreamProtocol]:
    """All types by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(gateway.streams.__path__))
    return {name: _protocol(name) for name in names}


def _protocol(name: str) -> StreamProtocol:
    try:
        module = importlib.import_module(f"gateway.streams.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("gateway"):
            raise
        reason = f"{error.name} is not installed: .venv/bin/python -m pip install -e '.[{name}]', then start anew"
        return StreamProtocol(name, reason=reason)
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Target) and value.__module__ == module.__name__
    ]
    assert len(classes) == 1, f"gateway/streams/{name}.py should have one class that is derived from Target"
    cls = classes[0]
    cls.name = name
    return StreamProtocol(name, cls)
