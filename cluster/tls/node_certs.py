"""A server's certificate that the cluster makes for it: from a CSR that says nothing but the key.

Names in a CSR count for nothing. Whose certificate it is follows from who has asked: from a join token, or from the key
that is pinned. So nothing that a server writes into a CSR makes it another one.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cluster.tls.certificates import Identity, load_ca, new_cert, signed_for
from cluster.tls.keys import key_from
from cluster.tls.proof import check_made
from providers.errors import CSRRejected
from providers.pki.keys import SigningKey
from providers.pki.x509 import Issuer, at, cert_pem

MAX_CSR_BYTES: Final = 4096
_MAX_CERT_BYTES: Final = 16 << 10
_MAX_NAMES: Final = 64
_LABEL: Final = "-----BEGIN CERTIFICATE REQUEST-----"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: SigningKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode("ascii")


def node_csr(key: SigningKey) -> str:
    """Raises: ValueError for another key than the cluster signs."""
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the key of a server's certificate must be EC P-256 to be renewed by the cluster")
    csr = x509.CertificateSigningRequestBuilder(x509.Name([])).sign(key, hashes.SHA256())
    return csr.public_bytes(Encoding.PEM).decode("ascii")


def checked_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The key of a CSR, whose holder has signed it. Cheap things first: a stranger with a token may have sent it.

    Raises: CSRRejected.
    """
    if len(csr_pem) > MAX_CSR_BYTES or not csr_pem.startswith(_LABEL):
        raise CSRRejected(f"CSR must be one CERTIFICATE REQUEST (PEM) of at most {MAX_CSR_BYTES} bytes")
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise CSRRejected("the key of a server's CSR must be EC P-256")
        key.verify(csr.signature, csr.tbs_certrequest_bytes, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise CSRRejected("the CSR is not signed by its own key, with ECDSA and SHA-256") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CSRRejected("CSR is no certificate request (RFC 2986) with a key that can be used") from error
    return key


def check_agent_ca(ca_pem: str, ca_key_pem: str, datacenter: str, domain: str, now: int) -> None:
    """Whether servers that trust this CA take what it signs; tried with a certificate that is thrown away.

    Raises: ValueError.
    """
    issuer = _issuer(ca_pem, ca_key_pem, now)
    if issuer.cert.subject != issuer.cert.issuer:
        raise ValueError("the agent CA must be a root: it is signed by another CA")
    identity = Identity("server", datacenter, domain, "node")
    check_made(new_cert(issuer, identity, at(now), 1), identity, ca_pem)


def sign_node(
    ca_pem: str,
    ca_key_pem: str,
    csr_pem: str,
    *,
    node: str,
    datacenter: str,
    domain: str,
    addresses: Sequence[str],
    present_pem: str,
    now: int,
    ttl_seconds: int,
) -> tuple[str, bytes]:
    """A certificate for the server `node`, PEM, and how others will know it (`keys.py`). `addresses` are IP addresses
    that it names; `present_pem`, if there is one, is the certificate that it takes the place of, whose names it keeps.

    Raises: CSRRejected; ValueError when the CA cannot sign it.
    """
    key = checked_key(csr_pem)
    issuer = _issuer(ca_pem, ca_key_pem, now)
    identity = Identity("server", datacenter, domain, node, more_addresses=addresses)
    if present_pem:
        dns_names, addresses = _kept_names(present_pem, issuer, identity, now)
        identity = Identity("server", datacenter, domain, node, dns_names, addresses)
    cert = signed_for(issuer, identity, key, at(now), timedelta(seconds=ttl_seconds))
    known_by = key_from(cert.public_bytes(Encoding.DER), issuer.cert.public_bytes(Encoding.DER))
    return cert_pem(cert), known_by


def _kept_names(present_pem: str, issuer: Issuer, identity: Identity, now: int) -> tuple[Sequence[str], Sequence[str]]:
    """DNS names and addresses beyond the usual ones, which an operator has had put into a certificate.

    Raises: CSRRejected for one that is not valid now, of another CA or another server: names could be had by it that
    nobody has given to this one.
    """
    try:
        if len(present_pem) > _MAX_CERT_BYTES:
            raise ValueError("too long")
        cert = x509.load_pem_x509_certificate(present_pem.encode())
        cert.verify_directly_issued_by(issuer.cert)
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns_names = names.get_values_for_type(x509.DNSName)
        addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise CSRRejected("the present certificate is none that the cluster's agent CA has made") from error
    suffix = f".{identity.name}"
    servers = {name for name in dns_names if name.endswith(suffix)}
    if servers != {f"{identity.node}{suffix}"} or len(dns_names) + len(addresses) > _MAX_NAMES:
        raise CSRRejected(f"the present certificate is not that of the server {identity.node}")
    if not cert.not_valid_before_utc <= at(now) < cert.not_valid_after_utc:
        raise CSRRejected("the present certificate is not valid now")
    return dns_names, addresses


def _issuer(ca_pem: str, ca_key_pem: str, now: int) -> Issuer:
    """Raises: ValueError."""
    return load_ca(ca_pem, ca_key_pem, at(now))
