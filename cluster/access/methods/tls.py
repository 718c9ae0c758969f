"""Ours: a workload that has a certificate of this trust domain logs in with it.

What it proves, for selectors and bind names:

    trust_domain   11111111-2222-3333-4444-555555555555.consul
    datacenter     where the certificate was issued
    kind           service, agent, mesh-gateway or server
    name           of the service or node; empty for the other kinds

Only services may, unless the method's `Kinds` says otherwise: a node that is called like a service is not the service,
and a rule without a selector would not tell them apart.
"""

from collections.abc import Sequence
from typing import Final

from cryptography import x509

from cluster.access.methods.config import TlsConfig
from cluster.access.methods.refusal import LoginRefused
from cluster.access.selector import Proved
from providers.pki.spiffe import DEFAULT, SpiffeError, SpiffeId, parse, same_trust_domain

MAX_CHAIN: Final = 8


def proved_by_certificate(
    chain: Sequence[x509.Certificate], spiffe_id: str, config: TlsConfig, trust_domain: str, now: float
) -> Proved:
    """`chain` is leaf first. The caller has seen the handshake, and that the chain leads to a root of this cluster;
    `spiffe_id` is whom it takes the peer for. Raises: LoginRefused.
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
    return _proved(identity)


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
    """That it is an end's, valid now, and of this identity alone: a handshake may be older than its connection."""
    if not leaf.not_valid_before_utc.timestamp() <= now <= leaf.not_valid_after_utc.timestamp():
        raise LoginRefused("the certificate has expired, or is not valid yet")
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        is_ca = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        raise LoginRefused("the certificate is no leaf of a mesh") from None
    if is_ca:
        raise LoginRefused("the certificate is of a CA")
    if uris != [spiffe_id]:
        raise LoginRefused("the certificate has another identity, or more than one")
