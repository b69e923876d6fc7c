"""Key, certificate and authorities from files: what is wrong with them, and what happens when they change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL
from twisted.logger import capturedLogs

from gateway import metrics
from gateway.channel.certificates import LOOK_EVERY, Certificates, TlsFiles, TlsOptions, load
from gateway.errors import ConfigError
from tests.authority import DAY, HOUR, Authority, Signed, rsa_key

AUTHORITY = Authority("Test authority")
WHERE = "ssl:5028"


@attrs.define
class Store:
    """The files of an endpoint, and the time."""

    directory: Path
    time: float = 1000.0

    @property
    def key(self) -> Path:
        return self.directory / "key.pem"

    @property
    def certificate(self) -> Path:
        return self.directory / "cert.pem"

    def options(self, **more: str) -> TlsOptions:
        return TlsOptions(TlsFiles(privateKey=str(self.key), certKey=str(self.certificate), **more))

    def write(self, signed: Signed) -> None:
        signed.write(self.certificate, self.key)

    def open(self) -> Certificates:
        return Certificates(self.options(), WHERE, lambda: self.time)

    def pass_time(self) -> None:
        self.time += LOOK_EVERY


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    made.write(AUTHORITY.sign("first"))
    return made


def shown(context: SSL.Context) -> list[str]:
    """The names in the chain that a client gets."""
    client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    server, client = SSL.Connection(context, None), SSL.Connection(client_context, None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            _step(one, other)
    chain = client.get_peer_cert_chain(as_cryptography=True)
    assert chain is not None
    return [certificate.subject.rfc4514_string() for certificate in chain]


def _step(one: SSL.Connection, other: SSL.Connection) -> None:
    with contextlib.suppress(SSL.WantReadError):
        one.do_handshake()
    with contextlib.suppress(SSL.WantReadError):
        other.bio_write(one.bio_read(65536))


def texts(events: list[dict]) -> list[str]:
    return [event["log_format"].format(**event) for event in events]


def test_a_file_may_hold_the_whole_chain(store):
    """As certbot's fullchain.pem; Twisted's own endpoint reads the first one only."""
    intermediate = Authority("Intermediate", AUTHORITY)
    signed = intermediate.sign("gateway")
    store.write(signed)
    store.certificate.write_bytes(signed.pem + intermediate.pem)
    assert shown(load(store.options()).context) == ["CN=gateway", "CN=Intermediate"]


def test_the_chain_may_be_a_file_of_its_own_and_key_and_certificate_one(store):
    """As Twisted's endpoint has it."""
    intermediate = Authority("Intermediate", AUTHORITY)
    signed = intermediate.sign("gateway")
    store.key.write_bytes(signed.key_pem() + signed.pem)
    chain = store.directory / "chain.pem"
    chain.write_bytes(intermediate.pem)
    options = TlsOptions(TlsFiles(privateKey=str(store.key), extraCertChain=str(chain)))
    assert shown(load(options).context) == ["CN=gateway", "CN=Intermediate"]


def _no_key(store: Store) -> None:
    store.key.unlink()


def _key_is_directory(store: Store) -> None:
    store.key.unlink()
    store.key.mkdir()


def _key_is_pipe(store: Store) -> None:
    store.key.unlink()
    os.mkfifo(store.key)


def _key_is_certificate(store: Store) -> None:
    store.key.write_bytes(store.certificate.read_bytes())


def _key_has_passphrase(store: Store) -> None:
    store.key.write_bytes(AUTHORITY.sign("x").key_pem(b"secret"))


def _key_is_for_something_else(store: Store) -> None:
    key = dsa.generate_private_key(2048)
    store.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _key_of_another(store: Store) -> None:
    store.key.write_bytes(AUTHORITY.sign("other").key_pem())


def _key_too_short(store: Store) -> None:
    store.write(AUTHORITY.sign("weak", lambda: rsa_key(1024)))


def _authority_first(store: Store) -> None:
    store.certificate.write_bytes(AUTHORITY.pem + store.certificate.read_bytes())


def _certificate_is_der(store: Store) -> None:
    store.certificate.write_bytes(AUTHORITY.own.certificate.public_bytes(Encoding.DER))


def _certificate_is_huge(store: Store) -> None:
    store.certificate.write_bytes(b" " * (1024 * 1024 + 1))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_key, r"privateKey=\S+/key.pem: No such file or directory: right is a PEM file"),
        (_key_is_directory, r"privateKey=\S+/key.pem is not a file"),
        (_key_is_pipe, r"privateKey=\S+/key.pem is not a file"),
        (_key_is_certificate, r"privateKey=\S+/key.pem is no private key: .*-----BEGIN PRIVATE KEY-----"),
        (_key_has_passphrase, r"privateKey=\S+/key.pem is encrypted.*openssl pkey"),
        (_key_is_for_something_else, r"privateKey=\S+/key.pem is of a kind that TLS does not use: right is RSA or EC"),
        (_key_of_another, r"privateKey=\S+/key.pem does not belong to certKey=\S+/cert.pem, .* CN=first"),
        (_authority_first, r"does not belong to certKey=\S+/cert.pem, whose first certificate is CN=Test authority"),
        (_key_too_short, r"OpenSSL refuses certKey=\S+/cert.pem: ee key too small"),
        (_certificate_is_der, r"certKey=\S+/cert.pem has no certificate that can be read: right is PEM"),
        (_certificate_is_huge, r"certKey=\S+/cert.pem is larger than 1048576 bytes"),
    ],
)
def test_what_is_wrong_names_the_file_and_what_would_be_right(store, spoil: Callable[[Store], None], said: str):
    """In one line."""
    spoil(store)
    with pytest.raises(ConfigError, match=said) as caught:
        store.open()
    assert "\n" not in str(caught.value)


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Root may read everything, so it takes the rights of another user for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_a_file_that_may_not_be_read_is_named(store, as_nobody):
    """The usual trap: keys belong to root, the gateway runs as somebody else."""
    if os.geteuid() == os.getuid():
        store.key.chmod(0)
    with pytest.raises(ConfigError, match=r"privateKey=\S+/key.pem: Permission denied: .*gateway's user can read"):
        store.open()


