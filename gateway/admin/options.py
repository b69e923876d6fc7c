"""The command line: what can be said."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.admin import commanding, items, links, messages, status, trackers
from gateway.admin.selectors import KINDS
from gateway.admin.values import moment

URL = "http://127.0.0.1:8080"
TOKEN_FILE = Path("var/token")
EPILOG = """\
SELECTOR is an id (5), ids (1,2,5), a name, an ident, either with * and ?, all, or any selector of the API
(enabled=false, '{messages_ttl < 86400}'). Times are 2026-11-21T02:50, 02:50 (today), 2h (ago), or UNIX seconds.

examples:
  status
  devices create name=Van ident=352093081452251 type=FMC130
  devices set Van messages_ttl=90d metadata.plate=AB-123
  telemetry Van position.speed battery.voltage
  messages device Van --from 2h --filter 'position.speed > 90'
  tail channel teltonika
  packets 352093081452251
  command Van getparam param=2004
  plugins create name=erase type=msg-erase 'configuration.parameters=["can.*"]'
  link plugin erase device Van
  streams create name=out type=http uri=https://example.com/messages
  link stream out channel teltonika
  tokens create info=dashboard ttl=30d
  --json devices list | jq '.[].name'

exit status: 0 done; 1 it failed, or a part of it did, or status says that trackers are paused; 2 a wrong argument.
"""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; ``run`` is the command's function. Ends the process with status 2 where they are wrong."""
    options = parser().parse_args(arguments)
    if options.token is None and options.token_file is None:
        options.token = os.environ.get("GATEWAY_TOKEN") or None
    return options


def parser() -> argparse.ArgumentParser:
    """The arguments that there are."""
    made = argparse.ArgumentParser(
        prog="python -m gateway.admin",
        description="Look at a gateway, and change it, over its REST API.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # or the --to of a command would be taken for an abbreviation of --token
    )
    _add_common(made)
    made.set_defaults(url=os.environ.get("GATEWAY_URL") or URL, token=None, token_file=None, ca=None, json=False)
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    _add_status(commands)
    for kind in KINDS:
        _add_kind(commands, kind)
    _add_types(commands)
    _add_links(commands)
    _add_messages(commands)
    _add_trackers(commands)
    _add_command(commands)
    return made


def _add_common(made: argparse.ArgumentParser) -> None:
    """What every command takes, before it and behind it; without defaults, for the latter would undo the former."""
    add = made.add_argument_group("the gateway, and how to show it").add_argument
    none = argparse.SUPPRESS
    add("--url", default=none, help=f"default: $GATEWAY_URL, else {URL}")
    add("--token", default=none, metavar="KEY", help="others see it in the list of processes: better $GATEWAY_TOKEN")
    add("--token-file", default=none, type=Path, metavar="FILE", help=f"with the token; default: {TOKEN_FILE}")
    add("--ca", default=none, type=Path, metavar="FILE", help="for https: trust the authorities in this file")
    add("--json", default=none, action="store_true", help="JSON instead of tables; messages one a line")


