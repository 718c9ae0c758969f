"""The hot path: from a checked CSR to a signed leaf.

Owns the leaf profile (docs/consul-compat.md 2, 10.3 and 10.5). What all leaves of one issuer share is made once. The
first leaf of every combination of key and kind is verified independently before it leaves, and so is every leaf where
a CA's name constraints could refuse one.
"""

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from providers.api import CAChain, IssuedLeaf, LeafRequest
from providers.errors import ChainInvalid, CSRRejected, NamesRefused
from providers.pki import keys, verify
from providers.pki.csr import CheckedCSR, check_csr
from providers.pki.keys import KeyKind
from providers.pki.x509 import Issuer, Validity, at, backdate_seconds, check_serial, load_bundle, subject_key_id, unix

_NO_NAME = x509.Name([])  # a leaf is named by its URI alone


def key_usage(key_type: str) -> x509.KeyUsage:
    """digitalSignature; RSA also keyEncipherment, which TLS 1.2 without forward secrecy needs (consul-compat 10.3)."""
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


class LeafSigner:
    """Signs leaves with one CA key; lives as long as a provider's configuration does."""

    def __init__(self, chain: CAChain, issuer: Issuer, ttl_seconds: int) -> None:
        self._chain = chain
        self._key = issuer.key
        self._hash = keys.hash_for(keys.kind_of(issuer.key))
        self._issuer_name = issuer.cert.subject
        self._issuer_key_id = subject_key_id(issuer.cert)
        self._issuer_not_after = unix(issuer.cert.not_valid_after_utc)
        self._ttl_seconds = ttl_seconds
        self._leading = {key_type: _leading_extensions(key_type) for key_type in ("ec", "rsa")}
        self._authority = _extension(x509.AuthorityKeyIdentifier(self._issuer_key_id, None, None), critical=False)
        self._validity_at = -1
        self._validity_then = Validity(at(0), at(0))
        self._verified: set[tuple[KeyKind, str]] = set()
        self._verify_all = _has_name_constraints([chain.root_pem, *chain.intermediate_pems])

    def sign(self, request: LeafRequest) -> IssuedLeaf:
        """Raises: CSRRejected; ChainInvalid when the signing certificate has expired or a leaf does not verify."""
        csr = check_csr(request.csr_pem, request.policy, request.grant)
        check_serial(request.serial)
        if request.now > self._issuer_not_after:
            raise ChainInvalid("the signing certificate has expired")
        validity = self._validity(request.now, csr.ttl_max_seconds)
        leaf = IssuedLeaf(
            cert_pem=self._certificate(csr, request.serial, validity),
            serial=request.serial,
            kind=csr.kind,
            name=csr.name,
            spiffe_id=csr.spiffe_id,
            not_before=unix(validity.not_before),
            not_after=unix(validity.not_after),
            public_key_sha256=csr.key_id,
            issuer_key_id=self._issuer_key_id,
        )
        self._verify_first(csr, leaf, request.now)
        return leaf

    def _validity(self, now: int, ttl_max_seconds: int) -> Validity:
        """The last answer is kept, because many leaves are signed in one second."""
        if 0 < ttl_max_seconds < self._ttl_seconds:
            return self._validity_of(now, ttl_max_seconds)
        if now != self._validity_at:
            self._validity_at, self._validity_then = now, self._validity_of(now, self._ttl_seconds)
        return self._validity_then

    def _validity_of(self, now: int, ttl_seconds: int) -> Validity:
        not_before = now - backdate_seconds(ttl_seconds)
        return Validity(at(not_before), at(min(not_before + ttl_seconds, self._issuer_not_after)))

    def _certificate(self, csr: CheckedCSR, serial: int, validity: Validity) -> str:
        # The extensions go in as one list, in the order in which Go, and so Consul, writes them: `add_extension`
        # copies the list and looks for duplicates each time.
        builder = x509.CertificateBuilder(
            issuer_name=self._issuer_name,
            subject_name=_NO_NAME,
            public_key=csr.key,
            serial_number=serial,
            not_valid_before=validity.not_before,
            not_valid_after=validity.not_after,
            extensions=[
                *self._leading[csr.key_kind.type],
                _extension(x509.SubjectKeyIdentifier(csr.key_id), critical=False),
                self._authority,
                _extension(x509.SubjectAlternativeName(csr.names), critical=True),
            ],
        )
        return builder.sign(self._key, self._hash).public_bytes(Encoding.PEM).decode("ascii")

    def _verify_first(self, csr: CheckedCSR, leaf: IssuedLeaf, now: int) -> None:
        combination = (csr.key_kind, csr.kind)
        if combination in self._verified and not self._verify_all:
            return
        chain_pem = leaf.cert_pem + "".join(self._chain.intermediate_pems)
        stores = {"own root": [self._chain.root_pem]}
        try:
            verify.verify_leaf(chain_pem, stores, now=now, spiffe_id=leaf.spiffe_id)
        except NamesRefused as refusal:
            raise CSRRejected(str(refusal)) from refusal
        self._verified.add(combination)


def _leading_extensions(key_type: str) -> list[x509.Extension[x509.ExtensionType]]:
    return [
        _extension(key_usage(key_type), critical=True),
        _extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        ),
        _extension(x509.BasicConstraints(ca=False, path_length=None), critical=True),
    ]


def _extension(value: x509.ExtensionType, *, critical: bool) -> x509.Extension[x509.ExtensionType]:
    return x509.Extension(value.oid, critical, value)


def _has_name_constraints(pems: Sequence[str]) -> bool:
    return any(
        extension.oid == x509.NameConstraints.oid
        for pem in pems
        for cert in load_bundle(pem)
        for extension in cert.extensions
    )
