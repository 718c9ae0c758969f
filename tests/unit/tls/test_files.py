"""Certificates and keys that cannot be used: nobody is asked for a passphrase, and the text says what to mend."""

import contextlib
import shutil
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from cluster.base.config import HttpSection
from cluster.client.api import TlsOptions
from cluster.client.errors import CommandError
from cluster.http.app import _tls_context
from cluster.tls.contexts import TlsFileRefused
from providers.errors import ConfigInvalid
from providers.vault.config import TLSOptions
from providers.vault.files import CredentialFiles
from providers.vault.transport import tls_context
from tests.kit.rpc_nodes import node_tls
from tests.kit.tls_files import ENCRYPTED_FORMS, encrypted

_PASSPHRASE = (
    " is encrypted: Quorum CA takes keys without a passphrase; remove it with `openssl pkey -in {key} -out FILE` and"
    " protect the file by its mode (chmod 600)"
)


@pytest.fixture
def files(tls_directory: Path, tmp_path: Path) -> Path:
    """The test's own copies."""
    return Path(shutil.copytree(tls_directory, tmp_path / "tls"))


def _plain(key: PrivateKeyTypes, encoding: serialization.Encoding) -> bytes:
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _other_kind_of_key(files: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    (files / "a.key").write_bytes(_plain(key, serialization.Encoding.PEM))


def _encrypt(form: str, files: Path) -> None:
    (files / "a.key").write_bytes(encrypted((files / "a.key").read_bytes(), form))


def _der(files: Path) -> None:
    key = serialization.load_pem_private_key((files / "a.key").read_bytes(), None)
    (files / "a.key").write_bytes(_plain(key, serialization.Encoding.DER))


def _weak(files: Path) -> None:
    """Well-formed and fitting, and OpenSSL does not want it."""
    key = rsa.generate_private_key(65537, 1024)
    name, now = x509.Name([]), datetime.now(UTC)
    cert = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    (files / "a.pem").write_bytes(cert.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (files / "a.key").write_bytes(_plain(key, serialization.Encoding.PEM))


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


#: What is done to the files of node `a`, and what is said of certificate or key.
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    **{f"encrypted-{form}": (partial(_encrypt, form), "{key_setting} {key}" + _PASSPHRASE) for form in ENCRYPTED_FORMS},
    "key-missing": (
        lambda files: (files / "a.key").unlink(),
        "{key_setting} {key} cannot be read: No such file or directory",
    ),
    "key-directory": (lambda files: _directory(files / "a.key"), "{key_setting} {key} cannot be read: Is a directory"),
    "key-empty": (lambda files: (files / "a.key").write_text(""), "{key_setting} {key} holds no private key (PEM)"),
    "key-der": (_der, "{key_setting} {key} holds no private key (PEM)"),
    "key-is-the-certificate": (
        lambda files: shutil.copy(files / "a.pem", files / "a.key"),
        "{key_setting} {key} holds no private key (PEM)",
    ),
    "key-of-another": (
        lambda files: shutil.copy(files / "b.key", files / "a.key"),
        "{key_setting} {key} is not the key of {cert_setting} {cert}",
    ),
    "key-of-another-kind": (_other_kind_of_key, "{key_setting} {key} is not the key of {cert_setting} {cert}"),
    "certificate-missing": (
        lambda files: (files / "a.pem").unlink(),
        "{cert_setting} {cert} cannot be read: No such file or directory",
    ),
    "certificate-no-pem": (
        lambda files: (files / "a.pem").write_text("no certificate"),
        "{cert_setting} {cert} holds no certificate (PEM)",
    ),
    "certificate-is-the-key": (
        lambda files: shutil.copy(files / "a.key", files / "a.pem"),
        "{cert_setting} {cert} holds no certificate (PEM)",
    ),
    "weak": (
        _weak,
        "{cert_setting} {cert} and {key_setting} {key} cannot be used: the key is too small: must be RSA of",
    ),
}


def _of_node(files: Path) -> None:
    node_tls(files, "a")


def _of_http(files: Path) -> None:
    _tls_context(HttpSection(tls_cert=files / "a.pem", tls_key=files / "a.key"))


def _of_commands(files: Path) -> None:
    TlsOptions(cert_file=str(files / "a.pem"), key_file=str(files / "a.key")).context()


#: Who takes a pair, what the settings are called there, and which error its callers expect.
TAKERS: dict[str, tuple[Callable[[Path], None], str, str, type[Exception]]] = {
    "node": (_of_node, "tls.cert_file", "tls.key_file", TlsFileRefused),
    "http": (_of_http, "http.tls_cert", "http.tls_key", TlsFileRefused),
    "commands": (_of_commands, "--client-cert", "--client-key", CommandError),
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("name", BROKEN)
def test_pair_that_cannot_be_used_is_named(files: Path, taker: str, name: str) -> None:
    take, cert_setting, key_setting, error = TAKERS[taker]
    take(files)
    do, text = BROKEN[name]
    do(files)
    with pytest.raises(error) as refused:
        take(files)
    expected = text.format(
        cert_setting=cert_setting, key_setting=key_setting, cert=files / "a.pem", key=files / "a.key"
    )
    assert str(refused.value).startswith(expected), str(refused.value)


def test_refusal_is_an_error_that_whoever_loads_files_expects(files: Path) -> None:
    """The node's start and its upkeep catch these."""
    assert issubclass(TlsFileRefused, ssl.SSLError)
    assert issubclass(TlsFileRefused, OSError)
    assert str(TlsFileRefused("what is wrong")) == "what is wrong"


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "cannot be read: No such file or directory"), ("no certificate", "holds no certificate (PEM)")],
)
def test_trusted_cas_that_cannot_be_used_are_named(files: Path, content: str | None, text: str) -> None:
    (files / "ca.pem").unlink() if content is None else (files / "ca.pem").write_text(content)
    with pytest.raises(TlsFileRefused) as refused:
        node_tls(files, "a")
    assert str(refused.value).startswith(f"tls.ca_file {files / 'ca.pem'} {text}")