def _command(commands: Any, name: str, run: Callable[..., Any], help: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    _add_common(made)
    made.set_defaults(run=run)
    return made


def _add_status(commands: Any) -> None:
    _command(commands, "status", status.run_status, "whether trackers' data is taken, and key figures")


def _add_kind(commands: Any, kind: str) -> None:
    singular = KINDS[kind].singular
    actions = commands.add_parser(kind, help=f"list, show, create, set, delete {kind}").add_subparsers(
        metavar="ACTION", required=True
    )
    listing = _command(actions, "list", items.run_list, f"a table of {kind}")
    listing.add_argument("selector", nargs="?", default="all", metavar="SELECTOR", help="default: all")
    listing.add_argument("--fields", metavar="A,B", help="these fields instead; a.b is a part of an object")
    showing = _command(actions, "show", items.run_show, f"every field of {kind}")
    showing.add_argument("selector", metavar="SELECTOR")
    creating = _command(actions, "create", items.run_create, f"make a {singular}: {_example(kind)}")
    creating.add_argument("values", nargs="+", metavar="FIELD=VALUE")
    setting = _command(actions, "set", items.run_set, f"change {kind}")
    setting.add_argument("selector", metavar="SELECTOR")
    setting.add_argument("values", nargs="+", metavar="FIELD=VALUE", help="VALUE is JSON where it can be; null removes")
    deleting = _command(actions, "delete", items.run_delete, f"delete {kind}, and what belongs to them")
    deleting.add_argument("selector", metavar="SELECTOR")
    deleting.add_argument("--yes", action="store_true", help="do not ask")
    made = [listing, showing, creating, setting, deleting]
    if kind in links.TYPES:
        types = _command(actions, "types", links.run_types, f"what {kind} can be, and how each type is configured")
        types.add_argument("name", nargs="?", default="", metavar="TYPE", help="its options; default: a list of all")
        made.append(types)
    for action in made:
        action.set_defaults(kind=kind)


def _example(kind: str) -> str:
    return {
        "channels": "name=trackers listen=tcp:5028,udp:5028 unknown_ident=register",
        "devices": "name=Van ident=352093081452251 type=FMC130",
        "plugins": "name=erase type=msg-erase 'configuration.parameters=[\"can.*\"]'",
        "streams": "name=out type=http uri=https://example.com/messages",
        "tokens": "info=dashboard ttl=30d",
    }[kind]


def _add_types(commands: Any) -> None:
    types = _command(commands, "types", items.run_types, "device types, by a part of their name")
    types.add_argument("text", nargs="?", default="", metavar="TEXT", help="default: all of them")


def _add_links(commands: Any) -> None:
    for name, run, help in (
        (
            "link",
            links.run_link,
            "have plugins work on devices, or streams carry messages of devices or channels",
        ),
        ("unlink", links.run_unlink, "the contrary"),
        ("links", links.run_links, "what a plugin or a stream is linked with"),
    ):
        made = _command(commands, name, run, help)
        _add_of(made, ("plugin", "stream"))
        made.add_argument("to", choices=("device", "channel"))
        default: Any = {"nargs": "?", "default": "all"} if name == "links" else {}
        made.add_argument("to_selector", metavar="SELECTOR", **default)
        if name == "link":
            made.add_argument("values", nargs="*", metavar="FIELD=VALUE", help="fields of a plugin for these devices")


def _add_messages(commands: Any) -> None:
    telemetry = _command(commands, "telemetry", messages.run_telemetry, "the last value of each parameter of a device")
    telemetry.add_argument("selector", metavar="DEVICE")
    telemetry.add_argument("parameters", nargs="*", metavar="PARAMETER", help="names or masks; default: all")
    reading = _command(
        commands, "messages", messages.run_messages, "messages that are stored; by default the last ones"
    )
    _add_of(reading, ("channel", "device"))
    _add_range(reading, messages.LAST)
    reading.add_argument("--filter", metavar="EXPRESSION", help="such as 'position.speed > 90'")
    reading.add_argument("--fields", metavar="A,B", help="these parameters only; masks such as 'can.*' are possible")
    reading.add_argument("--reverse", action="store_true", help="the latest first")
    tailing = _command(commands, "tail", messages.run_tail, "messages as they come, until Ctrl-C")
    _add_of(tailing, ("channel", "device"))
    tailing.add_argument(
        "-n", "--lines", type=_number, default=5, metavar="N", help="begin with the last N (default: 5)"
    )
    tailing.add_argument("--fields", metavar="A,B", help="these parameters only")


def _add_trackers(commands: Any) -> None:
    connections = _command(commands, "connections", trackers.run_connections, "who is connected")
    connections.add_argument("selector", nargs="?", default="all", metavar="CHANNEL", help="default: all")
    idents = _command(commands, "idents", trackers.run_idents, "which idents were seen, and let in or not, and why")
    idents.add_argument("selector", nargs="?", default="all", metavar="CHANNEL", help="default: all")
    idents.add_argument("--ident", default="all", metavar="MASK", help="only these; * and ? are possible")
    packets = _command(commands, "packets", trackers.run_packets, "what an ident sent and was sent, byte by byte")
    packets.add_argument("ident", metavar="IDENT", help="or a device")
    packets.add_argument("--channel", default="all", metavar="CHANNEL", help="default: all")
    _add_range(packets, 50)
    logs = _command(commands, "logs", trackers.run_logs, "what happened to a channel, a device, a plugin or a stream")
    _add_of(logs, ("channel", "device", "plugin", "stream"))
    _add_range(logs, 50)
    logs.add_argument("--filter", metavar="EXPRESSION", help="such as 'event_code == 102'")


def _add_of(command: argparse.ArgumentParser, kinds: Sequence[str]) -> None:
    command.add_argument("kind", choices=kinds)
    command.add_argument("selector", metavar="SELECTOR")


def _add_range(command: argparse.ArgumentParser, count: int) -> None:
    command.add_argument("--from", dest="start", type=_moment, metavar="TIME", help="default: the last ones")
    command.add_argument("--to", type=_moment, metavar="TIME")
    command.add_argument("--count", type=_number, default=count, metavar="N", help=f"0: all; default: {count}")


def _add_command(commands: Any) -> None:
    sending = _command(commands, "command", commanding.run_command, "send a command to devices, and show the answers")
    sending.add_argument("selector", metavar="DEVICE")
    sending.add_argument("name", metavar="NAME", help="such as getver, getparam, custom: docs/commands.md has all")
    sending.add_argument("properties", nargs="*", metavar="KEY=VALUE", help="VALUE is JSON where it can be")
    sending.add_argument("--timeout", type=_number, default=30, metavar="S", help="seconds, 5 to 60; default: 30")
    sending.add_argument("--queue", action="store_true", help="do not wait: have it sent when the device connects")


def _moment(text: str) -> float:
    try:
        return round(moment(text), 6)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} should be a number from 0 on")
    return int(text)
