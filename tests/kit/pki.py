"""Keys, CSRs, hand-made certificates and whole-object assertions shared by all tests of providers/.

Nothing here uses the code under test to make or to judge a certificate, except the plain dataclasses of its API.
"""

import functools
import hashlib
import shutil
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from providers.api import CSRPolicy, IssuedLeaf, LeafRequest, ProviderSettings, RootIntent
from providers.grants import EVERYTHING

CLUSTER_ID = "11111111-2222-3333-4444-555555555555"
TRUST_DOMAIN = f"{CLUSTER_ID}.consul"
ROOT_URI = f"spiffe://{TRUST_DOMAIN}"
WEB = f"{ROOT_URI}/ns/default/dc/dc1/svc/web"
POLICY = CSRPolicy(TRUST_DOMAIN, "dc1")
NOW = 1_800_000_000  # 2027-01-15T08:00:00Z
DAY = 86_400
YEAR = 365 * DAY

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
CURVES: dict[int, type[ec.EllipticCurve]] = {256: ec.SECP256R1, 384: ec.SECP384R1, 521: ec.SECP521R1}
LEAF_KINDS = [("ec", 256), ("ec", 384), ("ec", 521), ("rsa", 2048), ("rsa", 3072)]
CA_KINDS = [("ec", 256), ("ec", 384), ("ec", 521), ("rsa", 2048), ("rsa", 4096)]
HASHES: dict[tuple[str, int], type[hashes.HashAlgorithm]] = {("ec", 384): hashes.SHA384, ("ec", 521): hashes.SHA512}

IDENTITIES = {
    "service": (WEB, "web"),
    "agent": (f"{ROOT_URI}/agent/client/dc/dc1/id/node-1", "node-1"),
    "mesh-gateway": (f"{ROOT_URI}/gateway/mesh/dc/dc1", ""),
}

E = TypeVar("E", bound=x509.ExtensionType)

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not installed")


# --- making ---------------------------------------------------------------------------------------------------------


@functools.cache
def key(kind: str = "ec", bits: int = 256, number: int = 0) -> PrivateKey:
    """A private key; the same arguments give the same key within one run, because making RSA keys is slow."""
    if kind == "ec":
        return ec.generate_private_key(CURVES[bits]())
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def key_pem(private: PrivateKey, form: str = "PKCS8") -> str:
    formats = {
        "PKCS8": serialization.PrivateFormat.PKCS8,
        "traditional": serialization.PrivateFormat.TraditionalOpenSSL,
    }
    data = private.private_bytes(serialization.Encoding.PEM, formats[form], serialization.NoEncryption())
    return data.decode()


def spki(public: object) -> bytes:
    assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_id(public: object) -> bytes:
    return hashlib.sha256(spki(public)).digest()


def alt_names(
    uris: Sequence[str] = (), dns: Sequence[str] = (), ips: Sequence[str] = (), emails: Sequence[str] = ()
) -> list[x509.GeneralName]:
    return [
        *(x509.DNSName(name) for name in dns),
        *(x509.RFC822Name(name) for name in emails),
        *(x509.IPAddress(ip_address(name)) for name in ips),
        *(x509.UniformResourceIdentifier(name) for name in uris),
    ]


def csr_of(
    private: PrivateKey,
    names: Sequence[x509.GeneralName],
    *,
    subject: str = "",
    algorithm: hashes.HashAlgorithm | None = None,
) -> x509.CertificateSigningRequest:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []
    builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name(attributes))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    chosen: hashes.SHA1 | hashes.SHA256 | hashes.HashAlgorithm = algorithm or hashes.SHA256()
    return builder.sign(private, chosen)  # type: ignore[arg-type]  # its stub lists every hash by name


def csr_pem(private: PrivateKey | None = None, uri: str = WEB, **names: Sequence[str]) -> str:
    csr = csr_of(private or key(), alt_names(uris=[uri], **names))
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def settings(
    config: Mapping[str, object] | None = None, *, state: bytes = b"", is_primary: bool = True
) -> ProviderSettings:
    return ProviderSettings(CLUSTER_ID, "dc1" if is_primary else "dc2", is_primary, config or {}, state)


def intent(number: int = 1, not_before: int = NOW) -> RootIntent:
    return RootIntent(serial=serial(number), uid=f"uid{number:05d}", not_before=not_before)


