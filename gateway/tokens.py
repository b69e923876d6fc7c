"""The master token: configured, or generated at the first start."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from gateway.errors import OperatorError
from gateway.store.tokens import ALPHABET, KEY_LENGTH, KEY_MOST


def master_token(configured: str, data_dir: Path) -> tuple[str, Path | None]:
    """The token, and the file that it stands in unless it is configured. Raises OperatorError."""
    if configured:
        return _checked(configured, "auth.token"), None
    path = data_dir / "token"
    try:
        return (_read(path) if path.exists() else _generate(path)), path
    except OSError as error:
        raise OperatorError(
            f"{path}: the token cannot be kept there: {error}; set gateway.data_dir or auth.token"
        ) from None


def _read(path: Path) -> str:
    token = path.read_text(errors="replace").strip()
    if not token:
        raise OperatorError(f"{path}: empty; delete it, and a new token is generated")
    return _checked(token, str(path))


def _checked(token: str, where: str) -> str:
    """What no client could send is not taken for a token."""
    if len(token) > KEY_MOST or not token.isascii() or not token.isprintable() or " " in token:
        raise OperatorError(f"{where}: a token has up to {KEY_MOST} printable ASCII characters, none of them a space")
    return token


def _generate(path: Path) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = "".join(secrets.choice(ALPHABET) for _ in range(KEY_LENGTH))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token + "\n")
    return token
