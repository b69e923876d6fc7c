"""Options of plugins that ask over HTTP, and what the types of the options do not say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from gateway.errors import ItemError

Uri = Annotated[str, Meta(min_length=8, max_length=2048, description="address, http:// or https://")]
HeaderName = Annotated[str, Meta(min_length=1, max_length=128, description="name of a header")]
HeaderValue = Annotated[str, Meta(max_length=4096, description="its value")]
Headers = Annotated[
    dict[HeaderName, HeaderValue], Meta(max_length=50, description="headers that each request has, such as a key")
]
CaFile = Annotated[
    str,
    Meta(
        max_length=1024,
        description="file on the gateway's machine with the certificates (PEM) of the authorities that are trusted, "
        "instead of the system's",
    ),
]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OURS = frozenset({"connection", "content-length", "host", "transfer-encoding", "upgrade"})


def check_uri(uri: str, field: str = "uri", holes: re.Pattern[str] | None = None) -> None:
    """``holes`` finds what only path and query may have: what a tracker sends shall not choose the host.

    Raises ItemError.
    """
    host = ""
    try:
        parts = urlsplit(uri)
        host = parts.netloc
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not uri.isascii() or any(sign.isspace() or not sign.isprintable() for sign in uri):
        raise ItemError(f"{field} should be an address such as https://host/path", f"configuration.{field}")
    if holes is not None and (found := holes.search(host)):
        raise ItemError(f"{field} can have {found[0]} in its path and query only", f"configuration.{field}")


def check_headers(headers: Mapping[str, str], field: str = "headers") -> None:
    """Raises ItemError, which does not tell the value."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _OURS:
            raise ItemError(f"{field}: {name!r} cannot be set", f"configuration.{field}")
        if not _VALUE.fullmatch(value):
            raise ItemError(f"{field}: the value of {name} should be printable ASCII", f"configuration.{field}")
