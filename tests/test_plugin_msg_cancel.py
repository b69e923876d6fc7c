"""Plugin type msg-cancel: messages that are not registered."""

from __future__ import annotations

import pytest

from gateway.plugin import DropMessage
from tests.plugin_parts import MESSAGE, applied, chain, link, made


def test_every_message_is_dropped() -> None:
    with pytest.raises(DropMessage):
        applied(made("msg-cancel"), {})


def test_those_that_validate_are_dropped_and_the_others_are_not() -> None:
    """flespi's way of a private mode."""
    cancels, trouble = chain(link(made("msg-cancel"), validate="din == 1"))
    assert cancels.process(MESSAGE | {"din": 1}, {}, 0.0) is None
    assert cancels.process(MESSAGE | {"din": 2}, {}, 0.0) == MESSAGE | {"din": 2}
    assert cancels.process(dict(MESSAGE), {}, 0.0) == MESSAGE
    assert [each.is_drop for each in trouble] == [True]