@pytest.mark.parametrize("form", ENCRYPTED_FORMS)
def test_key_for_vault_under_a_passphrase_is_refused(files: Path, form: str) -> None:
    key = files / "a.key"
    options = TLSOptions(cert_file=str(files / "a.pem"), key_file=str(key), files=CredentialFiles(str(files)))
    tls_context(options)
    key.write_bytes(encrypted(key.read_bytes(), form))
    with pytest.raises(ConfigInvalid, match=f"^KeyFile {key} is encrypted: it must be given without a passphrase$"):
        tls_context(options)


# -- while they are in use


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> bytes | None:
    """The server's certificate. Raises: ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].getpeercert(binary_form=True)


def _half_of_a_new_pair(files: Path) -> None:
    """A certificate whose key is not there yet."""
    shutil.copy(files / "next.pem", files / "a.pem")


def _new_pair_under_a_passphrase(files: Path) -> None:
    shutil.copy(files / "next.pem", files / "a.pem")
    (files / "a.key").write_bytes(encrypted((files / "next.key").read_bytes(), "pkcs8"))


@pytest.mark.parametrize("do", [_half_of_a_new_pair, _new_pair_under_a_passphrase])
def test_refused_pair_leaves_a_node_with_the_one_it_has(files: Path, do: Callable[[Path], None]) -> None:
    """Both as who is dialled and as who dials: it keeps its old name, and is let in with it."""
    tls, peer = node_tls(files, "a"), node_tls(files, "c")
    old = _handshake(tls.server_context, peer.client_context, "a.server.dc1.consul")
    do(files)
    with pytest.raises(TlsFileRefused):
        tls.reload()
    assert _handshake(tls.server_context, peer.client_context, "a.server.dc1.consul") == old
    assert _handshake(peer.server_context, tls.client_context, "c.server.dc1.consul")
    shutil.copy(files / "next.key", files / "a.key")
    tls.reload()
    assert _handshake(tls.server_context, peer.client_context, "a.server.dc1.consul") != old