def serial(number: int) -> int:
    return (1 << 157) + number


def leaf_request(
    csr: str | None = None, *, number: int = 100, now: int = NOW, policy: CSRPolicy = POLICY
) -> LeafRequest:
    return LeafRequest(csr or csr_pem(), policy, serial(number), now, EVERYTHING)


def ca_extensions(
    public: object, issuer_id: bytes, *, path_length: int | None = None, uris: Sequence[str] = (ROOT_URI,)
) -> list[tuple[x509.ExtensionType, bool]]:
    """The extensions of a faultless CA certificate; tests change one to break it."""
    result: list[tuple[x509.ExtensionType, bool]] = [
        (key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True), True),
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (x509.SubjectKeyIdentifier(key_id(public)), False),
        (x509.AuthorityKeyIdentifier(issuer_id, None, None), False),
    ]
    if uris:
        result.append((x509.SubjectAlternativeName(alt_names(uris=uris)), False))
    return result


def leaf_extensions(public: object, issuer_id: bytes, uri: str = WEB) -> list[tuple[x509.ExtensionType, bool]]:
    return [
        (key_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.SubjectKeyIdentifier(key_id(public)), False),
        (x509.AuthorityKeyIdentifier(issuer_id, None, None), False),
        (x509.SubjectAlternativeName(alt_names(uris=[uri])), True),
    ]


def key_usage(**bits: bool) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign "
        "crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: bits.get(name, False) for name in names.split()})


def without(extensions: list[tuple[x509.ExtensionType, bool]], kind: type) -> list[tuple[x509.ExtensionType, bool]]:
    return [(value, critical) for value, critical in extensions if not isinstance(value, kind)]


