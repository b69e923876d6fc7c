"""Certificates for tests: authorities, and what they sign."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@attrs.frozen
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, passphrase: bytes = b"") -> bytes:
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def write(self, certificate: Path, key: Path) -> None:
        """Each as a whole, as programs that renew certificates do."""
        _replace(certificate, self.pem)
        _replace(key, self.key_pem())


def _replace(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


class Authority:
    """Signs certificates; ``above`` is the authority that signed its own, itself where there is none."""

    def __init__(self, name: str, above: Authority | None = None) -> None:
        key = ec_key()
        builder = _builder(name, key, above.own if above is not None else None)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        signer = above.own.key if above is not None else key
        self.own = Signed(builder.sign(signer, hashes.SHA256()), key)

    @property
    def pem(self) -> bytes:
        return self.own.pem

    def sign(
        self,
        name: str,
        make_key: Callable[[], Any] = ec_key,
        ends: timedelta = DAY * 90,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> Signed:
        """For 127.0.0.1; ``ends`` from now, also in the past."""
        key = make_key()
        builder = _builder(name, key, self.own, datetime.now(UTC) + ends)
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return Signed(builder.sign(self.own.key, hashes.SHA256()), key)

    def sign_client(self, name: str) -> Signed:
        return self.sign(name, usage=ExtendedKeyUsageOID.CLIENT_AUTH)


def _builder(name: str, key: Any, signer: Signed | None, end: datetime | None = None) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = end or datetime.now(UTC) + DAY * 365
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(datetime.now(UTC), end) - DAY)
        .not_valid_after(end)
    )
