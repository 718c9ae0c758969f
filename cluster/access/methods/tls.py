"""Ours: a workload that has a certificate of this trust domain logs in with it.

What it sends, and why it is no TLS handshake, is in tls_proof.py. It is judged in this order, each step bounded by the
ones before: size and shape; that the key of the leaf may be used with the algorithm; the signature; that the chain
leads to a root which is listed now, so that one that is removed counts for nothing from that moment on; what the
certificate says; what the proof claims; and that it has not been used before.

Who is trusted is what peers in the mesh trust: any certificate below a listed root that they would accept for the
identity. The record of issued certificates is not asked: a CA that operators bring may have issued others. All CAs
between leaf and root come with the proof, as they come with a handshake.

A certificate outlives the token that it was issued for, and by a login it is renewed without end. That the token was
revoked, and has not just expired, cannot be seen afterwards; so operators say from when on certificates of a name count
(`NotBefore`).

What it proves, for selectors and bind names:

    trust_domain   11111111-2222-3333-4444-555555555555.consul
    datacenter     where the certificate was issued
    kind           service, agent, mesh-gateway or server
    name           of the service or node; empty for the other kinds

Only services may, unless the method's `Kinds` says otherwise: a node that is called like a service is not the service,
and a rule without a selector would not tell them apart.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cluster.access.methods.config import EVERY_NAME, TlsConfig
from cluster.access.methods.jws import Jws, json_of, taken_apart
from cluster.access.methods.keys import key_of
from cluster.access.methods.refusal import LoginRefused
from cluster.access.methods.tls_proof import (
    CLAIMS,
    HEADER,
    MAX_CERTIFICATE_BYTES,
    MAX_CHAIN,
    MAX_SECONDS,
    MAX_SKEW_SECONDS,
    TYPE,
    audience,
)
from cluster.access.methods.used_proofs import UsedProofs
from cluster.access.selector import Proved
from providers.errors import ChainInvalid
from providers.pki.spiffe import DEFAULT, SpiffeError, SpiffeId, parse, same_trust_domain
from providers.pki.verify import verify_leaf
from providers.pki.x509 import load_cert, uris

#: A chain of the longest that this cluster's CA gives (ca/chain_limits.py), in base64 twice, and room for the rest.
MAX_PROOF: Final = 48 << 10
_MAX_PAYLOAD: Final = 4096
_MAX_BASE64: Final = -(-MAX_CERTIFICATE_BYTES // 3) * 4
#: 128 bits in base64url are 22 characters.
_JTI: Final = re.compile(r"[A-Za-z0-9_-]{22,128}")
_LAST_SECOND: Final = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom the cluster trusts at a moment; the domain is empty, and there are no roots, before it has a CA."""

    domain: str
    root_pems: tuple[str, ...]


def proved_by_proof(proof: str, method: str, config: TlsConfig, trust: Trust, used: UsedProofs, now: float) -> Proved:
    """`now` is in Unix seconds. A proof that passes is used up. Raises: LoginRefused."""
    jws = taken_apart(proof, max_token=MAX_PROOF, max_header=MAX_PROOF)
    chain = _chain(jws.header)
    leaf = chain[0]
    _check_signature(jws, leaf)
    _check_chain(chain, trust, now)
    proved = proved_by_certificate(chain, _identity(leaf), config, trust.domain, now)
    jti, ends = _checked_claims(json_of("payload", jws.payload, _MAX_PAYLOAD), method, trust.domain, now)
    used.use(_digest(leaf), jti, ends, now)
    return proved


# -- shape


def _chain(header: Mapping[str, Any]) -> list[x509.Certificate]:
    if header.keys() != HEADER:
        raise LoginRefused(f"the header must have {', '.join(sorted(HEADER))}, and nothing else")
    if header["typ"] != TYPE:
        raise LoginRefused(f"typ is not {TYPE}")
    given = header["x5c"]
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_CHAIN:
        raise LoginRefused(f"x5c is no list of 1 to {MAX_CHAIN} certificates")
    return [_certificate(text) for text in given]


def _certificate(text: object) -> x509.Certificate:
    """Whole, and with a key of the kinds that CAs here have (providers/pki/keys.py): none is slow to verify with."""
    if not isinstance(text, str) or len(text) > _MAX_BASE64:
        raise LoginRefused(f"x5c has what is no text, or longer than {_MAX_BASE64} characters")
    try:
        der = base64.b64decode(text, validate=True)
        if base64.b64encode(der) != text.encode("ascii"):
            raise LoginRefused("x5c has what is not base64 as it is written (RFC 4648 3.5)")
        return load_cert(f"-----BEGIN CERTIFICATE-----\n{_lines(text)}-----END CERTIFICATE-----\n")
    except ValueError as error:
        raise LoginRefused(f"a certificate of x5c: {error}") from None


def _lines(text: str) -> str:
    return "".join(f"{text[start : start + 64]}\n" for start in range(0, len(text), 64))


# -- signature and chain


