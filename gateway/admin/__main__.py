"""``python -m gateway.admin``: see ``--help``, or docs/admin.md."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.admin.client import AdminError, Client
from gateway.admin.options import TOKEN_FILE, parse
from gateway.admin.output import Output, printable

TOKEN_BYTES = 4096


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    options = parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # what the terminal's encoding lacks is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(options)
    except AdminError as error:
        _complain(str(error).splitlines())
        return 1
    except BrokenPipeError:
        # whoever read the output has had enough; Python would complain when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace) -> int:
    with Client(options.url, _token(options), options.ca) as client:
        failures = options.run(client, options, Output(options.json))
        sys.stdout.flush()
    for warning in client.warnings:
        print(f"note: {printable(warning)}", file=sys.stderr)
    _complain(failures)
    return 1 if failures else 0


def _complain(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"error: {printable(line)}", file=sys.stderr)


def _token(options: argparse.Namespace) -> str | None:
    """The key; None where none is given, which is enough for ``status``. Raises AdminError."""
    if options.token is not None:
        return _checked(options.token, "the token")
    path: Path = options.token_file or TOKEN_FILE
    try:
        with path.open("rb") as file:
            return _checked(file.read(TOKEN_BYTES).decode("ascii", "replace"), str(path))
    except OSError as error:
        if options.token_file is None:
            return None
        raise AdminError(f"--token-file: {path}: {error.strerror}") from None


def _checked(text: str, what: str) -> str:
    key = text.strip().removeprefix("FlespiToken ").strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise AdminError(f"{what} is no token: it should be one word of letters and digits")
    return key


if __name__ == "__main__":
    sys.exit(main())
