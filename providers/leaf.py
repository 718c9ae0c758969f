"""The hot path: from a checked CSR to a signed leaf.

Owns the leaf profile (spec section 2 with design 9.3 and 9.5). What all leaves of one issuer share is encoded once;
per leaf remain serial, validity, key, its identifier and the names. The first leaf of every combination of key and
kind is verified independently before it leaves, and so is every leaf where a CA's name constraints could refuse one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from providers import der, keys, verify
from providers.api import CAChain, IssuedLeaf, LeafRequest
from providers.errors import ChainInvalid
from providers.keys import KeyKind, SigningKey
from providers.profiles import CheckedCSR, check_csr
from providers.spiffe import Kind
from providers.x509 import backdate_seconds, check_serial, load_bundle, subject_key_id, unix

KEY_ID_BYTES = 32
_VERSION_3 = bytes.fromhex("a003020102")
_EMPTY_NAME = bytes.fromhex("3000")  # a leaf is named by its URI alone
_TRUE = bytes.fromhex("0101ff")

# Object identifiers of extensions, 2.5.29.N (RFC 5280 4.2.1).
_KEY_USAGE = bytes.fromhex("0603551d0f")
_EXTENDED_KEY_USAGE = bytes.fromhex("0603551d25")
_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")
_SUBJECT_KEY_ID = bytes.fromhex("0603551d0e")
_AUTHORITY_KEY_ID = bytes.fromhex("0603551d23")
_SUBJECT_ALT_NAME = bytes.fromhex("0603551d11")

# RFC 5758 3.2 and RFC 4055 5: ECDSA identifiers have no parameters, RSA's have NULL.
_ALGORITHMS = {
    ("ec", 256): bytes.fromhex("300a06082a8648ce3d040302"),
    ("ec", 384): bytes.fromhex("300a06082a8648ce3d040303"),
    ("ec", 521): bytes.fromhex("300a06082a8648ce3d040304"),
}
_RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")


def key_usage(key_type: str) -> x509.KeyUsage:
    """digitalSignature; for RSA also keyEncipherment, which TLS 1.2 without forward secrecy would need (design 9.3)."""
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=key_type == "rsa",
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, slots=True)
class Template:
    """The encoded parts that all leaves of one issuer share, in the order in which a leaf has them.

    Extensions stand in the order in which Go, and so Consul, writes them.
    """

    algorithm: bytes
    issuer_name: bytes
    # By type of the leaf's key: key usage, purposes, basic constraints, and the head of the subject key identifier.
    head: dict[str, bytes]
    authority_key_id: bytes

    @classmethod
    def of(cls, issuer: x509.Certificate, kind: KeyKind) -> "Template":
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        common = (
            _extension(_EXTENDED_KEY_USAGE, purposes.public_bytes())
            + _extension(_BASIC_CONSTRAINTS, constraints.public_bytes(), critical=True)
            # The identifier always has the same length, so all of this extension but its last bytes is constant.
            + _extension(_SUBJECT_KEY_ID, der.tlv(der.OCTET_STRING, bytes(KEY_ID_BYTES)))[:-KEY_ID_BYTES]
        )
        aki = x509.AuthorityKeyIdentifier(subject_key_id(issuer), None, None)
        return cls(
            algorithm=_ALGORITHMS.get((kind.type, kind.bits), _RSA_SHA256),
            issuer_name=der.subject_of(issuer.tbs_certificate_bytes),
            head={
                leaf_type: _extension(_KEY_USAGE, key_usage(leaf_type).public_bytes(), critical=True) + common
                for leaf_type in ("ec", "rsa")
            },
            authority_key_id=_extension(_AUTHORITY_KEY_ID, aki.public_bytes()),
        )

    def tbs(self, csr: CheckedCSR, serial: int, validity: bytes) -> bytes:
        """The TBSCertificate (RFC 5280 4.1.2); `validity` is encoded."""
        alt_names = _extension(_SUBJECT_ALT_NAME, _alt_names(csr), critical=True)
        extensions = der.tlv(
            der.SEQUENCE, self.head[csr.key_kind.type] + csr.key_id + self.authority_key_id + alt_names
        )
        return der.tlv(
            der.SEQUENCE,
            b"".join(
                (
                    _VERSION_3,
                    der.integer(serial),
                    self.algorithm,
                    self.issuer_name,
                    validity,
                    _EMPTY_NAME,
                    csr.spki_der,
                    der.tlv(der.EXTENSIONS, extensions),
                )
            ),
        )


class LeafSigner:
    """Signs leaves with one CA key; lives as long as a provider's configuration does."""

    def __init__(self, chain: CAChain, key: SigningKey, ttl_seconds: int) -> None:
        issuer = load_bundle(chain.signing_cert_pem)[0]
        self._chain = chain
        self._sign = keys.signer(key)
        self._ttl_seconds = ttl_seconds
        self._backdate_seconds = backdate_seconds(ttl_seconds)
        self._issuer_key_id = subject_key_id(issuer)
        self._issuer_not_after = unix(issuer.not_valid_after_utc)
        self._template = Template.of(issuer, keys.kind_of(key))
        self._validity_at = -1
        self._validity_then = (0, 0, b"")
        self._verified: set[tuple[KeyKind, Kind]] = set()
        self._verify_all = _has_name_constraints([chain.root_pem, *chain.intermediate_pems])

    def sign(self, request: LeafRequest) -> IssuedLeaf:
        """Raises: CSRRejected; ChainInvalid when the signing certificate has expired or a leaf does not verify."""
        csr = check_csr(request.csr_pem, request.policy)
        check_serial(request.serial)
        if request.now > self._issuer_not_after:
            raise ChainInvalid("the signing certificate has expired")
        not_before, not_after, validity = self._validity(request.now)
        cert_pem = self._certificate(self._template.tbs(csr, request.serial, validity))
        identity = csr.spiffe_id
        leaf = IssuedLeaf(
            cert_pem=cert_pem,
            serial=request.serial,
            kind=identity.kind.value,
            name=identity.name,
            spiffe_id=csr.uri,
            not_before=not_before,
            not_after=not_after,
            public_key_sha256=csr.key_id,
            issuer_key_id=self._issuer_key_id,
        )
        self._verify_first(csr, leaf, request.now)
        return leaf

    def _validity(self, now: int) -> tuple[int, int, bytes]:
        """Begin, end and both encoded; the last answer is kept, because many leaves are signed in one second."""
        if now != self._validity_at:
            not_before = now - self._backdate_seconds
            not_after = min(not_before + self._ttl_seconds, self._issuer_not_after)
            encoded = der.tlv(der.SEQUENCE, der.moment(not_before) + der.moment(not_after))
            self._validity_at, self._validity_then = now, (not_before, not_after, encoded)
        return self._validity_then

    def _certificate(self, tbs: bytes) -> str:
        signature = der.bit_string(self._sign(tbs))
        return der.pem("CERTIFICATE", der.tlv(der.SEQUENCE, tbs + self._template.algorithm + signature))

    def _verify_first(self, csr: CheckedCSR, leaf: IssuedLeaf, now: int) -> None:
        combination = (csr.key_kind, csr.spiffe_id.kind)
        if combination in self._verified and not self._verify_all:
            return
        verify.verify_leaf(
            leaf.cert_pem + "".join(self._chain.intermediate_pems),
            {"own root": [self._chain.root_pem]},
            now=now,
            spiffe_id=leaf.spiffe_id,
        )
        self._verified.add(combination)


def _extension(oid: bytes, value: bytes, *, critical: bool = False) -> bytes:
    return der.tlv(der.SEQUENCE, oid + (_TRUE if critical else b"") + der.tlv(der.OCTET_STRING, value))


def _alt_names(csr: CheckedCSR) -> bytes:
    """GeneralNames (RFC 5280 4.2.1.6): DNS names, addresses, URI, in the order in which Go writes them."""
    names = [der.tlv(0x82, name.encode("ascii")) for name in csr.dns_names]
    names += [der.tlv(0x87, address.packed) for address in csr.ip_addresses]
    names.append(der.tlv(0x86, csr.uri.encode("ascii")))
    return der.tlv(der.SEQUENCE, b"".join(names))


def _has_name_constraints(pems: Sequence[str]) -> bool:
    return any(
        extension.oid == x509.NameConstraints.oid
        for pem in pems
        for cert in load_bundle(pem)
        for extension in cert.extensions
    )
