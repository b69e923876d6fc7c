"""The signature of a body that is posted to another system, so that it can tell who sent it, and when.

``X-Signature: t=<unix seconds>,sha256=<hex>``: HMAC-SHA256, with the shared secret as key, of the seconds as text, a
dot, and the body. The receiver compares the signature in constant time, and refuses what is older than some minutes.
"""

from __future__ import annotations

import hashlib
import hmac

HEADER = "X-Signature"


def sign(secret: str, body: bytes, now: float) -> str:
    """The value of the header, for a body that is sent ``now`` (UNIX seconds)."""
    seconds = str(int(now))
    digest = hmac.new(secret.encode(), seconds.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={seconds},sha256={digest}"
