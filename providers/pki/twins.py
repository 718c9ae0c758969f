"""A leaf below CAs with name constraints, verified in two parts, because `cryptography` does not know all names.

A DNS name with "_" (DNS-SD; RFC 2782) is one that OpenSSL, Go, Java and rustls compare with constraints like any other.
`cryptography` takes it where there are none, and below a constrained CA fails instead of comparing. So the leaf is
verified once below a twin of its issuer that says nothing of names, the issuer is verified up to the trusted root, and
the names are compared with what the CAs of that way say by our own rules (constraints.py).
"""

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from providers.pki.x509 import is_ca, public_key, subject_alt_names


def hosts_of(cert: x509.Certificate) -> list[x509.GeneralName]:
    """The DNS names and addresses of a leaf; none of a CA."""
    if is_ca(cert):
        return []
    return [name for name in subject_alt_names(cert) if isinstance(name, x509.DNSName | x509.IPAddress)]


def has_underscore(name: x509.GeneralName) -> bool:
    return isinstance(name, x509.DNSName) and "_" in name.value


def unconstrained(issuer: x509.Certificate) -> x509.Certificate:
    """The same CA as a trust anchor, of which nobody asks who has signed it: but for its name constraints."""
    extensions = [extension for extension in issuer.extensions if extension.oid != x509.NameConstraints.oid]
    builder = x509.CertificateBuilder(
        issuer_name=issuer.issuer,
        subject_name=issuer.subject,
        public_key=public_key(issuer),
        serial_number=x509.random_serial_number(),
        not_valid_before=issuer.not_valid_before_utc,
        not_valid_after=issuer.not_valid_after_utc,
        extensions=extensions,
    )
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
