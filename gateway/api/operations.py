"""The table of operations: what the API can do, and how a request finds its operation.

Routing, validation of requests, access and the OpenAPI description all read the same table.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from attrs import define, field, frozen
from msgspec import Struct

from gateway.api.answers import Answer
from gateway.api.errors import ApiError

KiB, MiB = 1024, 1024 * 1024
BODY_MOST = 1 * MiB
VARIABLE = re.compile(r"\{(\w+)\}")


class NoQuery(Struct):
    """An operation without parameters in its query."""


@frozen
class Right:
    """What a token must be allowed: flespi's ACL names an API noun (``gw/devices``) and a part of it (``messages``)."""

    uri: str
    submodule: str | None = None


@frozen
class Operation:
    """One method of one path.

    ``handler`` takes the :class:`~gateway.api.call.Call`. ``access`` None: no token is needed. ``query``, ``data`` and
    ``body`` are msgspec types; ``data`` is the JSON object of the parameter ``data`` (or of a GET's body, as flespi
    takes it). A ``body`` of ``list[X]`` is checked item by item: see ``Call.entries``. ``may_lack_body``: none is as
    ``{}``. ``result`` is the type of one item of the answer's ``result``. ``is_bare``: the answer has no envelope.
    """

    method: str
    path: str
    handler: Callable[[Any], Awaitable[Answer]]
    summary: str
    access: Right | None = None
    query: type[Struct] = NoQuery
    data: Any = None
    body: Any = None
    result: Any = dict[str, Any]
    body_most: int = BODY_MOST
    may_lack_body: bool = False
    is_bare: bool = False
    content_type: str = "application/json"

    @property
    def name(self) -> str:
        """Unique; also the label of its metrics."""
        words: list[str] = re.findall(r"\w+", self.path)
        return "_".join([self.method.lower(), *(word.replace("-", "_") for word in words)])

    @property
    def segments(self) -> list[str]:
        """The parts of the path."""
        return self.path.strip("/").split("/")

    @property
    def variables(self) -> list[str]:
        """The names in braces, in order."""
        return VARIABLE.findall(self.path)


@define
class _Node:
    children: dict[str, _Node] = field(factory=dict)
    variable: _Node | None = None
    operations: dict[str, tuple[Operation, list[str]]] = field(factory=dict)

    def child(self, segment: str) -> _Node:
        if VARIABLE.fullmatch(segment) is None:
            return self.children.setdefault(segment, _Node())
        if self.variable is None:
            self.variable = _Node()
        return self.variable


class Router:
    """Finds the operation of a method and a path. A literal segment wins over a variable one."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._root = _Node()
        for operation in operations:
            node = self._root
            for segment in operation.segments:
                node = node.child(segment)
            assert operation.method not in node.operations, f"{operation.method} {operation.path} stands there twice"
            node.operations[operation.method] = (operation, operation.variables)

    def find(self, method: str, segments: Sequence[str]) -> tuple[Operation, dict[str, str]]:
        """The operation, and the values of the variables in its path. Raises ApiError: 404, 405.

        HEAD is GET without the body for what needs no token: those who watch over services ask so.
        """
        node, values = self._walk(segments)
        if node is None or not node.operations:
            raise ApiError.no_route(f"there is no /{'/'.join(segments)[:200]}: /gw/api.json describes what there is")
        if method == "HEAD" and "GET" in node.operations and node.operations["GET"][0].access is None:
            method = "GET"
        if method not in node.operations:
            allowed = ", ".join(sorted(node.operations))
            raise ApiError.wrong_method(f"{method[:20]} is not possible here, but {allowed}")
        operation, names = node.operations[method]
        return operation, dict(zip(names, values, strict=True))

    def methods(self, segments: Sequence[str]) -> list[str]:
        """The methods of a path; none where there is no such path."""
        node, _ = self._walk(segments)
        return sorted(node.operations) if node is not None else []

    def _walk(self, segments: Sequence[str]) -> tuple[_Node | None, list[str]]:
        node: _Node | None = self._root
        values = []
        for segment in segments:
            assert node is not None
            literal = node.children.get(segment)
            if literal is None:
                values.append(segment)
            node = literal if literal is not None else node.variable
            if node is None or not segment:
                return None, []
        return node, values
