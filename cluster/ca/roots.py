"""From a provider's chain to the replicated description of a root."""

import json
from collections.abc import Iterable
from typing import Final

from cluster.base.clock import rfc3339
from fsm.ca import CAConfig, CARoot, Intermediate
from fsm.links import cut_off_early, must_stay_trusted
from providers.api import CAChain, NameLimits
from providers.pki import x509
from providers.pki.constraints import limits_of
from providers.pki.keys import kind_of
from providers.pki.x509 import colon_hex, load_bundle, load_cert, subject_key_id, unix

_LOW_64_BITS: Final = (1 << 64) - 1
#: The end of a root is warned of when so much of its lifetime is left.
_WARN_FROM: Final = 0.2


def root_of(chain: CAChain, config: CAConfig, *, is_active: bool, made_at: int) -> CARoot:
    """The root for a chain that has been verified; its indexes are set when it is applied."""
    cert = load_cert(x509.split_bundle(chain.root_pem)[0])
    kind = kind_of(x509.public_key(cert))
    return CARoot(
        root_id=x509.root_id(chain.root_pem),
        name=f"{_pretty(config.provider)} CA Primary Cert",
        serial_number=cert.serial_number & _LOW_64_BITS,  # a JSON number, as in Consul
        key_id=colon_hex(subject_key_id(cert)),
        signing_key_id=x509.signing_key_id(chain.signing_cert_pem),
        external_trust_domain=config.cluster_id,
        not_before=unix(cert.not_valid_before_utc),
        not_after=unix(cert.not_valid_after_utc),
        root_pem=chain.root_pem,
        intermediates=intermediates_of(chain.intermediate_pems, made_at),
        is_active=is_active,
        private_key_type=kind.type,
        private_key_bits=kind.bits,
        provider_id=config.provider_id,
        leaf_ttl_max_seconds=config.leaf_ttl_seconds,
    )


def expires_soon(root: CARoot, now: float) -> bool:
    """Time to replace it, or too late."""
    return root.not_after - now < _WARN_FROM * (root.not_after - root.not_before)


def name_limits(active: CARoot, roots: Iterable[CARoot], now: float) -> tuple[NameLimits, ...]:
    """What the CAs between its leaves and every root that clients trust them by say about names. A leaf that one of
    them does not permit would be refused by some clients, whichever CA signs it.
    """
    pems = [link.cert_pem for link in active.intermediates]
    pems += [root.root_pem for root in (active, *must_stay_trusted(active, roots, now))]
    return limits_of(cert for pem in pems for cert in load_bundle(pem))


def begins_just_now(root: CARoot, config: CAConfig, now: float) -> str:
    """What to warn of while clients whose clocks are late by less than certificates are backdated refuse this root;
    empty otherwise. Roots that are made here begin in time, or did not in the release before, where nobody can do
    anything about it: this is about an operator's, or a backend's.
    """
    is_made_here = config.provider == "consul" and "rootcert" not in map(str.lower, json.loads(config.config_json))
    if is_made_here or now >= root.not_before + x509.BACKDATE_SECONDS:
        return ""
    return (
        f"the active root {root.root_id} begins at {rfc3339(root.not_before)}: until a minute after that, clients whose"
        " clocks are late refuse every certificate below it"
    )


def early_ends(roots: Iterable[CARoot], now: float) -> list[str]:
    """Sentences about the older roots whose clients are lost before these roots are pruned."""
    return [
        f"root {root.root_id} is trusted until {rfc3339(min(root.prune_at, root.not_after))}, but a certificate by"
        f" which new leaves lead to it, or the active root, ends at {rfc3339(end)}: from then on clients that know no"
        " newer root refuse them"
        for root, end in cut_off_early(roots, now)
    ]


def ends_before_leaves(root: CARoot, config: CAConfig, now: float) -> str:
    """What to warn of while the active root cannot give leaves the lifetime that is configured; empty otherwise."""
    if now > root.not_after or root.not_after - now >= config.leaf_ttl_seconds:
        return ""
    return (
        f"the active root {root.root_id} ends at {rfc3339(root.not_after)}, sooner than leaves with LeafCertTTL would:"
        " they end with it, and none are signed after it; rotate the root"
    )


def intermediates_of(pems: Iterable[str], made_at: int) -> tuple[Intermediate, ...]:
    """One for each certificate in these texts, of which each may hold several, in their order."""
    return tuple(intermediate_of(pem, made_at) for text in pems for pem in x509.split_bundle(text))


def intermediate_of(cert_pem: str, made_at: int) -> Intermediate:
    cert = load_cert(cert_pem)
    return Intermediate(
        cert_pem=cert_pem,
        key_id=colon_hex(subject_key_id(cert)),
        issuer_key_id=colon_hex(x509.authority_key_id(cert)),
        not_after=unix(cert.not_valid_after_utc),
        made_at=made_at,
    )


def _pretty(provider: str) -> str:
    """As Consul shows it: "Consul", "Vault", "Aws-Pca"."""
    return "-".join(part.capitalize() for part in provider.split("-"))