def _check_signature(jws: Jws, leaf: x509.Certificate) -> None:
    key = key_of(leaf)
    if jws.algorithm not in key.algorithms:
        raise LoginRefused(f"alg {jws.algorithm[:40]!a} is none of the certificate's key")
    if not key.verifies(jws.algorithm, jws.signed, jws.signature):
        raise LoginRefused("the signature is not of the certificate's key")


def _check_chain(chain: Sequence[x509.Certificate], trust: Trust, now: float) -> None:
    if not trust.domain or not trust.root_pems:
        raise LoginRefused("the cluster has no CA yet")
    pem = "".join(cert.public_bytes(Encoding.PEM).decode("ascii") for cert in chain)
    try:
        verify_leaf(pem, {"roots that are listed": trust.root_pems}, now=int(now))
    except (ChainInvalid, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise LoginRefused(f"the certificate is not trusted: {error}") from None


def _identity(leaf: x509.Certificate) -> str:
    """Its only URI; that there is one has been verified."""
    [uri] = uris(leaf)
    return uri


# -- claims


def _checked_claims(claims: Mapping[str, Any], method: str, trust_domain: str, now: float) -> tuple[str, int]:
    """What it is remembered by, and until when."""
    if claims.keys() != CLAIMS:
        raise LoginRefused(f"the payload must have {', '.join(sorted(CLAIMS))}, and nothing else")
    if claims["aud"] != audience(trust_domain):
        raise LoginRefused("aud is not this cluster's trust domain")
    if claims["mth"] != method:
        raise LoginRefused("mth is another auth method")
    issued, ends = _time(claims, "iat"), _time(claims, "exp")
    if abs(now - issued) > MAX_SKEW_SECONDS:
        raise LoginRefused(
            f"iat is {now - issued:.0f} s before the leader's clock: at most {MAX_SKEW_SECONDS}, or -{MAX_SKEW_SECONDS}"
        )
    if not issued < ends <= issued + MAX_SECONDS:
        raise LoginRefused(f"exp is {ends - issued} s after iat: must be 1 to {MAX_SECONDS}")
    if now >= ends:
        raise LoginRefused(f"the proof has expired at {ends}")
    jti = claims["jti"]
    if not isinstance(jti, str) or not _JTI.fullmatch(jti):
        raise LoginRefused("jti is no base64url of 128 bits or more")
    return jti, ends


def _time(claims: Mapping[str, Any], name: str) -> int:
    value = claims[name]
    if type(value) is not int or not 0 <= value <= _LAST_SECOND:
        raise LoginRefused(f"{name} is no time in whole seconds")
    return value


def _digest(leaf: x509.Certificate) -> bytes:
    public = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).digest()


# -- what the certificate says


def proved_by_certificate(
    chain: Sequence[x509.Certificate], spiffe_id: str, config: TlsConfig, trust_domain: str, now: float
) -> Proved:
    """`chain` is leaf first. The caller has seen that it leads to a root of this cluster, and that who asks has its
    key; `spiffe_id` is whom it takes the peer for. Raises: LoginRefused.
    """
    if not 1 <= len(chain) <= MAX_CHAIN:
        raise LoginRefused(f"the chain has {len(chain)} certificates: must have from 1 to {MAX_CHAIN}")
    _check_leaf(chain[0], spiffe_id, now)
    try:
        identity = parse(spiffe_id)
    except SpiffeError as error:
        raise LoginRefused(f"{error}") from None
    if not same_trust_domain(identity.trust_domain, trust_domain):
        raise LoginRefused(f"the certificate is of the trust domain {identity.trust_domain}")
    if identity.kind not in config.kinds:
        raise LoginRefused(f"the certificate is of the kind {identity.kind}, which is not in the method's Kinds")
    if (identity.namespace, identity.partition) != (DEFAULT, DEFAULT):
        raise LoginRefused("the certificate is of another namespace or partition")
    _check_begin(chain[0], identity.name, config)
    return _proved(identity)


def _check_begin(leaf: x509.Certificate, name: str, config: TlsConfig) -> None:
    for key, moment in config.not_before:
        if key in (name, EVERY_NAME) and leaf.not_valid_before_utc.timestamp() < moment:
            raise LoginRefused(f"the certificate begins before NotBefore[{key[:80]}] of the method")


def _proved(identity: SpiffeId) -> Proved:
    return Proved(
        {
            "trust_domain": identity.trust_domain.lower(),
            "datacenter": identity.datacenter,
            "kind": identity.kind.value,
            "name": identity.name,
        }
    )


def _check_leaf(leaf: x509.Certificate, spiffe_id: str, now: float) -> None:
    """That it is an end's, valid now, and of this identity alone."""
    if not leaf.not_valid_before_utc.timestamp() <= now <= leaf.not_valid_after_utc.timestamp():
        raise LoginRefused("the certificate has expired, or is not valid yet")
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.UniformResourceIdentifier)
        is_ca = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise LoginRefused("the certificate is no leaf of a mesh") from None
    if is_ca:
        raise LoginRefused("the certificate is of a CA")
    if found != [spiffe_id]:
        raise LoginRefused("the certificate has another identity, or more than one")
