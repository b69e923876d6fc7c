"""From an HTTP request to a checked :class:`~gateway.api.call.Call`: its address, token, parameters and body."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from twisted.web.server import Request

from gateway.api.call import Call, convert, convert_entries, item_type, parse_json
from gateway.api.errors import ApiError
from gateway.api.http import ApiRequest, address_of, key_of
from gateway.api.operations import Operation, Right
from gateway.api.parts import Parts
from gateway.store.access import Access
from gateway.store.tokens import Token

ARGUMENTS_MOST = 100


def segments_of(request: Request) -> list[str]:
    """The path's parts, decoded one by one: a selector may hold ``/`` as ``%2F``. Raises ApiError."""
    path = request.uri.partition(b"?")[0].strip(b"/")
    try:
        return [unquote_to_bytes(segment).decode() for segment in path.split(b"/")]
    except UnicodeDecodeError:
        raise ApiError.bad_request("the path is not UTF-8 after percent-decoding") from None


def authenticate(request: Request, parts: Parts) -> Token:
    """The token of the header ``Authorization``. Raises ApiError: 401, 429."""
    address = address_of(request)
    now = time.time()
    if parts.failures.is_blocked(address, now):
        raise ApiError.too_many("too many wrong tokens from this address: wait a minute")
    key = key_of(request)
    if not key:
        raise ApiError.unauthorized("no token: send the header Authorization: FlespiToken KEY")
    token: Token | None = parts.tokens.authenticate(key, now, address)
    if token is None:
        parts.failures.failed(address, now, key)
        raise ApiError.unauthorized("the token is not known, expired or disabled")
    return token


def make_call(operation: Operation, path: dict[str, str], request: ApiRequest, parts: Parts) -> Call:
    """Check who asks, whether they may, and what they sent. Raises ApiError."""
    token = None
    if operation.access is not None:
        token = authenticate(request, parts)
        _check_right(operation.access, operation.method, token.access)
    call = Call(operation, path, parts, token, address_of(request))
    body = _body_of(request, operation)
    arguments = _arguments(request)
    _read_query(call, arguments)
    if operation.data is not None:
        _read_data(call, arguments.get("data", "").encode(), body)
    elif operation.body is not None:
        _read_body(call, body)
    elif body.strip():
        raise ApiError.bad_request(f"{operation.method} {operation.path} takes no body")
    return call


def _check_right(right: Right, method: str, access: Access) -> None:
    if not access.permits(method, right.uri, right.submodule):
        raise ApiError.not_permitted()


def _body_of(request: ApiRequest, operation: Operation) -> bytes:
    if request.is_one_too_many:
        raise ApiError.unavailable("too many bodies are under way: try again a little later")
    if request.is_too_large:
        raise ApiError.too_large(f"the body is larger than {operation.body_most} bytes")
    body: bytes = request.content.read() if request.content is not None else b""
    if len(body) > operation.body_most:
        raise ApiError.too_large(f"the body has {len(body)} bytes; {operation.body_most} are possible")
    return body


def _arguments(request: Request) -> dict[str, str]:
    """Of the address alone: Twisted's own table also has what it takes a body for, such as curl's, for a form."""
    query = request.uri.partition(b"?")[2]
    try:
        text = query.decode()  # of bytes parse_qsl takes nothing but ASCII, also where that is percent-encoded
        return dict(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=ARGUMENTS_MOST))
    except UnicodeDecodeError:
        raise ApiError.bad_request("the query is not UTF-8 after percent-decoding") from None
    except ValueError:
        raise ApiError.bad_request(f"the query has more than {ARGUMENTS_MOST} parameters") from None


def _read_query(call: Call, arguments: dict[str, str]) -> None:
    """flespi ignores query parameters that it does not know; so do we, but the answer says it."""
    known = set(call.operation.query.__struct_fields__)
    reserved = {"data"} if call.operation.data is not None else set()
    for name in sorted(set(arguments) - known - reserved)[:10]:
        where = ": put it into the JSON object of the parameter data" if name in _names(call.operation.data) else ""
        call.warnings.append(f"the query parameter {name[:64]} is ignored{where}")
    values = {name: value for name, value in arguments.items() if name in known}
    call.query = convert(values, call.operation.query, "query", strict=False)


def _names(kind: Any) -> tuple[str, ...]:
    return kind.__struct_fields__ if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else ()


def _read_data(call: Call, given: bytes, body: bytes) -> None:
    """``?data={...}``; the same object as the body of a GET is taken too."""
    if given and body.strip():
        raise ApiError.bad_request("data stands in the query and in the body: only one of them is possible")
    text = given or body
    value = parse_json(text, "data") if text.strip() else {}
    call.data = convert(value, call.operation.data, "data")


def _read_body(call: Call, body: bytes) -> None:
    if not body.strip() and call.operation.may_lack_body:
        body = b"{}"
    if not body.strip():
        raise ApiError.bad_request("a body is needed: JSON, see /gw/api.json")
    value = parse_json(body, "the body")
    kind = item_type(call.operation.body)
    if kind is None:
        call.body = convert(value, call.operation.body, "the body")
    else:
        call.entries, call.errors = convert_entries(value, kind)
