"""docs/commands.md tells the truth: its tables are those of the code, its numbers too."""

from __future__ import annotations

import re

import pytest

from docs.commands_tables import PAGE, with_tables
from gateway.store import command, commands, conversation, settings

TEXT = " ".join(PAGE.read_text().split())


def test_the_tables_are_current() -> None:
    """``python docs/commands_tables.py`` writes them."""
    assert with_tables(PAGE.read_text()) == PAGE.read_text()


@pytest.mark.parametrize(
    "said",
    [
        f"waits {command.TIMEOUT_LEAST} to {command.TIMEOUT_MOST} s for the answer",
        f"{command.TTL_LEAST} s to {command.TTL_MOST // 86400} days",
        f"has room for {commands.QUEUE_MOST}",
        f"the line rests for {conversation.REST_TIME:g} s",
        f"`max_attempts` ({command.ATTEMPTS_USUAL})",
        f"kept for {commands.RESULTS_TTL // 86400} days, {commands.RESULTS_MOST} results",
    ],
)
def test_the_limits_are_those_of_the_code(said: str) -> None:
    assert said in TEXT


def test_the_number_of_attempts_of_a_setting_is_that_of_the_code() -> None:
    assert settings.ATTEMPTS_MOST == 5
    assert re.search(r"tried five times", TEXT)
    assert command.TTL_USUAL == 86400
