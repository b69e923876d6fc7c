"""Where the embedded broker listens."""

from __future__ import annotations

import re

from attrs import frozen

from gateway.errors import ConfigError


@frozen
class ListenAddress:
    """Where to listen, from a Twisted endpoint string: ``tcp:PORT`` or ``tcp:PORT:interface=ADDRESS``."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, key: str) -> ListenAddress:
        """Raises ConfigError that names ``key``."""
        kind, *rest = [part.replace("\\:", ":") for part in re.split(r"(?<!\\):", text)]
        port, options = rest[0] if rest else "", dict(part.partition("=")[::2] for part in rest[1:])
        host = options.pop("interface", "")
        if kind != "tcp" or not port.isdigit() or int(port) > 65535 or options:
            raise ConfigError(f"{key}: {text!r} should be like tcp:1883 or tcp:1883:interface=127.0.0.1")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host or '*'}:{self.port}"
