"""The command line: its arguments, and the scenario that they make."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from gateway.emulator.capture import read_capture
from gateway.emulator.endpoint import parse_address
from gateway.emulator.faults import describe_faults, parse_faults
from gateway.emulator.group import PACKET_RECORDS, Group, Timing, imei
from gateway.emulator.io import SETS
from gateway.emulator.packets import CODECS
from gateway.emulator.route_files import ENDINGS, route_names
from gateway.emulator.scenario import Scenario, load_scenario, scenario_names
from gateway.emulator.tape import SHAPES
from gateway.errors import ConfigError

TIMING = Timing()
EXAMPLES = """\
  --devices 20 --interval 10 --route delivery --model FMC130 --io basic --io can
  --route trip.gpx --speed-up 10 --records-per-packet 5 --codec 16
  --scenario city-fleet --count 60 --as-fast-as-acknowledged
  --to gateway.example.org:5028 --ca authority.pem --fault cut:0.01,segments:7
  --load pkt10 --devices 100 --duration 10 --processes 2
"""
EPILOG = f"""\
faults, as in --fault cut:0.01 --fault segments:7,bad-crc:0.02:
{describe_faults()}

exit status: 0 all records were acknowledged; 1 not all were, or the gateway rejected an ident (00);
2 a wrong argument or address, or nothing answers there. Ctrl-C ends the drive; what is left is still sent.

without any argument a car drives through a town and sends a record a second. Other examples:
{EXAMPLES}
docs/emulator.md tells the rest: routes, IO sets, scenario files.
"""
# What describes a group of trackers on the command line; a scenario file says these things itself.
OF_GROUP = (
    "tls", "udp", "devices", "imei", "model", "codec", "route", "io", "interval", "records_per_packet", "send_period",
    "newest_first", "backlog", "response_timeout", "ping", "open_link", "spread", "fault",
)  # fmt: skip

NOT_WITH_LOAD = ("scenario", "tls", "udp", "ca", "insecure", "fault", "record", "replay", "codec", "model", "begin")


def parser() -> argparse.ArgumentParser:
    """The arguments that there are."""
    made = argparse.ArgumentParser(
        prog="python -m gateway.emulator",
        description="Virtual Teltonika trackers drive along routes and report to a gateway over TCP, TLS or UDP.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    _add_server(made.add_argument_group("the server").add_argument)
    _add_trackers(made.add_argument_group("the trackers").add_argument)
    _add_timing(made.add_argument_group("when they record and send").add_argument)
    _add_run(made.add_argument_group("the run").add_argument)
    return made


def _add_server(add: Callable[..., Any]) -> None:
    add("--to", type=_address, metavar="HOST:PORT", help="default: 127.0.0.1:5027")
    add("--tls", action="store_true", help="TLS; trusts the authorities that the system trusts")
    add("--ca", type=Path, metavar="FILE", help="trust the authorities in this file instead")
    add("--insecure", action="store_true", help="trust every certificate")
    add("--udp", action="store_true", help="datagrams instead of a connection")
    add("--wait", action="store_true", help="wait for a gateway that is not there yet")


def _add_trackers(add: Callable[..., Any]) -> None:
    add("--scenario", metavar="FILE", help=f"groups of trackers; built in: {', '.join(scenario_names())}")
    add("--devices", type=_count, metavar="N", help="how many (default: 1)")
    add("--imei", type=_imei, metavar="IMEI", help=f"the first one's; the others count up (default: {Group().imei})")
    add("--model", metavar="NAME", help=f"such as FMC130 (default: {Group().model})")
    add("--codec", choices=CODECS, help=f"data protocol (default: {Group().codec})")
    add(
        "--route",
        metavar="NAME|FILE",
        help=f"built in: {', '.join(route_names())}; or a file: {', '.join(ENDINGS)} (default: {Group().route})",
    )
    sets = ", ".join(dict.fromkeys(name for family in SETS.values() for name in family))
    add("--io", action="append", metavar="SET", help=f"of {sets}, or an AVL id; may be repeated (default: basic)")
    add("--seed", type=int, help="the same drive each time (default: 1)")
    add("--fault", action="append", metavar="NAME:VALUE", help="what goes wrong; may be repeated (see below)")


def _add_timing(add: Callable[..., Any]) -> None:
    add("--interval", type=_positive, metavar="S", help="seconds of the drive between records (default: 1)")
    add("--speed-up", type=_positive, metavar="X", help="let the drive's time pass so much faster")
    add("--as-fast-as-acknowledged", action="store_true", help="record as fast as the gateway takes it")
    add("--count", type=_count, metavar="N", help="end after so many records a device (default: drive for ever)")
    add("--begin", type=_moment, metavar="TIME", help="first record's time, ISO 8601 (default: none is in the future)")
    add("--records-per-packet", type=_records, metavar="N", help="send when so many wait, 1 to 255 (default: 1)")
    add("--send-period", type=_positive, metavar="S", help="and at least so often (default: only when enough wait)")
    add("--newest-first", action="store_true", help="send the newest records first (default: the oldest)")
    add("--backlog", type=_count, metavar="N", help=f"records kept without a link (default: {TIMING.backlog})")
    add("--response-timeout", type=_positive, metavar="S", help=f"default: {TIMING.response_timeout:g}")
    add("--ping", type=_positive, metavar="S", help="send FF on an idle link so often (default: never)")
    add("--open-link", type=_positive, metavar="S", help="close a link that is idle so long (default: never)")
    add("--spread", type=_not_negative, metavar="S", help="switch them on within so long (default: one interval)")


def _add_run(add: Callable[..., Any]) -> None:
    add("--duration", type=_positive, metavar="S", help="end after so long; what is left is still sent")
    add("--quiet", action="store_true", help="only trouble and the summary")
    add("--record", type=Path, metavar="FILE", help="write all that is sent: a line of time, IMEI and hexadecimal each")
    add("--replay", type=Path, metavar="FILE", help="send what such a file, or one of plain hexadecimal lines, holds")
    add("--load", choices=SHAPES, help="prebuilt packets of 1, 10 or 20 records as fast as they are acknowledged (TCP)")
    add("--rate", type=_positive, metavar="N", help="with --load: not more than so many records/s, all together")
    add("--processes", type=_count, metavar="N", help="share the work between so many (default: 1)")
    add("--json", action="store_true", help="a JSON object a second, and one as summary")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; those that were not given are None or False. Exits with 2 where one is wrong."""
    made = parser()
    options = made.parse_args(arguments)
    given = vars(options)
    if "scenario" in given and (both := [name for name in OF_GROUP if name in given]):
        made.error(f"--{both[0].replace('_', '-')} is said by the scenario itself, group by group")
    if "load" in given and (both := [name for name in NOT_WITH_LOAD if name in given]):
        made.error(f"--{both[0].replace('_', '-')} does not go with --load")
    try:
        options.made = scenario_of(options)
        options.captured = read_capture(given["replay"], options.made.groups[0].imei) if "replay" in given else []
    except ConfigError as error:
        made.error(str(error))
    for action in made._actions:
        if not hasattr(options, action.dest):
            setattr(options, action.dest, False if action.nargs == 0 else None)
    options.processes = options.processes or 1
    return options


