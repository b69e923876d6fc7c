"""TLS towards a broker: whom to trust, and our own certificate. Files are read here, so not on the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOFactory

from gateway.errors import ConfigError
from gateway.web import check_pem

END_CERTIFICATE = b"-----END CERTIFICATE-----"


def tls_options(host: str, ca_file: str = "", cert_file: str = "", key_file: str = "", *, prefix: str = "") -> Any:
    """What ``wrapClientTLS`` takes. ``ca_file`` replaces the system's certificates; the key may stand in ``cert_file``.

    Raises ConfigError, which names the option after ``prefix``.
    """
    own = _own(cert_file, key_file or cert_file, prefix) if cert_file else None
    options = optionsForClientTLS(host, trustRoot=_trust(ca_file, prefix), extraCertificateOptions=own)
    # Twisted would load the system's certificates with the first connection
    factory = TLSMemoryBIOFactory(options, True, Factory.forProtocol(Protocol))
    options.clientConnectionForTLS(factory.buildProtocol(None))
    return options


def _trust(ca_file: str, prefix: str) -> Any:
    if not ca_file:
        return platformTrust()
    try:
        blocks = _read(ca_file).split(END_CERTIFICATE)[:-1]
        certificates = [Certificate.loadPEM(block + END_CERTIFICATE + b"\n") for block in blocks]
    except Exception as error:  # OpenSSL has errors of its own
        raise ConfigError(f"{prefix}ca_file: {ca_file}: {error}") from error
    if not certificates:
        raise ConfigError(f"{prefix}ca_file: {ca_file} should hold certificates in PEM")
    return trustRootFromCertificates(certificates)


def _read(path: str) -> bytes:
    check_pem(path)
    return Path(path).read_bytes()


def _own(cert_file: str, key_file: str, prefix: str) -> dict[str, Any]:
    """As Twisted's CertificateOptions takes it; its own classes wrap what pyOpenSSL does not want any more."""
    try:
        certificate, *chain = load_pem_x509_certificates(_read(cert_file))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{prefix}cert_file: {cert_file} should hold a certificate in PEM: {error}") from None
    try:
        key = load_pem_private_key(_read(key_file), None)
    except (OSError, ValueError, TypeError) as error:  # TypeError: it has a passphrase
        raise ConfigError(f"{prefix}key_file: {key_file} should hold a key in PEM: {error}") from None
    if key.public_key() != certificate.public_key():
        raise ConfigError(f"{prefix}key_file: {key_file} holds another key than that of {cert_file}")
    return {"privateKey": key, "certificate": certificate, "extraCertChain": chain}
