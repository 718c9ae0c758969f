"""Roots that are the same in every process."""

from cryptography.hazmat.primitives.asymmetric import ec

from providers.pki import x509
from tests.kit import pki


def root_pem(number: int) -> str:
    validity = x509.Validity(x509.at(pki.NOW), x509.at(pki.NOW + pki.YEAR))
    key = ec.derive_private_key(number, ec.SECP256R1())
    return x509.cert_pem(x509.build_root(key, f"root {number}", pki.ROOT_URI, pki.serial(number), validity))
