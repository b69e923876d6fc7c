"""The signature of what is posted, checked as the documentation tells receivers to check it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from gateway import signature

PAGE = Path(__file__).parent.parent / "docs" / "plugins.md"
BODY = b'[{"ident":"1"}]'


@pytest.fixture(scope="module")
def is_genuine():
    [code] = re.findall(r"```py\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict = {}
    exec(code, names)
    return names["is_genuine"]


def test_what_was_signed_is_genuine(is_genuine):
    assert is_genuine(b"secret", signature.sign("secret", BODY, time.time()), BODY)


@pytest.mark.parametrize(
    ("secret", "body", "age"), [("other", BODY, 0), ("secret", BODY + b" ", 0), ("secret", BODY, 301)]
)
def test_another_secret_another_body_and_old_ones_are_not(is_genuine, secret, body, age):
    header = signature.sign(secret, BODY, time.time() - age)
    assert not is_genuine(b"secret", header, body)
