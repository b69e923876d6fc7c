"""The API in OpenAPI 3.1, from the table of operations and the types that requests are checked with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

import gateway
from gateway.api.operations import NoQuery, Operation

REFERENCE = "#/components/schemas/{name}"
REFUSALS = {
    "400": "The request is wrong: the reason says what would be right",
    "401": "No token, or a wrong one",
    "403": "Not permitted, or no such item",
    "405": "Not with this method",
    "413": "Too large",
    "429": "Too much at once, or too many wrong tokens",
    "431": "The address or a header is too long",
    "503": "The same request may succeed later",
}


class ErrorItem(msgspec.Struct, omit_defaults=True):
    """One item of ``errors``."""

    code: int
    reason: str
    field: str | None = None
    id: Any = None
    index: int | None = None
    column: int | None = None
    schema_hint: list[str] | None = None


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document, as JSON can hold it."""
    kinds = _kinds(operations)
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    schema_of = {id(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "avl-gateway", "version": gateway.__version__, "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "Authorization"}},
        },
    }


SELECTOR = {
    "description": "ids with commas between, all, conditions on fields, or {expressions}",
    "anyOf": [
        {"const": "all"},
        {"type": "string", "pattern": r"^[0-9]{1,15}(,[0-9]{1,15}){0,9}$"},
        {"type": "string", "pattern": r"^(id|name)=[^/,{}'\"\\]{1,50}$"},
        {"type": "string", "pattern": r"^\{(id|name) ?(==|!=|<|~) ?\"[a-z*]{1,9}\"\}$"},
    ],
}
NAMES = {
    "description": "names with commas between, masks with * and ?, or all",
    "type": "string",
    "pattern": r"^[a-z*?][a-z0-9.*?]{0,50}(,[a-z][a-z0-9.*?]{0,50}){0,9}$",
}
PATH_SCHEMAS: dict[str, dict[str, Any]] = {"parameters": NAMES, "idents": NAMES, "ident": NAMES}
"""By the name of a path's variable; all others are selectors."""

_DESCRIPTION = "flespi's API for channels, devices and their data. The header is `Authorization: FlespiToken KEY`."


def _kinds(operations: Sequence[Operation]) -> list[Any]:
    kinds: list[Any] = [ErrorItem]
    for operation in operations:
        for kind in (operation.query, operation.data, operation.body, operation.result):
            if kind not in (None, NoQuery) and not any(kind is known for known in kinds):
                kinds.append(kind)
    return kinds


def _operation(operation: Operation, schema_of: dict[int, Any], components: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.segments[1] if len(operation.segments) > 1 else operation.segments[0]],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation, schema_of, components)],
        "responses": _responses(operation, schema_of[id(operation.result)], schema_of[id(ErrorItem)]),
    }
    if operation.access is None:
        described["security"] = []
    if operation.body is not None:
        content = {"application/json": {"schema": schema_of[id(operation.body)]}}
        described["requestBody"] = {"required": not operation.may_lack_body, "content": content}
    return described


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": PATH_SCHEMAS.get(name, SELECTOR), "example": "all"}
        for name in operation.variables
    ]


def _query_parameters(
    operation: Operation, schema_of: dict[int, Any], components: dict[str, Any]
) -> list[dict[str, Any]]:
    parameters = []
    if operation.query is not NoQuery:
        schema = components[schema_of[id(operation.query)]["$ref"].rpartition("/")[2]]
        for name, of_name in schema["properties"].items():
            parameters.append({"name": name, "in": "query", "required": False, "schema": of_name})
    if operation.data is not None:
        content = {"application/json": {"schema": schema_of[id(operation.data)]}}
        parameters.append({"name": "data", "in": "query", "required": False, "content": content})
    return parameters


def _responses(operation: Operation, result: Any, error: Any) -> dict[str, Any]:
    if operation.is_bare:
        content = {operation.content_type: {"schema": result if operation.content_type.endswith("json") else {}}}
        return {"200": {"description": operation.summary, "content": content}}
    errors = {"type": "array", "items": error}
    envelope = {
        "type": "object",
        "required": ["result"],
        "properties": {
            "result": {"type": "array", "items": result},
            "errors": errors,
            "warnings": {"type": "array", "items": {"type": "object"}},
        },
    }
    refusal = {
        "type": "object",
        "required": ["result", "errors"],
        "properties": {"result": {"type": "array", "maxItems": 0}, "errors": errors},
    }
    answers = {"200": _answer("Done; errors tell what of it was not", envelope)}
    for status, meaning in REFUSALS.items():
        if operation.access is not None or status not in ("401", "403"):
            answers[status] = _answer(meaning, refusal)
    return answers


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
