"""Node-to-node TLS: who a peer is, as its certificate says, and the contexts both node-to-node ports share.

A server's certificate carries the DNS name `<node>.server.<datacenter>.<domain>`, which `quorumca tls cert create
-server -node` makes, as Consul's does. Names of another role, datacenter or CA get nowhere.

`load_pair` is how every certificate and key of this program gets into a TLS context.
"""

import contextlib
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from cluster.base.names import is_node_name
from cluster.base.words import plain
from cluster.tls.keys import KEY_BYTES, first_certificate, hashes_of_file, key_from, shown_by, verified_chain

T = TypeVar("T")

_KNOWN_CERTIFICATES: Final = 64
#: Of what a client sends until it is known: eight certificates with keys of RSA 4096 fit, and servers have one or two.
MAX_HANDSHAKE_BYTES: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files: trusted CA, this node's certificate (with its chain) and key."""

    ca: str
    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file, and the setting that names it: a person needs both to mend it."""

    setting: str
    path: str | Path

    def __str__(self) -> str:
        return f"{self.setting} {self.path}"


class TlsFileRefused(ssl.SSLError):
    """A file that cannot be used. The text says which, by which setting, why, and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(ssl.SSLErrorNumber.SSL_ERROR_SSL, text)  # `str` gives the text only if a number goes with it


@dataclass(frozen=True, slots=True)
class _Found:
    """What a node's files hold."""

    certificate: bytes  # DER
    key: bytes
    anchors: frozenset[bytes]
    name: str | None
    #: Why the other servers would refuse the certificate; empty: they would not.
    fault: str


