"""Keys and certificates from PEM files; what is wrong with one is said in a line that names it."""

from __future__ import annotations

import os
import stat

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.errors import ConfigError

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey
FILE_MOST = 1024 * 1024
"""Bytes of a file; a bundle of all public authorities has 200 KB."""


def private_key(path: str) -> PrivateKey:
    """The key in a file. Raises ConfigError."""
    data = read("privateKey", path)
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as error:
        raise ConfigError(
            f"privateKey={path} is encrypted, and nobody is there to type its passphrase: "
            "store it without one (openssl pkey -in FILE -out NEW), readable by the gateway's user alone"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"privateKey={path} is no private key: right is PEM, a block -----BEGIN PRIVATE KEY-----"
        ) from error
    if not isinstance(key, PrivateKey):
        raise ConfigError(f"privateKey={path} is of a kind that TLS does not use: right is RSA or EC")
    return key


def certificates(name: str, path: str) -> list[x509.Certificate]:
    """All certificates in a file, one at least; ``name`` is its option's. Raises ConfigError."""
    data = read(name, path)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise ConfigError(
            f"{name}={path} has no certificate that can be read: right is PEM, blocks -----BEGIN CERTIFICATE-----"
        ) from error


def read(name: str, path: str) -> bytes:
    """A regular file, whole. Raises ConfigError. Never waits, as opening a pipe would."""
    try:
        data = _read_file(path)
    except OSError as error:
        raise ConfigError(
            f"{name}={path}: {error.strerror}: right is a PEM file that the gateway's user can read"
        ) from error
    except ValueError as error:  # a null byte in the path
        raise ConfigError(f"{name}={path!r} is no path of a file") from error
    if data is None:
        raise ConfigError(f"{name}={path} is not a file")
    if len(data) > FILE_MOST:
        raise ConfigError(f"{name}={path} is larger than {FILE_MOST} bytes: right is a PEM file")
    return data


def _read_file(path: str) -> bytes | None:
    """Its first bytes; None: it is something else than a file."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        with open(handle, "rb", closefd=False) as file:
            return file.read(FILE_MOST + 1)
    finally:
        os.close(handle)


def date_of(path: str) -> tuple[int, ...] | None:
    """What differs when the file is another one, or was written again; None: there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
