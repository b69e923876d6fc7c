"""Addresses of targets, as configurations give them."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from gateway.errors import ItemError

PATHS = {"https": "/path", "postgresql": "/database", "amqps": "/vhost"}
"""What may follow the port, by the scheme that is recommended."""


def check_uri(uri: str, field: str, schemes: tuple[str, ...] = ("http", "https")) -> None:
    """Whether it is an address with one of these schemes, and a host. Raises ItemError that names ``field``.

    The last of the schemes is the one to recommend.
    """
    try:
        parts = urlsplit(uri)
        is_right = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_right = False
    if not is_right or not uri.isprintable() or " " in uri:
        raise ItemError(f"should be like {schemes[-1]}://host:port{PATHS.get(schemes[-1], '')}", field)


def check_broker(uri: str, field: str, schemes: tuple[str, ...]) -> SplitResult:
    """The same for types that have the login in options of its own. Gives its parts."""
    check_uri(uri, field, schemes)
    parts = urlsplit(uri)
    if parts.username or parts.password:
        raise ItemError("should not have them: username and password are options", field)
    return parts
