"""Checks around the signing of CA certificates that are the same whoever signs: the built-in key or a backend."""

from dataclasses import dataclass
from typing import Final

from cryptography import x509 as cx509

from providers.api import CAChain, CrossSignRequest
from providers.errors import ChainInvalid
from providers.pki import spiffe, verify, x509
from providers.pki.x509 import Validity, at, unix

#: Consul's words for what a provider cannot do in its role (primary or secondary).
NOT_ROOT: Final = "provider is not the root certificate authority"
NO_CSR: Final = "provider is the root certificate authority, cannot generate an intermediate CSR"
NO_INTERMEDIATE: Final = "cannot set an intermediate using another root in the primary datacenter"


def accept_intermediate(intermediate_pem: str, root_pem: str, trust_domain: str) -> CAChain:
    """Judge the primary's answer to a secondary's CSR in Consul's order and words (consul-compat 1.1).

    Whether the key is the secondary's own is for the provider to say. Raises: ChainInvalid.
    """
    try:
        certs = x509.load_bundle(intermediate_pem)
    except ValueError as error:
        raise ChainInvalid(f"error parsing intermediate PEM: {error}") from error
    own = certs[0]
    if not x509.is_ca(own):
        raise ChainInvalid("intermediate is not a CA certificate")
    uris, wanted = x509.uris(own), spiffe.signing_id(trust_domain).uri
    if len(uris) != 1:
        raise ChainInvalid(f"incoming intermediate cert has unexpected number of URIs: {len(uris)}")
    if uris[0] != wanted:
        raise ChainInvalid(f'incoming cert URI "{uris[0]}" does not match current URI: "{wanted}"')
    try:
        roots = x509.load_bundle(root_pem)
        helpers = [cert for cert in certs if cert not in roots]  # some primaries send the root along
        chain = CAChain("".join(map(x509.cert_pem, roots)), x509.cert_pem(own), tuple(map(x509.cert_pem, helpers)))
        # There is no clock here: the chain is judged at the moment at which its last certificate begins.
        verify.verify_ca(chain, trust_domain=trust_domain, now=0)
    except (ChainInvalid, ValueError) as error:
        raise ChainInvalid(f"could not verify intermediate cert against root: {error}") from error
    return chain


#: A root that is younger has been made for this: its cross-signature begins when it does.
_JUST_MADE_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class CrossTerms:
    """What is going to be cross-signed, and for how long."""

    other: cx509.Certificate
    validity: Validity


def cross_terms(request: CrossSignRequest, signer: cx509.Certificate) -> CrossTerms:
    """Judge a request to sign another CA's root. Raises: ChainInvalid."""
    try:
        other = x509.load_cert(request.cert_pem)
    except ValueError as error:
        raise ChainInvalid(f"certificate to cross-sign cannot be decoded: {error}") from error
    require_future(unix(signer.not_valid_after_utc), request.now, "root certificate is expired")
    require_future(unix(other.not_valid_after_utc), request.now, "certificate to cross-sign is expired")
    verify.verify_below(other, [], other, now=request.now)
    not_after = min(request.not_after, unix(signer.not_valid_after_utc), unix(other.not_valid_after_utc))
    require_future(not_after, request.now, "cross-signed certificate would end before it is issued")
    begin, made = request.now - x509.BACKDATE_SECONDS, unix(other.not_valid_before_utc)
    if begin - _JUST_MADE_SECONDS <= made:
        begin = min(begin, made)  # or a late clock would know what is below it, and not this
    # Not before the one that signs: whose clock does not know that one yet has no use for this.
    not_before = max(begin, unix(signer.not_valid_before_utc))
    return CrossTerms(other, Validity(at(not_before), at(not_after)))


def require_future(end: int, now: int, refusal: str) -> None:
    """Raises: ChainInvalid."""
    if end <= now:
        raise ChainInvalid(refusal)