def scenario_of(options: argparse.Namespace) -> Scenario:
    """The scenario that was asked for: a file's, or one group. Raises ConfigError."""
    given = vars(options)
    loaded = load_scenario(given["scenario"]) if "scenario" in given else Scenario((group_of(given),))
    changes = {name: given[key] for name, key in _OF_SCENARIO.items() if key in given}
    if given.get("as_fast_as_acknowledged"):
        changes["speed_up"] = float("inf")
    return attrs.evolve(loaded, **changes)


def group_of(given: dict[str, Any]) -> Group:
    """The one group that the command line describes. Raises ConfigError."""
    interval = given.get("interval", 1.0)
    devices = given.get("devices", 1)
    spread = interval / given.get("speed_up", 1.0) if devices > 1 else 0.0
    values = {name: given[name] for name in ("imei", "model", "codec", "route", "io") if name in given}
    transport = (
        "udp" if given.get("udp") else "tls" if given.get("tls") or "ca" in given or "insecure" in given else "tcp"
    )
    return Group(
        name=given.get("imei", Group().imei) if devices == 1 else "trackers",
        devices=devices,
        transport=transport,
        spread=given.get("spread", spread),
        timing=_timing(given, interval),
        faults=parse_faults(given.get("fault", [])),
        **values,
    )


_OF_SCENARIO = {"to": "to", "seed": "seed", "start": "begin", "speed_up": "speed_up", "count": "count"}
_OF_TIMING = {
    "records_per_packet": "records_per_packet",
    "send_period": "send_period",
    "backlog": "backlog",
    "response_timeout": "response_timeout",
    "open_link_timeout": "open_link",
    "ping_interval": "ping",
}


def _timing(given: dict[str, Any], interval: float) -> Timing:
    values = {name: given[key] for name, key in _OF_TIMING.items() if key in given}
    sort = "newest" if given.get("newest_first") else "oldest"
    return Timing(period=interval, parked_period=interval, sort=sort, **values)


def _address(text: str) -> str:
    try:
        parse_address(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _imei(text: str) -> str:
    if imei(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an IMEI: 15 digits")
    return text


def _positive(text: str) -> float:
    return _number(text, float(text) if _is_number(text) else 0.0, "a number above 0")


def _not_negative(text: str) -> float:
    if not _is_number(text) or not float(text) >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return float(text)


def _count(text: str) -> int:
    return int(_number(text, int(text) if text.isdecimal() else 0, "a whole number above 0"))


def _records(text: str) -> int:
    count = _count(text)
    return int(_number(text, count if count <= PACKET_RECORDS else 0, f"between 1 and {PACKET_RECORDS}"))


def _number(text: str, value: float, right: str) -> float:
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not {right}")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-11-21T08:00:00+00:00") from None
