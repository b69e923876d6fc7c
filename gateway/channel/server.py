"""From an endpoint string to what can be listened on: Twisted's, with TLS and the PROXY protocol of our own.

``ssl:`` reads renewed certificates without a restart and can ask for client certificates; ``haproxy:`` takes its header
in pieces of any size, from whom it may come, and before TLS, which is where proxies send it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

import attrs
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from gateway.channel.certificates import VERSIONS, Certificates, TlsFiles, TlsOptions
from gateway.channel.endpoints import PORT
from gateway.channel.proxy import ProxyFactory, parse_proxies
from gateway.channel.tls import CLOSE_TIME, tls_factory
from gateway.errors import ConfigError

Wrap = Callable[[IProtocolFactory], IProtocolFactory]

HAPROXY = "haproxy:"
SSL_POSITIONS = (
    "port", "privateKey", "certKey", "sslmethod", "interface", "backlog", "extraCertChain", "dhParameters",
)  # fmt: skip
"""What arguments without a name mean, in Twisted's order."""
SSL_NAMES = (*SSL_POSITIONS, "clientCA", "minVersion")
ANY_METHOD = ("", "TLS_METHOD", "TLS_SERVER_METHOD", "SSLv23_METHOD")
BACKLOG = 50
"""Twisted's default."""

log = Logger()


@implementer(IStreamServerEndpoint)
@define(eq=False)
class Server:
    """An endpoint whose connections pass through ``wrap``."""

    endpoint: IStreamServerEndpoint
    wrap: Wrap

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """As every endpoint."""
        return self.endpoint.listen(self.wrap(protocolFactory))


def server_from_string(reactor: Any, spec: str, close_time: float | None = CLOSE_TIME) -> IStreamServerEndpoint:
    """``spec`` as Twisted's ``serverFromString``; ``close_time`` is that of :func:`gateway.channel.tls.tls_factory`.

    Raises ConfigError that says what would be right; and, where Twisted itself has to say it, ValueError or TypeError.
    """
    if not spec.startswith(HAPROXY):
        return _server(reactor, spec, _short(spec), close_time)
    proxies, inner = _take_option(spec.removeprefix(HAPROXY), "proxies")
    if inner.startswith(HAPROXY):
        raise ConfigError("haproxy: stands once, before the endpoint that the proxy connects to")
    networks = parse_proxies(proxies)
    if not networks and not _is_local(inner):
        log.warn("{spec}: whoever can connect to it may claim any address; proxies=ADDRESS,... says who", spec=spec)
    below = _server(reactor, inner, _short(spec), close_time)
    return _around(below, lambda factory: ProxyFactory(factory, _short(spec), networks, reactor.callLater))


def _server(reactor: Any, spec: str, where: str, close_time: float | None) -> IStreamServerEndpoint:
    """``where`` is the endpoint in lines of the log."""
    if not spec.startswith("ssl:"):
        endpoint: IStreamServerEndpoint = serverFromString(reactor, spec)
        return endpoint
    options = _ssl_options(spec)
    certificates = Certificates(tls_options(options), where)
    port = TCP4ServerEndpoint(
        reactor, int(options["port"]), int(options.get("backlog", BACKLOG)), options.get("interface", "")
    )
    return Server(port, lambda factory: tls_factory(factory, certificates, where, reactor, close_time))


def _around(endpoint: IStreamServerEndpoint, wrap: Wrap) -> Server:
    """The outermost wrapper is the one that gets the bytes first."""
    if isinstance(endpoint, Server):
        inner = endpoint.wrap
        return Server(endpoint.endpoint, lambda factory: wrap(inner(factory)))
    return Server(endpoint, wrap)


def tls_options(options: Mapping[str, str]) -> TlsOptions:
    """From the arguments of an ``ssl:`` endpoint. Raises ConfigError."""
    if options.get("sslmethod", "") not in ANY_METHOD:
        raise ConfigError("sslmethod= is not known here: right is minVersion=1.2 (or 1.0, 1.1, 1.3)")
    version = options.get("minVersion", "1.2")
    if version not in VERSIONS:
        raise ConfigError(f"minVersion={version} is none of {', '.join(VERSIONS)}")
    names = [field.name for field in attrs.fields(TlsFiles)]
    return TlsOptions(TlsFiles(**{name: options[name] for name in names if name in options}), version)


def _ssl_options(spec: str) -> dict[str, str]:
    """The arguments by their names; those that Twisted does not need a name for included."""
    options: dict[str, str] = {}
    positions = iter(SSL_POSITIONS)
    for argument in _split(spec)[1:]:
        name, equals, value = argument.partition("=")
        if not equals:
            name, value = next(positions, argument), argument
        if name not in SSL_NAMES:
            raise ConfigError(f"{name}= is no option of ssl: there are {', '.join(SSL_NAMES[1:])}")
        options[name] = _plain(value)
    for name in ("port", "backlog"):
        number = options.get(name, "0" if name == "backlog" else "")
        if not number.isascii() or not number.isdigit():
            raise ConfigError(f"{name} {number!r} should be a number, as in ssl:5028:privateKey=FILE:certKey=FILE")
    return options


def _take_option(spec: str, name: str) -> tuple[str, str]:
    """The value of an option, empty where there is none, and the endpoint without it."""
    arguments = _split(spec)
    values = [argument for argument in arguments if argument.startswith(f"{name}=")]
    rest = [argument for argument in arguments if argument not in values]
    return _plain(values[-1].partition("=")[2]) if values else "", ":".join(rest)


def _split(spec: str) -> list[str]:
    """At its colons, except those behind a backslash."""
    return re.split(r"(?<!\\):", spec)


def _plain(value: str) -> str:
    """Without the backslashes."""
    return re.sub(r"\\(.)", r"\1", value)


def _short(spec: str) -> str:
    """As far as its port: "haproxy:ssl:5031"."""
    match = PORT.match(spec)
    return match.group() if match is not None else spec


def _is_local(spec: str) -> bool:
    """Whether only this machine can connect."""
    interface, _rest = _take_option(spec, "interface")
    try:
        return ip_address(interface).is_loopback
    except ValueError:
        return spec.startswith("unix:")
