"""TLS towards targets, for clients that take an ``SSLContext``."""

from __future__ import annotations

import asyncio
import ssl
from typing import Annotated

from msgspec import Meta

from gateway import web
from gateway.errors import ConfigError, ItemError

CaFile = Annotated[str, Meta(max_length=1024, description="certificates to trust (PEM); empty: the system's")]
CertFile = Annotated[str, Meta(max_length=1024, description="our own certificate (PEM), if the server wants one")]
KeyFile = Annotated[str, Meta(max_length=1024, description="its key (PEM, no passphrase); empty: it is in cert_file")]


def check_files(is_tls: bool, scheme: str, **files: str) -> None:
    """Files for TLS without TLS, and a key without a certificate, are mistakes. Raises ItemError."""
    for option, path in files.items():
        if path and not is_tls:
            raise ItemError(f"has no effect without {scheme}://", f"configuration.{option}")
        if not path.isprintable():
            raise ItemError("should be the path of a file", f"configuration.{option}")
    if files.get("key_file") and not files.get("cert_file"):
        raise ItemError("needs a cert_file", "configuration.key_file")


async def tls_context(ca_file: str = "", cert_file: str = "", key_file: str = "") -> ssl.SSLContext:
    """For a client that checks the server's name. Raises ConfigError that names the file."""
    return await asyncio.to_thread(_context, ca_file, cert_file, key_file)


def _context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    context = web.tls_context(ca_file)
    if cert_file:
        try:
            web.check_pem(cert_file, key_file)
            # without a passphrase OpenSSL would ask for one at the terminal
            context.load_cert_chain(cert_file, key_file or None, password="")
        except (OSError, ValueError, ssl.SSLError) as error:
            raise ConfigError(f"cert_file {cert_file!r} should be a certificate with its key (PEM): {error}") from None
    return context