class NodeTls:
    """This node's identity, and how it recognises others. Contexts keep working while `reload` replaces the files."""

    def __init__(self, files: TlsFiles, datacenter: str, domain: str, node_name: str | None = None) -> None:
        """`node_name`: as configured, for which certificates are taken; not needed without `reload`.

        Raises: TlsFileRefused.
        """
        self._ca = PemFile("tls.ca_file", files.ca)
        self._cert = PemFile("tls.cert_file", files.cert)
        self._key = PemFile("tls.key_file", files.key)
        self._suffix = f".server.{datacenter}.{domain}"
        self._name = node_name
        self.server_context = _context(ssl.PROTOCOL_TLS_SERVER)
        self.client_context = _context(ssl.PROTOCOL_TLS_CLIENT)
        #: With this node's certificate, and without asking for one: of machines that have none yet.
        self.open_context = _context(ssl.PROTOCOL_TLS_SERVER)
        self.open_context.verify_mode = ssl.CERT_NONE
        #: By certificate and trusted CA, a few: RPC asks for every request.
        self._keys: dict[tuple[bytes, bytes], bytes] = {}
        #: This node's own, as others see it (`keys.py`), and those of the CAs that it trusts.
        self.key = bytes(KEY_BYTES)
        self.anchors: frozenset[bytes] = frozenset()
        self._certificate = b""
        # A node starts with whatever it has, an expired one too: there is no other one to keep, and it takes a better
        # one by itself. But of a valid one of another server nobody would hear: both sides only refuse it.
        found = self._read()
        if not found.fault and found.name is not None and (whose := self._not_its_own(found)):
            raise TlsFileRefused(f"{self._cert} {whose}. {self._wanted()}")
        self._take(found)

    def reload(self, key: bytes | None = None) -> None:
        """Read the files again, for the connections made from now on. `key`: the one that the caller has read there.

        Raises: TlsFileRefused; then what was in use stays in use.
        """
        # First into some that nobody uses: a pair that is refused leaves half of it in the context.
        found = self._acceptable()
        if key is not None and found.key != key:
            raise TlsFileRefused(f"{self._cert} has changed again: it is looked at anew")
        self._take(found)

    def read_key(self) -> bytes:
        """This node's key by the files as they are now, which `reload` would take into use. Raises: TlsFileRefused."""
        return self._acceptable().key

    def _take(self, found: _Found) -> None:
        for context in (self.server_context, self.client_context):
            load_authorities(context, self._ca)
            load_pair(context, self._cert, self._key)
        load_pair(self.open_context, self._cert, self._key)
        # A context forgets no CA.
        self.key, self.anchors = found.key, self.anchors | found.anchors
        self._certificate = found.certificate

    def _acceptable(self) -> _Found:
        """A certificate that the other servers refuse never takes the place of one that they accept: its key would be
        announced, and could not be shown, so that they would know this server by neither.

        Raises: TlsFileRefused.
        """
        found = self._read()
        if found.certificate == self._certificate:
            # It is the one in use. It may have expired since, or been no server's from the start.
            return replace(found, key=self.key) if found.fault else found
        refused = f"would be refused by every other server: {found.fault}" if found.fault else ""
        fault = refused or self._not_its_own(found)
        if fault:
            raise TlsFileRefused(f"{self._cert} {fault}. The one in use stays. {self._wanted()}")
        return found

    def _not_its_own(self, found: _Found) -> str:
        """Whose certificate it is instead; empty: it is this server's."""
        if self._name is None or found.name == self._name:
            return ""
        whose = "no server" if found.name is None else self.server_name(found.name)
        return f"is that of {whose}, and this is {self.server_name(self._name)}"

    def _wanted(self) -> str:
        return (
            f"Put one in place that is valid now, is this server's, and is signed by a CA in {self._ca}"
            f" (`quorumca tls cert create -server -node {self._name or 'NAME'}`)"
        )

    def _read(self) -> _Found:
        """Raises: TlsFileRefused."""
        try:
            chain = self._accepted_chain()
        except TlsFileRefused:
            raise
        except ssl.SSLError as error:
            # It is expired, or of another CA: nobody will accept it. Whoever dials says so, doctor says more.
            certificate = _parsed(self._cert, "certificate", first_certificate)
            key = key_from(certificate, None)
            name, fault = None, getattr(error, "verify_message", "") or plain(error)
        else:
            certificate, key, fault = chain[0], key_from(chain[0], chain[-1]), ""
            name = self.peer_name({"subjectAltName": [("DNS", name) for name in subject_names(self._cert)]})
        return _Found(certificate, key, _parsed(self._ca, "certificate", hashes_of_file), name, fault)

    def _accepted_chain(self) -> tuple[bytes, ...]:
        """Raises: TlsFileRefused, ssl.SSLError."""
        try:
            return self._shown(lambda context: load_authorities(context, self._ca))
        except ssl.SSLCertVerificationError:
            # Of a CA that was taken out of the file, perhaps: the contexts in use forget none.
            if trusted := b"".join(self.client_context.get_ca_certs(binary_form=True)):
                with contextlib.suppress(ssl.SSLCertVerificationError):
                    return self._shown(lambda context: context.load_verify_locations(cadata=trusted))
            raise

    def _shown(self, trust: Callable[[ssl.SSLContext], None]) -> tuple[bytes, ...]:
        """The chain by which others with this trust accept the certificate. Raises: TlsFileRefused, ssl.SSLError."""
        server, client = _context(ssl.PROTOCOL_TLS_SERVER), _context(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False  # its own name is what the certificate says
        for context in (server, client):
            trust(context)
            load_pair(context, self._cert, self._key)
        return shown_by(server, client)

    def peer_key(self, connection: Any) -> bytes:
        """The key of a peer's verified certificate (`keys.py`); `connection` is an `SSLObject`. Raises: ValueError."""
        chain = verified_chain(connection)
        ends = chain[0], chain[-1]
        found = self._keys.get(ends)
        if found is None:
            if len(self._keys) >= _KNOWN_CERTIFICATES:
                self._keys.clear()
            found = self._keys[ends] = key_from(*ends)
        return found

    def server_name(self, node: str) -> str:
        """The name that `node`'s certificate must carry."""
        return node + self._suffix

    def peer_name(self, certificate: Mapping[str, Any] | None) -> str | None:
        """The server of this datacenter that a verified certificate names, or None.

        `certificate` is what `SSLObject.getpeercert()` returns.
        """
        alternatives = (certificate or {}).get("subjectAltName", ())
        names = {
            value.removesuffix(self._suffix)
            for kind, value in alternatives
            if kind == "DNS" and value.endswith(self._suffix)
        }
        names = {name for name in names if is_node_name(name)}
        return names.pop() if len(names) == 1 else None


class _HandshakeTooLarge(ssl.SSLError):
    """The other side is ended as by every other handshake that fails."""


class _BoundedHandshake(ssl.SSLObject):
    """OpenSSL takes 100 KB of certificates from anybody, and reads every key in them before it asks whom they are from:
    as long as sixty handshakes take. Python has no setting for that, so what has arrived is counted here.
    """

    arriving: ssl.MemoryBIO
    _taken = 0

    def do_handshake(self) -> None:
        data = self.arriving.read()
        taken, rest = data[: MAX_HANDSHAKE_BYTES - self._taken], data[MAX_HANDSHAKE_BYTES - self._taken :]
        self._taken += len(taken)
        self.arriving.write(taken)
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            if not rest:
                raise
            raise _HandshakeTooLarge(
                ssl.SSLErrorNumber.SSL_ERROR_SSL, f"the handshake has more than {MAX_HANDSHAKE_BYTES} bytes"
            ) from None
        self.arriving.write(rest)  # what follows the handshake, and may be long


class _ServerContext(ssl.SSLContext):
    """For servers in an event loop, whose connections are made with `wrap_bio`."""

    sslobject_class = _BoundedHandshake

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, _BoundedHandshake)  # see above
        made.arriving = incoming
        return made


