"""Requests for certificates, made before the clock runs."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding


def make_csrs(count: int, trust_domain: str, datacenter: str = "dc1") -> list[str]:
    """PEM CSRs, each with a P-256 key of its own, for the services svc-0, svc-1, ..."""
    return [_make_csr(f"spiffe://{trust_domain}/ns/default/dc/{datacenter}/svc/svc-{n}") for n in range(count)]


def _make_csr(spiffe_id: str) -> str:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=True)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM).decode()
