"""The settings: defaults here, then the file, then the environment (``GATEWAY_<SECTION>_<KEY>``).

They are read once, by :func:`load`; what there is stands in ``settings``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attrs import Attribute, fields

from gateway.channel.endpoints import LISTEN_KINDS
from gateway.errors import ConfigError
from gateway.settings import (
    ApiSection,
    AuthSection,
    ChannelSection,
    DeviceSection,
    GatewaySection,
    LimitsSection,
    MqttSection,
    RedisSection,
    Settings,
    endpoint,
)

SECTIONS: dict[str, type[Any]] = {
    "gateway": GatewaySection,
    "redis": RedisSection,
    "mqtt": MqttSection,
    "api": ApiSection,
    "auth": AuthSection,
    "limits": LimitsSection,
}
LISTS: dict[str, type[Any]] = {"channels": ChannelSection, "devices": DeviceSection}
SECRETS = ("url", "token")
"""Keys whose values may hold a password and are not repeated in an error."""
FOREIGN_VARIABLES = ("GATEWAY_SERVICE_", "GATEWAY_PORT")
"""What Kubernetes and Docker set in every container beside a service that is called "gateway"."""
OTHER_VARIABLES = ("GATEWAY_CONF", "GATEWAY_URL", "GATEWAY_TOKEN")
"""Ours, but no settings: where the file is, and what ``gateway.admin`` speaks to."""
DEFAULT_CHANNELS = [ChannelSection(name="teltonika", listen=["tcp:5027", "udp:5027"])]


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings. Raises ConfigError, whose text names file, section, key, and what would be right."""
    source = str(path) if path is not None else "defaults"
    table = _read(path) if path is not None else {}
    for name in table:
        if name not in SECTIONS and name not in LISTS:
            raise ConfigError(f"{source}: [{name}]: no such section{_nearest(name, [*SECTIONS, *LISTS])}")
    _check_variables(environ)
    values: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        given = _table(source, name, table.get(name, {}))
        values[name] = _section(source, f"[{name}]", kind, {**given, **_from_environment(name, kind, environ)})
    for name, kind in LISTS.items():
        values[name] = _list(source, name, kind, table.get(name))
    if values["channels"] is None:
        values["channels"] = list(DEFAULT_CHANNELS)
    settings = Settings(**{**values, "devices": values["devices"] or []}, source=source)
    _check_names(source, settings)
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; set GATEWAY_CONF to the path of a gateway.toml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


def _table(source: str, name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(f"{source}: {name}: should be a section, [{name}]")
    return given


def _list(source: str, name: str, kind: type[Any], given: Any) -> list[Any] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(row, dict) for row in given):
        raise ConfigError(f"{source}: {name}: should be written [[{name}]], once for each")
    return [_section(source, f"[[{name}]] number {n}", kind, row) for n, row in enumerate(given, 1)]


def _section(source: str, where: str, kind: type[Any], given: Mapping[str, Any]) -> Any:
    known = {attribute.name: attribute for attribute in fields(kind)}
    values = {}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(f"{source}: {where} {key}: no such key{_nearest(key, known)}")
        values[key] = _checked(source, where, known[key], value)
    return kind(**values)


def _checked(source: str, where: str, attribute: Attribute[Any], value: Any) -> Any:
    place = f"{source}: {where} {attribute.name}"
    kind = str(attribute.type)
    if kind == "float" and type(value) is int:
        value = float(value)
    right_types: dict[str, tuple[Callable[[Any], bool], str]] = {
        "str": (lambda v: isinstance(v, str), "a text in quotes"),
        "int": (lambda v: type(v) is int, "a whole number"),
        "float": (lambda v: type(v) is float, "a number"),
        "bool": (lambda v: type(v) is bool, "true or false"),
        "list[str]": (_is_texts, 'a list of endpoints such as ["tcp:5027", "udp:5027"]'),
    }
    is_right, wanted = right_types[kind]
    shown = "the value" if attribute.name in SECRETS else repr(value)
    if not is_right(value):
        raise ConfigError(f"{place}: {shown} should be {wanted}")
    problem = attribute.metadata["check"](value) if attribute.metadata.get("check") else None
    if problem is not None:
        raise ConfigError(f"{place}: {shown} should be {problem}")
    return value


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _from_environment(section: str, kind: type[Any], environ: Mapping[str, str]) -> dict[str, Any]:
    prefix = f"GATEWAY_{section.upper()}_"
    known = {attribute.name: attribute for attribute in fields(kind)}
    given = {}
    for variable, text in environ.items():
        if not variable.startswith(prefix):
            continue
        key = variable[len(prefix) :].lower()
        if key not in known:
            raise ConfigError(f"environment: {variable}: [{section}] has no key {key}{_nearest(key, known)}")
        given[key] = _checked("environment", variable, known[key], _parsed(str(known[key].type), text))
    return given


def _check_variables(environ: Mapping[str, str]) -> None:
    """A misspelt section would be ignored silently otherwise."""
    for variable in environ:
        section = variable.removeprefix("GATEWAY_").partition("_")[0].lower()
        is_ours = variable.startswith("GATEWAY_") and not variable.startswith(FOREIGN_VARIABLES)
        if is_ours and variable not in OTHER_VARIABLES and section not in SECTIONS:
            raise ConfigError(f"environment: {variable}: no section {section!r}{_nearest(section, SECTIONS)}")


def _parsed(kind: str, text: str) -> Any:
    """The text of a variable as a value of this type; left as text where it is none, so that the check names it."""
    if kind == "bool":
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower(), text)
    try:
        return {"int": int, "float": float}.get(kind, str)(text)
    except ValueError:
        return text


def _check_names(source: str, settings: Settings) -> None:
    names: set[str] = set()
    check = endpoint(*LISTEN_KINDS)
    for n, channel in enumerate(settings.channels, 1):
        where = f"{source}: [[channels]] number {n}"
        if not channel.name or channel.name in names:
            raise ConfigError(f"{where} name: {channel.name!r} should be a name that no other channel has")
        if not channel.listen:
            raise ConfigError(f'{where} listen: missing; should be endpoints such as ["tcp:5027", "udp:5027"]')
        names.add(channel.name)
        for text in channel.listen:
            problem = check(text)
            if problem is not None:
                raise ConfigError(f"{where} listen: {text!r} should be {problem}")
    idents: set[str] = set()
    for n, device in enumerate(settings.devices, 1):
        where = f"{source}: [[devices]] number {n}"
        if not re.fullmatch(r"[0-9]{1,20}", device.ident) or device.ident in idents:
            raise ConfigError(f"{where} ident: {device.ident!r} should be an IMEI (digits) that no other device has")
        idents.add(device.ident)


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"