def _context(protocol: int) -> ssl.SSLContext:
    context = (_ServerContext if protocol == ssl.PROTOCOL_TLS_SERVER else ssl.SSLContext)(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # Tickets would let a connection be resumed after its certificate has expired or its CA was replaced.
        context.num_tickets = 0
    return context


def load_pair(context: ssl.SSLContext, cert: PemFile, key: PemFile) -> None:
    """Take a certificate with its chain, and its key. Raises: TlsFileRefused; then the context may hold half of them.

    Left to itself, OpenSSL asks for a passphrase at the terminal, and the thread that loads the key waits there.
    """

    def refuse() -> NoReturn:
        raise TlsFileRefused(_encrypted(key))

    try:
        context.load_cert_chain(cert.path, key.path, refuse)
    except TlsFileRefused:
        raise
    except OSError as error:  # ssl.SSLError is one
        raise TlsFileRefused(_reason(cert, key, error)) from error


def load_authorities(context: ssl.SSLContext, file: PemFile) -> None:
    """Trust the CAs in a file, too. Raises: TlsFileRefused."""
    try:
        context.load_verify_locations(file.path)
    except OSError as error:  # ssl.SSLError is one
        raise TlsFileRefused(no_authorities(file, error)) from error


def no_authorities(file: PemFile, error: OSError) -> str:
    """Why a file of CAs could not be taken, from what OpenSSL raised."""
    if not isinstance(error, ssl.SSLError):
        return f"{file} cannot be read: {plain(error)}"
    if getattr(error, "reason", None) in (None, "NO_CERTIFICATE_OR_CRL_FOUND", "NO_START_LINE"):
        return f"{file} holds no certificate (PEM)"
    return f"{file} holds a certificate that cannot be used: {plain(error)}"


def subject_names(cert: PemFile) -> tuple[str, ...]:
    """The DNS names and IP addresses that the first certificate in the file is for. Raises: TlsFileRefused."""
    from cryptography import x509

    chain = _parsed(cert, "certificate", x509.load_pem_x509_certificates)
    try:
        names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except ValueError as error:
        raise TlsFileRefused(f"{cert} has subject alternative names that cannot be read: {error}") from error
    addresses = (str(address) for address in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def _encrypted(key: PemFile) -> str:
    return (
        f"{key} is encrypted: Quorum CA takes keys without a passphrase; remove it with"
        f" `openssl pkey -in {key.path} -out FILE` and protect the file by its mode (chmod 600)"
    )


def _reason(cert: PemFile, key: PemFile, error: OSError) -> str:
    """What is wrong with which of the two; OpenSSL says neither."""
    # Here and not above: it takes long to import, and commands without trouble do not need it.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        chain = _parsed(cert, "certificate", x509.load_pem_x509_certificates)
        private_key: Any = _parsed(key, "private key", lambda pem: load_pem_private_key(pem, None))
    except TlsFileRefused as refused:
        return str(refused)
    if chain[0].public_key() != private_key.public_key():
        return f"{key} is not the key of {cert}"
    return f"{cert} and {key} cannot be used: {plain(error)}"


def _parsed(file: PemFile, content: str, parse: Callable[[bytes], T]) -> T:
    """Raises: TlsFileRefused."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return parse(Path(file.path).read_bytes())
    except OSError as error:
        raise TlsFileRefused(f"{file} cannot be read: {plain(error)}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TlsFileRefused(f"{file} holds no {content} (PEM)") from error