@pytest.mark.parametrize("name", ["clientCA", "extraCertChain", "dhParameters"])
def test_the_other_files_are_named_too(store, name: str):
    """By their options."""
    with pytest.raises(ConfigError, match=f"{name}=/nowhere.pem: No such file"):
        load(store.options(**{name: "/nowhere.pem"}))
    with pytest.raises(ConfigError, match=r"is no path of a file"):
        load(store.options(**{name: "/x\0.pem"}))


def test_parameters_for_diffie_hellman_that_are_none(store):
    """OpenSSL opens that file itself, and has an error of its own."""
    with pytest.raises(ConfigError, match=r"dhParameters=\S+/key.pem has no parameters that OpenSSL takes"):
        load(store.options(dhParameters=str(store.key)))


def test_a_renewed_certificate_is_used_from_the_next_handshake_on(store):
    """Not more often looked for than every few seconds; said once."""
    certificates = store.open()
    before = certificates.context()
    store.write(AUTHORITY.sign("second"))
    assert certificates.context() is before
    store.pass_time()
    with capturedLogs() as events:
        assert shown(certificates.context()) == ["CN=second"]
        store.pass_time()
        assert shown(certificates.context()) == ["CN=second"]
    [line] = texts(events)
    assert line.startswith("ssl:5028: uses a new certificate, CN=second, valid until 20")
    assert shown(before) == ["CN=first"]  # whoever is in the middle of it goes on


def test_a_file_that_is_written_again_in_place_counts(store):
    """Not every program renames."""
    certificates = store.open()
    signed = AUTHORITY.sign("second")
    store.certificate.write_bytes(signed.pem)
    store.key.write_bytes(signed.key_pem())
    os.utime(store.key, ns=(1, 1))
    store.pass_time()
    assert shown(certificates.context()) == ["CN=second"]


@pytest.mark.parametrize("spoil", [_no_key, _key_of_another, _certificate_is_der, _key_has_passphrase])
def test_files_that_do_not_fit_leave_the_old_ones_in_use_until_they_do(store, spoil: Callable[[Store], None]):
    """One line and one count for each change, however many trackers come in between."""
    certificates = store.open()
    failures = metrics.value("tls_reload_failures")
    spoil(store)
    with capturedLogs() as events:
        for _ in range(3):
            store.pass_time()
            assert shown(certificates.context()) == ["CN=first"]
    [line] = texts(events)
    assert line.startswith("ssl:5028: its files have changed and cannot be used, the certificate from before stays: ")
    assert metrics.value("tls_reload_failures") == failures + 1
    store.write(AUTHORITY.sign("second"))
    store.pass_time()
    assert shown(certificates.context()) == ["CN=second"]


@pytest.mark.parametrize(
    ("ends", "said"),
    [(timedelta(days=13), "CN=old ends on 20"), (-HOUR, "CN=old ended on 20"), (timedelta(days=15), None)],
)
def test_a_certificate_that_ends_soon_is_warned_of_once_a_day(store, ends: timedelta, said: str | None):
    """A fleet that checks it would be gone at once."""
    store.write(AUTHORITY.sign("old", ends=ends))
    with capturedLogs() as events:
        certificates = store.open()
        for _ in range(3):
            store.pass_time()
            certificates.context()
    lines = texts(events)
    assert len(lines) == (0 if said is None else 1)
    assert said is None or said in lines[0]


def test_the_warning_comes_again_after_a_day_and_ends_with_the_renewal(store):
    """Whoever looks at the log only now and then sees it."""
    signed = AUTHORITY.sign("old", ends=DAY)
    store.write(signed)
    days = [0.0]
    begin = signed.certificate.not_valid_after_utc.timestamp() - 2 * 86400
    with capturedLogs() as events:
        certificates = Certificates(store.options(), WHERE, lambda: store.time, lambda: begin + days[0] * 86400)
        for day in (0.5, 1.0, 1.5, 2.0):
            days[0] = day
            store.pass_time()
            certificates.context()
        assert len(texts(events)) == 3
        store.write(AUTHORITY.sign("new"))
        for day in (3.0, 4.0):
            days[0] = day
            store.pass_time()
            certificates.context()
    assert [line.partition(" ")[2][:10] for line in texts(events)[3:]] == ["uses a new"]
