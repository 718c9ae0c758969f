"""From a provider's chain to the replicated description of a root."""

from typing import Final

from fsm.state import CARoot, Intermediate
from providers import x509
from providers.api import CAChain
from providers.keys import kind_of
from providers.x509 import colon_hex, load_cert, subject_key_id, unix

_LOW_64_BITS: Final = (1 << 64) - 1


def root_of(chain: CAChain, provider: str, cluster_id: str) -> CARoot:
    """The active root for a chain that has been verified; its indexes are set when it is applied."""
    cert = load_cert(x509.split_bundle(chain.root_pem)[0])
    kind = kind_of(x509.public_key(cert))
    return CARoot(
        root_id=x509.root_id(chain.root_pem),
        name=f"{_pretty(provider)} CA Primary Cert",
        serial_number=cert.serial_number & _LOW_64_BITS,  # a JSON number, as in Consul
        key_id=colon_hex(subject_key_id(cert)),
        signing_key_id=x509.signing_key_id(chain.signing_cert_pem),
        external_trust_domain=cluster_id,
        not_before=unix(cert.not_valid_before_utc),
        not_after=unix(cert.not_valid_after_utc),
        root_pem=chain.root_pem,
        intermediates=tuple(intermediate_of(pem) for pem in chain.intermediate_pems),
        is_active=True,
        private_key_type=kind.type,
        private_key_bits=kind.bits,
    )


def intermediate_of(cert_pem: str) -> Intermediate:
    cert = load_cert(cert_pem)
    return Intermediate(
        cert_pem=cert_pem,
        key_id=colon_hex(subject_key_id(cert)),
        issuer_key_id=colon_hex(x509.authority_key_id(cert)),
        not_after=unix(cert.not_valid_after_utc),
    )


def _pretty(provider: str) -> str:
    """As Consul shows it: "Consul", "Vault", "Aws-Pca"."""
    return "-".join(part.capitalize() for part in provider.split("-"))
