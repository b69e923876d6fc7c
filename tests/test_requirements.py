"""What is imported is required: by the gateway, or by the extra of the type of stream that needs it."""

from __future__ import annotations

import re
import sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions

import pytest

from tests.test_layering import NAMES, ROOT, imported, ours

DISTRIBUTIONS = packages_distributions()
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")
TYPES = sorted(name.removeprefix("streams.") for name in NAMES if name.startswith("streams."))


def required(section: str, option: str) -> set[str]:
    """Names of distributions."""
    lines = SETUP.get(section, option, fallback="").split("\n")
    return {_plain(match[0]) for line in lines if (match := re.match(r"[\w.-]+", line.strip()))}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


BASE = required("options", "install_requires")


def beyond_base(*names: str) -> set[str]:
    """What these modules import of others that the gateway does not require."""
    found = {target.split(".")[0] for name in names for target in imported(name)} - sys.stdlib_module_names
    givers = ([_plain(giver) for giver in DISTRIBUTIONS.get(top, [top])] for top in found - {"gateway"})
    return {of_one[0] for of_one in givers if not BASE.intersection(of_one)}


def parts_of(name: str) -> set[str]:
    """A type of stream with all that it imports of ``gateway.stream``."""
    found, left = set(), {name}
    while left:
        found |= left
        left = {part for one in left for part in ours(one) if part.startswith("stream.")} - found
    return found


OF_TYPES = set().union(*(parts_of(f"streams.{name}") for name in TYPES))


def test_the_sources_and_the_requirements_are_found() -> None:
    """Otherwise all that follows would be true of nothing."""
    assert {"msgspec", "zope-interface"} <= BASE
    assert "stream.rabbit" in parts_of("streams.amqp")
    assert {"amqp", "http"} <= set(TYPES)


def test_what_is_imported_is_required() -> None:
    wrong = {name: missing for name in NAMES if name not in OF_TYPES and (missing := beyond_base(name))}
    assert wrong == {}


@pytest.mark.parametrize("name", TYPES)
def test_the_extra_of_a_type_has_what_it_imports_and_nothing_else(name: str) -> None:
    assert beyond_base(*parts_of(f"streams.{name}")) == required("options.extras_require", name)