def certificate(
    public: object,
    signer: PrivateKey,
    extensions: list[tuple[x509.ExtensionType, bool]],
    *,
    subject: str = "",
    issuer: str = "root",
    issuer_name: x509.Name | None = None,
    subject_name: x509.Name | None = None,
    not_before: int = NOW,
    not_after: int = NOW + YEAR,
    algorithm: hashes.HashAlgorithm | None = None,
) -> x509.Certificate:
    """A certificate made by hand, right or wrong."""
    builder = x509.CertificateBuilder(
        subject_name=subject_name or name(subject),
        issuer_name=issuer_name or name(issuer),
        public_key=public,  # type: ignore[arg-type]  # any public key, also ones a CA refuses
        serial_number=x509.random_serial_number(),
        not_valid_before=datetime.fromtimestamp(not_before, UTC),
        not_valid_after=datetime.fromtimestamp(not_after, UTC),
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    chosen: hashes.HashAlgorithm = algorithm or hashes.SHA256()
    return builder.sign(signer, chosen)  # type: ignore[arg-type]


def root_certificate(private: PrivateKey, name: str = "root", **changes: object) -> x509.Certificate:
    """A faultless self-signed root, as an operator would bring it."""
    public = private.public_key()
    extensions = ca_extensions(public, key_id(public))
    return certificate(public, private, extensions, subject=name, issuer=name, **changes)  # type: ignore[arg-type]


def pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(serialization.Encoding.PEM).decode()


def x509_csr(text: str) -> x509.CertificateSigningRequest:
    return x509.load_pem_x509_csr(text.encode())


def load(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


# --- judging --------------------------------------------------------------------------------------------------------


def shape(cert: x509.Certificate) -> list[tuple[str, bool]]:
    return [(extension.oid._name, extension.critical) for extension in cert.extensions]


def value_of(cert: x509.Certificate, kind: type[E]) -> E:
    return cert.extensions.get_extension_for_class(kind).value


def assert_signature_fits(cert: x509.Certificate, issuer: x509.Certificate) -> None:
    """Signed by the issuer's key, with the hash that fits that key."""
    public = issuer.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        kind = ("ec", {"secp256r1": 256, "secp384r1": 384, "secp521r1": 521}[public.curve.name])
        algorithm = HASHES.get(kind, hashes.SHA256)()
        public.verify(cert.signature, cert.tbs_certificate_bytes, ec.ECDSA(algorithm))
    else:
        assert isinstance(public, rsa.RSAPublicKey)
        algorithm = hashes.SHA256()
        public.verify(cert.signature, cert.tbs_certificate_bytes, padding.PKCS1v15(), algorithm)
    assert isinstance(cert.signature_hash_algorithm, type(algorithm))
    assert cert.issuer == issuer.subject


def assert_is_ca(cert: x509.Certificate, *, path_length: int | None) -> None:
    """What all CA certificates share: usage, constraints, identifier, name, and the CA's SPIFFE ID."""
    assert cert.version is x509.Version.v3
    assert cert.subject.rdns
    assert 127 <= cert.serial_number.bit_length() < 160
    assert value_of(cert, x509.KeyUsage) == key_usage(digital_signature=True, key_cert_sign=True, crl_sign=True)
    assert value_of(cert, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=path_length)
    assert value_of(cert, x509.SubjectKeyIdentifier).digest == key_id(cert.public_key())
    assert value_of(cert, x509.SubjectAlternativeName) == x509.SubjectAlternativeName(alt_names(uris=[ROOT_URI]))
    assert sorted(shape(cert)) == [
        ("authorityKeyIdentifier", False),
        ("basicConstraints", True),
        ("keyUsage", True),
        ("subjectAltName", False),
        ("subjectKeyIdentifier", False),
    ]


def assert_is_root(root_pem: str, *, made: RootIntent, ttl: int = 10 * YEAR) -> x509.Certificate:
    """A generated root, whole: consul-compat 2, first column."""
    root = load(root_pem)
    assert root_pem.endswith("-----END CERTIFICATE-----\n")
    assert_is_ca(root, path_length=None)
    assert root.serial_number == made.serial
    assert root.subject.rfc4514_string() == f"CN=pri-{made.uid}.consul.ca.{CLUSTER_ID[:8]}.consul"
    assert value_of(root, x509.AuthorityKeyIdentifier).key_identifier == key_id(root.public_key())
    assert_signature_fits(root, root)
    assert times(root) == (made.not_before - 60, made.not_before + ttl)  # clocks of clients may be late
    return root


def assert_is_intermediate(
    intermediate_pem: str, root: x509.Certificate, csr: x509.CertificateSigningRequest, *, number: int, ttl: int = YEAR
) -> x509.Certificate:
    """An intermediate signed for a secondary, whole: consul-compat 2, second column."""
    cert = load(intermediate_pem)
    assert_is_ca(cert, path_length=0)
    assert cert.serial_number == serial(number)
    assert spki(cert.public_key()) == spki(csr.public_key())
    assert value_of(cert, x509.AuthorityKeyIdentifier).key_identifier == ski(root)
    assert_signature_fits(cert, root)
    begin, end = times(cert)
    assert end == min(begin + ttl, times(root)[1])
    return cert


def assert_is_cross_signed(
    cross_pem: str, new_root: x509.Certificate, old_root: x509.Certificate, *, number: int, not_after: int
) -> x509.Certificate:
    """A new root re-issued by an old one, whole: consul-compat 2, third column."""
    cert = load(cross_pem)
    assert cert.subject == new_root.subject
    assert cert.serial_number == serial(number)
    assert spki(cert.public_key()) == spki(new_root.public_key())
    kept = [e for e in cert.extensions if not isinstance(e.value, x509.AuthorityKeyIdentifier)]
    assert kept == [e for e in new_root.extensions if not isinstance(e.value, x509.AuthorityKeyIdentifier)]
    assert value_of(cert, x509.AuthorityKeyIdentifier).key_identifier == ski(old_root)
    assert_signature_fits(cert, old_root)
    assert times(cert)[1] == min(not_after, times(new_root)[1], times(old_root)[1])
    return cert


def assert_is_leaf(
    leaf: IssuedLeaf, issuer_pem: str, request: LeafRequest, *, kind: str = "service", ttl: int = 3 * DAY
) -> x509.Certificate:
    """A leaf and what was reported about it, whole: last column of consul-compat 2, 10.3 to 10.5."""
    cert, issuer = load(leaf.cert_pem), load(issuer_pem)
    csr = x509.load_pem_x509_csr(request.csr_pem.encode())
    uri, name = IDENTITIES[kind]
    assert leaf.cert_pem == pem(cert)
    assert cert.version is x509.Version.v3
    assert not cert.subject.rdns
    assert cert.serial_number == leaf.serial == request.serial
    assert spki(cert.public_key()) == spki(csr.public_key())
    is_rsa = isinstance(cert.public_key(), rsa.RSAPublicKey)
    assert value_of(cert, x509.KeyUsage) == key_usage(digital_signature=True, key_encipherment=is_rsa)
    assert shape(cert) == [
        ("keyUsage", True),
        ("extendedKeyUsage", False),
        ("basicConstraints", True),
        ("subjectKeyIdentifier", False),
        ("authorityKeyIdentifier", False),
        ("subjectAltName", True),
    ]
    assert list(value_of(cert, x509.ExtendedKeyUsage)) == [
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    ]
    assert value_of(cert, x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
    assert ski(cert) == key_id(cert.public_key()) == leaf.public_key_sha256
    assert value_of(cert, x509.AuthorityKeyIdentifier).key_identifier == ski(issuer) == leaf.issuer_key_id
    names = value_of(cert, x509.SubjectAlternativeName)
    asked = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    for form in (x509.DNSName, x509.IPAddress):
        assert names.get_values_for_type(form) == asked.get_values_for_type(form)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [uri] == [leaf.spiffe_id]
    assert (leaf.kind, leaf.name) == (kind, name)
    begin = request.now - min(60, ttl // 10)
    assert times(cert) == (begin, min(begin + ttl, times(issuer)[1])) == (leaf.not_before, leaf.not_after)
    assert_signature_fits(cert, issuer)
    return cert


def ski(cert: x509.Certificate) -> bytes:
    return value_of(cert, x509.SubjectKeyIdentifier).digest


def uris(cert: x509.Certificate) -> list[str]:
    return value_of(cert, x509.SubjectAlternativeName).get_values_for_type(x509.UniformResourceIdentifier)


def times(cert: x509.Certificate) -> tuple[int, int]:
    return int(cert.not_valid_before_utc.timestamp()), int(cert.not_valid_after_utc.timestamp())


def openssl_verify(directory: Path, chain_pem: str, root_pems: Sequence[str], *, now: int) -> None:
    """`openssl verify -x509_strict` with nothing but the given roots trusted; the first certificate is judged."""
    for name, text in (("leaf.pem", chain_pem), ("chain.pem", chain_pem), ("roots.pem", "".join(root_pems))):
        (directory / name).write_text(text)
    command = [
        *("openssl", "verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-attime", str(now)),
        *("-CAfile", "roots.pem", "-untrusted", "chain.pem", "leaf.pem"),
    ]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def openssl_root(directory: Path, alt_name: str) -> tuple[str, PrivateKey]:
    """A root and its key, made with nothing but the `openssl` command, as an operator would."""
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", "key.pem", "-out", "root.pem", "-days", "3650", "-subj", "/CN=Our mesh root"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign", "-addext", f"subjectAltName={alt_name}"),
    ]
    subprocess.run(command, cwd=directory, capture_output=True, check=True)
    private = serialization.load_pem_private_key((directory / "key.pem").read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return (directory / "root.pem").read_text(), private


def handshake(
    directory: Path,
    server: tuple[str, PrivateKey],
    client: tuple[str, PrivateKey],
    *,
    server_trusts: Sequence[str],
    client_trusts: Sequence[str],
) -> tuple[str, str]:
    """A TLS 1.3 handshake in memory, both sides with certificates; returns the SPIFFE IDs each side has seen.

    Raises: ssl.SSLError when either side refuses the other.
    """
    wires = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = []
    for side, (chain, private), roots in (("server", server, server_trusts), ("client", client, client_trusts)):
        is_server = side == "server"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # SPIFFE: the URI counts, not the host name
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        context.load_verify_locations(cadata="".join(roots))
        (directory / side).write_text(key_pem(private) + chain)
        context.load_cert_chain(directory / side)
        ends.append(context.wrap_bio(wires[not is_server], wires[is_server], server_side=is_server))
    pending = list(ends)
    for _ in range(10):
        for end in list(pending):
            try:
                end.do_handshake()
                pending.remove(end)
            except ssl.SSLWantReadError:
                continue
    assert not pending, "the handshake did not end"
    # In TLS 1.3 the client is done before the server has judged its certificate: data shows that both are content.
    ends[1].write(b"hello")
    assert ends[0].read() == b"hello"
    return _peer_uri(ends[0]), _peer_uri(ends[1])


def _peer_uri(end: ssl.SSLObject) -> str:
    peer = end.getpeercert()
    assert peer is not None
    names = peer["subjectAltName"]
    return next(str(entry[1]) for entry in names if entry[0] == "URI")
