"""Endpoint strings of channels: which there can be, and what is wrong with one.

They are Twisted's (``tcp:5027``, ``ssl:5028:privateKey=...``, ``haproxy:tcp:5027``), and ``udp:PORT`` of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LISTEN_KINDS = ("tcp", "udp", "ssl", "haproxy", "systemd", "unix", "tcp6")
"""What a channel can listen on."""
API_KINDS = ("tcp", "udp", "ssl", "haproxy", "tcp6")
"""What the API may have a channel listen on: no paths of the file system, no sockets of somebody else."""
LISTEN_MOST = 16
SPEC_MOST = 512
PORT_KINDS = {
    "tcp": ("interface", "backlog"),
    "tcp6": ("interface", "backlog"),
    "udp": ("interface",),
    "ssl": (
        "interface", "backlog", "privateKey", "certKey", "sslmethod", "extraCertChain", "dhParameters", "clientCA",
        "minVersion",
    ),
}  # fmt: skip
"""Kinds of endpoints that begin with a port, and their options."""
PROXIED_OPTIONS = ("proxies",)
"""What every endpoint may have behind ``haproxy:``."""
RANGE = re.compile(r"(\d{1,5})-(\d{1,5})", re.ASCII)
PORT = re.compile(r"(?:haproxy:)?(?P<kind>tcp6?|ssl|udp):(?P<port>\d+)")


def problem(spec: str, kinds: Sequence[str], options_too: Sequence[str] = ()) -> str | None:
    """What would be right instead of ``spec``; None: it is an endpoint of one of these kinds.

    ``options_too`` are options that each of them may have besides its own.
    """
    kind, _, rest = spec.partition(":")
    if kind == "haproxy" and kind in kinds:
        return problem(rest, [kind for kind in kinds if kind not in ("haproxy", "udp")], PROXIED_OPTIONS)
    if kind not in kinds:
        return f"an endpoint such as {kinds[0]}:5027 (kinds: {', '.join(kinds)})"
    if kind in PORT_KINDS:
        port, _, options = rest.partition(":")
        if not port.isascii() or not port.isdigit() or int(port[:6]) > 65535:
            return f"{kind}:PORT with a port from 0 to 65535"
        known = (*PORT_KINDS[kind], *options_too)
        unknown = [name for name in re.findall(r"(?:^|(?<!\\):)(\w+)=", options) if name not in known]
        if unknown:
            return f"without {unknown[0]}: the options of {kind} are {', '.join(known)}"
    return None if rest else f"{kind}: with its arguments"


def problem_for_api(spec: str) -> str | None:
    """The same for what a client of the API sent."""
    if len(spec) > SPEC_MOST:
        return f"at most {SPEC_MOST} characters long"
    return problem(spec, API_KINDS)


def port_of(spec: str) -> tuple[str, int] | None:
    """("tcp", 5027); None where the endpoint has no port of its own (systemd, unix)."""
    match = PORT.match(spec)
    if match is None:
        return None
    return "udp" if match["kind"] == "udp" else "tcp", int(match["port"])


def parse_range(text: str) -> range | None:
    """The ports of ``FIRST-LAST``; None where it is none."""
    match = RANGE.fullmatch(text)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    return range(first, last + 1) if 1 <= first <= last <= 65535 else None
