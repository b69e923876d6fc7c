"""What a TLS listener shows of itself: key, certificate and authorities from files, read again when they change.

A renewed certificate is found at a handshake, a few seconds later at most. Where the new files do not fit together
(half written, a key of another certificate), what was there before stays in use, and the next change is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from attrs import define, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from gateway import metrics
from gateway.channel.pem import PrivateKey, certificates, date_of, private_key, read
from gateway.errors import ConfigError

LOOK_EVERY = 5.0
"""Seconds between two looks at the files' dates."""
DAY = 86400.0
WARN_BEFORE = 14 * DAY
"""A certificate that ends so soon should have been renewed: programs that renew them do it 30 days before."""
VERSIONS = {
    "1.0": SSL.TLS1_VERSION,
    "1.1": SSL.TLS1_1_VERSION,
    "1.2": SSL.TLS1_2_VERSION,
    "1.3": SSL.TLS1_3_VERSION,
}
CIPHERS = (
    "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:RSA+AESGCM:RSA+AES"
    ":!aNULL:!eNULL:!MD5:!DSS:!PSK:!SRP"
)
"""For TLS 1.2 and below, in our order; those of 1.3 are OpenSSL's own. Key exchange by RSA and AES-CBC come last, for
firmware that has nothing else."""
WEAK = ":@SECLEVEL=0"
"""TLS 1.0 and 1.1 sign with SHA-1, which OpenSSL does at no higher level."""


@frozen
class TlsFiles:
    """Paths, by the names that they have in an endpoint string; empty: there is none."""

    privateKey: str = "server.pem"
    certKey: str = ""
    extraCertChain: str = ""
    clientCA: str = ""
    dhParameters: str = ""


@frozen
class TlsOptions:
    """``min_version`` is one of VERSIONS."""

    files: TlsFiles
    min_version: str = "1.2"


@define
class Loaded:
    """A context that is ready for handshakes; ``expires`` (UNIX seconds) and ``subject`` are its certificate's."""

    context: SSL.Context
    subject: str
    expires: float


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """Makes the TLS side of each connection on ``where``, an endpoint. Raises ConfigError where it cannot begin."""

    log = Logger()

    def __init__(
        self,
        options: TlsOptions,
        where: str,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``now`` never jumps, ``wall`` is the time of day."""
        self._options = options
        self._where = where
        self._now = now
        self._wall = wall
        self._next_look = now() + LOOK_EVERY
        self._next_warning = 0.0
        self._seen = self._dates()
        self._loaded = load(options)
        self._warn_of_the_end()

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """With the certificate of today."""
        return SSL.Connection(self.context(), None)

    def context(self) -> SSL.Context:
        """The one to use for the next handshake. Never raises."""
        if self._now() >= self._next_look:
            self._next_look = self._now() + LOOK_EVERY
            self._look()
        return self._loaded.context

    def _look(self) -> None:
        dates = self._dates()
        if dates != self._seen:
            self._seen = dates
            self._load_again()
        self._warn_of_the_end()

    def _load_again(self) -> None:
        try:
            self._loaded = load(self._options)
        except ConfigError as error:
            metrics.count("tls_reload_failures")
            self.log.error(
                "{where}: its files have changed and cannot be used, the certificate from before stays: {error}",
                where=self._where, error=str(error),
            )  # fmt: skip
            return
        self._next_warning = 0.0
        self.log.info(
            "{where}: uses a new certificate, {subject}, valid until {until}",
            where=self._where, subject=self._loaded.subject, until=_date(self._loaded.expires),
        )  # fmt: skip

    def _dates(self) -> list[tuple[int, ...] | None]:
        """What differs when a file is another one, or was written again."""
        files = self._options.files
        paths = (files.privateKey, files.certKey, files.extraCertChain, files.clientCA, files.dhParameters)
        return [date_of(path) for path in paths if path]

    def _warn_of_the_end(self) -> None:
        now = self._wall()
        if now < self._next_warning or self._loaded.expires - now > WARN_BEFORE:
            return
        self._next_warning = now + DAY
        self.log.warn(
            "{where}: the certificate {subject} {ends} on {until}: trackers that check it cannot connect then",
            where=self._where, subject=self._loaded.subject, until=_date(self._loaded.expires),
            ends="ends" if now < self._loaded.expires else "ended",
        )  # fmt: skip


def load(options: TlsOptions) -> Loaded:
    """Read all files. Raises ConfigError that names the file, and what would be right."""
    files = options.files
    key = private_key(files.privateKey)
    name, path = ("certKey", files.certKey) if files.certKey else ("privateKey", files.privateKey)
    chain = certificates(name, path)
    if files.extraCertChain:
        chain += certificates("extraCertChain", files.extraCertChain)
    authorities = certificates("clientCA", files.clientCA) if files.clientCA else []
    try:
        if _public(key.public_key()) != _public(chain[0].public_key()):
            raise ConfigError(
                f"privateKey={files.privateKey} does not belong to {name}={path}, whose first certificate is "
                f"{_name(chain[0])}: the first one must be this server's own"
            )
        context = _context(options, key, chain, authorities)
        return Loaded(context, _name(chain[0]), chain[0].not_valid_after_utc.timestamp())
    except (SSL.Error, crypto.Error) as error:
        raise ConfigError(f"OpenSSL refuses {name}={path}: {reason_of(error)}") from error
    except (ValueError, UnsupportedAlgorithm) as error:  # what cryptography reads only when it is asked for
        raise ConfigError(f"{name}={path} has a certificate that cannot be used: {error}") from error


def reason_of(error: SSL.Error | crypto.Error) -> str:
    """OpenSSL's own words, such as "no shared cipher"; empty where it has none."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(entries[-1][-1]) if entries else ""


def _context(
    options: TlsOptions,
    key: PrivateKey,
    chain: list[x509.Certificate],
    authorities: list[x509.Certificate],
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(VERSIONS[options.min_version])
    is_weak = options.min_version in ("1.0", "1.1")
    context.set_cipher_list((CIPHERS + WEAK if is_weak else CIPHERS).encode())  # first: the level measures certificates
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle connection holds no buffers
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(chain[0])
    context.use_privatekey(key)
    for certificate in chain[1:]:
        context.add_extra_chain_cert(certificate)
    if options.files.dhParameters:
        _use_dh_parameters(context, options.files.dhParameters)
    if authorities:
        _require_client_certificate(context, authorities)
    return context


def _use_dh_parameters(context: SSL.Context, path: str) -> None:
    read("dhParameters", path)  # OpenSSL reads it by itself, and would wait for a pipe
    try:
        context.load_tmp_dh(path)
    except SSL.Error as error:
        raise ConfigError(
            f"dhParameters={path} has no parameters that OpenSSL takes: right is what openssl dhparam 2048 writes"
        ) from error


def _require_client_certificate(context: SSL.Context, authorities: list[x509.Certificate]) -> None:
    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)  # an intermediate authority can be trusted by itself
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _as_openssl_says)


def _as_openssl_says(_connection: SSL.Connection, _certificate: crypto.X509, _error: int, _depth: int, ok: int) -> bool:
    return bool(ok)


def _public(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return]


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"serial number {certificate.serial_number:x}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
