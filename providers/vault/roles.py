"""The leaf profile in Vault's words: the roles that leaves are signed with, and what a signed leaf must look like.

Vault picks the serial and names keys by their SHA-1; everything else is as the built-in provider does it.
"""

from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509 as cx509

from providers.api import CAChain, IssuedLeaf
from providers.errors import ChainInvalid, CSRRejected, NamesRefused, ProviderUnavailable, SigningKeyGone
from providers.pki import keys, verify
from providers.pki.csr import CheckedCSR
from providers.pki.x509 import (
    BACKDATE_SECONDS,
    at,
    authority_key_id,
    backdate_seconds,
    load_cert,
    public_key,
    subject_alt_names,
    subject_key_id,
    unix,
)
from providers.texts import one_line
from providers.vault.mount import Wanted

#: Consul's name for EC keys; RSA keys need a key usage more, which a request cannot ask for (consul-compat 10.3).
_NAMES: Final = {"ec": "leaf-cert", "rsa": "leaf-cert-rsa"}
_USAGES: Final = {"ec": ["DigitalSignature"], "rsa": ["DigitalSignature", "KeyEncipherment"]}

#: How long ago a leaf may begin: its role says a minute, and Vault's clock may be late. Nobody asks for a longer past.
_MAX_EARLY_SECONDS: Final = 86_400
#: What is recorded of a serial has at most 20 bytes.
_SERIALS_END: Final = 1 << 160


def role_name(key_type: str) -> str:
    return _NAMES[key_type]


def role(key_type: str, trust_domain: str, ttl_seconds: int) -> Mapping[str, Any]:
    """As Vault shows it when it is read back.

    Names come with each request and not from the CSR: that is how an identity gets its one spelling, and an agent our
    trust domain. What a name must be has been checked before.
    """
    return {
        "allow_any_name": True,
        "allow_ip_sans": True,
        "allowed_uri_sans": [f"spiffe://{trust_domain}/*"],
        "basic_constraints_valid_for_non_ca": True,
        "client_flag": True,
        "code_signing_flag": False,
        "email_protection_flag": False,
        "enforce_hostnames": False,
        "key_type": "any",
        "key_usage": _USAGES[key_type],
        "max_ttl": ttl_seconds,
        "no_store": True,
        "not_before_duration": backdate_seconds(ttl_seconds),
        "require_cn": False,
        "server_flag": True,
        "use_csr_common_name": False,
        "use_csr_sans": False,
    }


def wanted(csr: CheckedCSR, csr_pem: str, ttl_seconds: int, now: int, issuer_not_after: int) -> Wanted:
    """Raises: ChainInvalid when the issuer has expired."""
    if now > issuer_not_after:
        raise ChainInvalid("the signing certificate has expired")
    backdate = backdate_seconds(ttl_seconds)
    return Wanted(
        csr_pem=csr_pem,
        uris=[csr.spiffe_id],
        not_after=min(now - backdate + ttl_seconds, issuer_not_after),
        ttl_seconds=min(ttl_seconds - backdate, max(1, issuer_not_after - now)),
        dns_names=[name.value for name in csr.names if isinstance(name, cx509.DNSName)],
        addresses=[str(name.value) for name in csr.names if isinstance(name, cx509.IPAddress)],
    )


def check_leaf(leaf_pem: str, csr: CheckedCSR, asked: Wanted, chain: CAChain, now: int) -> IssuedLeaf:
    """Judge what Vault has signed: nobody gets a certificate that is not what was asked for.

    Raises: ChainInvalid; SigningKeyGone when another CA has signed; CSRRejected for names that Vault leaves out;
    ProviderUnavailable when its clock is ahead.
    """
    try:
        cert = load_cert(leaf_pem)
    except ValueError as error:
        raise ChainInvalid(f"certificate from Vault cannot be decoded: {one_line(error)}") from error
    signing_cert = load_cert(chain.signing_cert_pem)
    if keys.key_id(public_key(cert)) != csr.key_id:
        raise ChainInvalid("certificate from Vault is for a different key than the CSR")
    if authority_key_id(cert) != subject_key_id(signing_cert):
        raise SigningKeyGone(
            "certificate from Vault is not signed by this CA's intermediate: it has been replaced there"
        )
    if cert.subject.rdns:
        raise ChainInvalid(f"certificate from Vault has a subject: {one_line(cert.subject.rfc4514_string())}")
    _check_names(cert, csr)
    if not 0 < cert.serial_number < _SERIALS_END:
        raise ChainInvalid("certificate from Vault has no serial number of 1 to 20 bytes (RFC 5280 4.1.2.2)")
    not_before, not_after = unix(cert.not_valid_before_utc), unix(cert.not_valid_after_utc)
    if not_before > now:
        raise ProviderUnavailable(
            f"certificate from Vault begins {not_before - now}s from now: the clock of Vault, or of this node, is wrong"
        )
    # Before Vault 1.11 a lifetime is asked for, which counts by Vault's clock.
    if not now < not_after <= asked.not_after + BACKDATE_SECONDS:
        raise ChainInvalid(f"certificate from Vault ends {not_after - asked.not_after}s later than asked for")
    if now - not_before > _MAX_EARLY_SECONDS:
        raise ChainInvalid(
            f"certificate from Vault begins {at(not_before):%Y-%m-%dT%H:%M:%SZ}, {now - not_before}s ago: at most"
            f" {_MAX_EARLY_SECONDS}s are allowed"
        )
    chain_pem, stores = leaf_pem + "".join(chain.intermediate_pems), {"own root": [chain.root_pem]}
    try:
        verify.verify_leaf(chain_pem, stores, now=now, spiffe_id=csr.spiffe_id)
    except NamesRefused as refusal:
        raise CSRRejected(str(refusal)) from refusal
    return IssuedLeaf(
        cert_pem=leaf_pem,
        serial=cert.serial_number,
        kind=csr.kind,
        name=csr.name,
        spiffe_id=csr.spiffe_id,
        not_before=not_before,
        not_after=not_after,
        public_key_sha256=csr.key_id,
        issuer_key_id=authority_key_id(cert),
    )


def _check_names(cert: cx509.Certificate, csr: CheckedCSR) -> None:
    given, asked = set(subject_alt_names(cert)), set(csr.names)
    if extra := given - asked:
        raise ChainInvalid(f"certificate from Vault has names that were not asked for: {_show(extra)}")
    if missing := asked - given:
        # It drops DNS names that are not host names, such as those with an underscore, without a word.
        raise CSRRejected(f"CSR SAN holds names that Vault does not sign: {_show(missing)}")


def _show(names: set[cx509.GeneralName]) -> str:
    return one_line(", ".join(sorted(str(name.value) for name in names)))
