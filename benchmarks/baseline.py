"""Y: leaves per second of one core in a plain loop, the yardstick for everything that the cluster does around it.

The loop does what any CA in Python has to do with `cryptography` and nothing else: parse a P-256 CSR, verify its
signature, build a leaf with the extensions of the real one, sign it, encode it. It shares no code with the project,
so that making the project faster or slower does not move the yardstick.
"""

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from benchmarks.csrs import make_csrs

_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_PURPOSES: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
_POOL: Final = 64


def measure_baseline(seconds: float, blocks: int) -> list[float]:
    """Leaves per second, once for each block of that many seconds."""
    key = ec.generate_private_key(ec.SECP256R1())
    csrs = make_csrs(_POOL, "11111111-2222-3333-4444-555555555555.consul")
    _run(key, csrs, min(0.2, seconds))
    return [_run(key, csrs, seconds) for _ in range(blocks)]


def _run(key: ec.EllipticCurvePrivateKey, csrs: Sequence[str], seconds: float) -> float:
    started = time.perf_counter()
    for done, csr_pem in enumerate(cycle(csrs), start=1):
        _issue(key, csr_pem)
        elapsed = time.perf_counter() - started
        if elapsed >= seconds:
            return done / elapsed
    raise AssertionError("a cycle ends only when it is empty")


def _issue(issuer_key: ec.EllipticCurvePrivateKey, csr_pem: str) -> bytes:
    csr = x509.load_pem_x509_csr(csr_pem.encode())
    if not csr.is_signature_valid:
        raise ValueError("the CSR is not signed by its own key")
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    now = datetime.now(UTC)
    key = csr.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "baseline")]))
        .public_key(key)
        .serial_number(secrets.randbits(127) + 1)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=72))
        .add_extension(_USAGE, critical=True)
        .add_extension(_PURPOSES, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(names, critical=True)
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)
