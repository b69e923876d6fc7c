"""Requests to the gateway's REST API. Whatever goes wrong is told in a sentence."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from attrs import field, frozen

from gateway.errors import OperatorError

Item = dict[str, Any]

TIMEOUT = 30.0
"""Seconds between two bytes of an answer."""
CONNECT_TIMEOUT = 10.0
DENIED = 3
"""flespi's code for what a token may not do; with an id, also for an item that does not exist."""
SHOWN_BYTES = 200
LOCAL = ("127.0.0.1", "::1", "localhost")


class AdminError(OperatorError):
    """It cannot be done; the message is for people. ``code`` is that of the API's first error."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


@frozen
class Answer:
    """What the API gave: the items, the sentences about what failed nevertheless, and further keys of the envelope."""

    result: list[Item]
    failures: list[str] = field(factory=list)
    extra: Mapping[str, Any] = field(factory=dict)


class Client:
    """Speaks to one gateway. A context: it closes its connection."""

    def __init__(self, url: str, token: str | None, ca: Path | None = None) -> None:
        """Raises AdminError where ``url`` or ``ca`` cannot be."""
        self.url = url.rstrip("/").removesuffix("/gw")
        self.warnings: list[str] = []
        """What answers said beside their results."""
        self._token = token
        self._http = httpx.Client(
            verify=_trust(ca),
            trust_env=_host_of(self.url) not in LOCAL,  # a proxy knows another machine by that name
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, *path: str, data: Mapping[str, Any] | None = None, fields: str = "", wait: float = 0.0) -> Answer:
        """GET; ``data`` is the JSON object of the parameter of that name, ``wait``: so long may the gateway wait."""
        query = {"data": json.dumps(data) if data else "", "fields": fields}
        return self._ask("GET", path, wait, params={name: text for name, text in query.items() if text})

    def send(self, method: str, *path: str, body: Any = None, wait: float = 0.0) -> Answer:
        """POST, PUT, PATCH, DELETE; ``wait``: so long may the gateway wait."""
        return self._ask(method, path, wait, **({} if body is None else {"json": body}))

    def fetch(self, *path: str) -> tuple[int, str]:
        """What needs no token: the status code and the text."""
        answer = self._request("GET", path, 0.0, {})
        return answer.status_code, answer.text

    def _ask(self, method: str, path: tuple[str, ...], wait: float, **arguments: Any) -> Answer:
        if not self._token:
            raise AdminError("no token: set GATEWAY_TOKEN, or give --token-file FILE (or --token KEY)")
        headers = {"Authorization": f"FlespiToken {self._token}"}
        return self._read(self._request(method, path, wait, {**arguments, "headers": headers}))

    def _request(self, method: str, path: tuple[str, ...], wait: float, arguments: Mapping[str, Any]) -> httpx.Response:
        url = "/".join([self.url, *(quote(part, safe="") for part in path)])
        try:
            return self._http.request(
                method, url, timeout=httpx.Timeout(TIMEOUT + wait, connect=CONNECT_TIMEOUT), **arguments
            )
        except httpx.ConnectTimeout:
            raise AdminError(f"cannot reach the gateway at {self.url}: nobody answers there") from None
        except httpx.TimeoutException:
            raise AdminError(f"{self.url} did not answer within {TIMEOUT + wait:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise AdminError(f"cannot reach the gateway at {self.url}: {error or type(error).__name__}") from None

    def _read(self, response: httpx.Response) -> Answer:
        try:
            envelope = response.json()
            result = envelope.pop("result", [])
            failures = [_sentence(error) for error in envelope.get("errors", ())]
            code = envelope["errors"][0].get("code") if failures else None
        except (ValueError, AttributeError, TypeError, LookupError, UnicodeError):
            text = " ".join(response.text[:SHOWN_BYTES].split())
            raise AdminError(f"{self.url} answered {response.status_code}, and it is no gateway: {text}") from None
        if response.is_error and not failures:
            raise AdminError(f"{self.url} answered {response.status_code} without saying why")
        if failures and not result:
            raise AdminError("\n".join(failures), code)
        self.warnings += [str(warning.get("reason")) for warning in envelope.get("warnings", ())]
        return Answer(result, failures, envelope)


def _sentence(error: Mapping[str, Any]) -> str:
    """An error of the API, with the place that it is about."""
    if error.get("code") == DENIED and error.get("id") is not None:
        return f"there is no item {error['id']}, or this token may not do that with it"
    where = [f"{name} {error[name]}" for name in ("field", "id") if error.get(name) is not None]
    hint = error.get("schema_hint")
    known = f"; there are: {', '.join(map(str, hint))}" if isinstance(hint, list) else ""
    return str(error["reason"]) + (f" ({', '.join(where)})" if where else "") + known


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.hostname
    except ValueError:
        pass
    raise AdminError(f"--url: {url!r} should be like http://127.0.0.1:8080")


def _trust(ca: Path | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca))
    except OSError as error:  # ssl.SSLError is one
        raise AdminError(f"--ca: {ca} has no certificates that can be read: {error}") from None
