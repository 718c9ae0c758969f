"""What a saved state must be before it takes the place of this cluster's: all of it is looked at as if an operator had
brought each part by itself.

Certificates are parsed, and what the state says of them is compared with what they say; every signature in a chain is
verified; what is sealed is opened. Validity in time is left out: a CA is restored after it has expired, too.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from cryptography import x509 as crypto

from cluster.base.errors import ClusterError, Refused
from cluster.ca.opened import Opener, settings_in
from cluster.ca.roots import intermediate_of
from cluster.ca.settings import policies_of
from cluster.seal.keeper import CoveredRecord
from fsm.acl_rules import broken_order
from fsm.ca import CAConfig, CARoot, Intermediate
from fsm.ca_rules import broken_invariant
from fsm.codec import OutOfBounds, check_state
from fsm.state import State
from providers import registry
from providers.errors import ProviderError
from providers.pki import spiffe, verify, x509
from providers.pki.keys import kind_of

#: How far apart the clocks of the cluster that was saved and of this one may be.
_CLOCKS_SECONDS: Final = 3600
_LOW_64_BITS: Final = (1 << 64) - 1


class ContentRefused(Refused):
    """The file is whole, and what it holds may not become this cluster's CA; nothing was changed."""


def check_content(saved: State, opener: Opener, now: int) -> None:
    """Of a state whose seal `opener` opens. Raises: ContentRefused, which names what is wrong."""
    try:
        check_state(saved)
        _check_whole(saved, now)
        _check_certificates(saved)
        _check_configurations(saved, opener)
    except ContentRefused:
        raise
    except (OutOfBounds, ClusterError, ProviderError) as error:
        raise ContentRefused(f"the snapshot cannot be restored: {error}") from error
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        # Of a library that reads what somebody has made up.
        raise ContentRefused(f"the snapshot cannot be restored: {type(error).__name__}: {error!s:.200}") from error


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ContentRefused(f"the snapshot cannot be restored: {text}")


def _check_whole(saved: State, now: int) -> None:
    broken = broken_invariant(saved)
    _require(broken is None, f"its state contradicts itself: {broken}")
    disorder = broken_order(saved.acl)
    _require(disorder is None, f"{disorder}")
    # The next leader would have its provider make one, from a key and an intent that are sealed: of any name.
    _require(saved.active_root is not None, "it was saved before there was a root")
    latest = now + _CLOCKS_SECONDS
    # Every record of a certificate that ends before this time would be dropped, also of those to come.
    _require(saved.tidied_before <= latest, f"tidied_before is {saved.tidied_before}: must be in the past")
    for root in _roots(saved):
        _require(root.rotated_out_at <= latest, f"root {root.root_id} was rotated out in the future")


def _roots(saved: State) -> Iterator[CARoot]:
    """Those that are trusted, and the one of a rotation that is under way: also where it is listed already, since it
    will take that one's place.
    """
    yield from saved.roots
    if saved.rotation is not None and saved.rotation.root is not None:
        yield saved.rotation.root


# -- certificates


def _check_certificates(saved: State) -> None:
    if saved.config is None:
        return
    cluster_id = saved.config.cluster_id
    bundles = [(root, x509.load_bundle(root.root_pem)) for root in _roots(saved)]
    anchors = [cert for _, bundle in bundles for cert in bundle]
    for root, bundle in bundles:
        where = f"root {root.root_id}"
        _check_root(root, bundle[0], cluster_id, where)
        _check_anchor(bundle, where)
        links = [x509.load_cert(link.cert_pem) for link in root.intermediates]
        for link, cert in zip(root.intermediates, links, strict=True):
            _check_link(link, cert, [*links, *anchors], where)
        _check_trust_domain([*bundle, *links], cluster_id, where)


def _check_root(root: CARoot, cert: crypto.Certificate, cluster_id: str, where: str) -> None:
    kind = kind_of(x509.public_key(cert))
    for name, said, found in (
        ("id", root.root_id, x509.root_id(root.root_pem)),
        ("serial number", root.serial_number, cert.serial_number & _LOW_64_BITS),
        ("key id", root.key_id, x509.colon_hex(x509.subject_key_id(cert))),
        ("beginning", root.not_before, x509.unix(cert.not_valid_before_utc)),
        ("end", root.not_after, x509.unix(cert.not_valid_after_utc)),
        ("key type", (root.private_key_type, root.private_key_bits), (kind.type, kind.bits)),
        ("trust domain", root.external_trust_domain, cluster_id),
    ):
        _require(said == found, f"{where} is said to have {name} {said!r:.100}, but has {found!r:.100}")


def _check_anchor(bundle: list[crypto.Certificate], where: str) -> None:
    """A root, and what may be above it (another one's CA): each signed by the next, the last by itself."""
    for cert, issuer in zip(bundle, [*bundle[1:], bundle[-1]], strict=True):
        _require(verify.is_usable_ca(cert), f"{where} is not a CA certificate that may sign certificates")
        _require(verify.is_signed_by(cert, issuer), f"{where} has a chain in which a signature does not verify")


def _check_link(
    link: Intermediate, cert: crypto.Certificate, issuers: Iterable[crypto.Certificate], where: str
) -> None:
    found = intermediate_of(link.cert_pem, link.made_at)
    said = (link.key_id, link.issuer_key_id, link.not_after)
    _require(
        said == (found.key_id, found.issuer_key_id, found.not_after),
        f"an intermediate of {where} is not what is said of it: key {link.key_id:.100}",
    )
    _require(verify.is_usable_ca(cert), f"intermediate {link.key_id:.100} of {where} may not sign certificates")
    above = (issuer for issuer in issuers if x509.colon_hex(x509.subject_key_id(issuer)) == link.issuer_key_id)
    _require(
        any(verify.is_signed_by(cert, issuer) for issuer in above),
        f"intermediate {link.key_id:.100} of {where} is not signed by the key {link.issuer_key_id:.100} that it names",
    )


def _check_trust_domain(certs: Iterable[crypto.Certificate], cluster_id: str, where: str) -> None:
    wanted = spiffe.signing_id(spiffe.trust_domain_of(cluster_id)).uri
    for cert in certs:
        for uri in x509.uris(cert):
            is_other = uri.lower().startswith("spiffe:") and uri.lower() != wanted.lower()
            _require(not is_other, f"{where} has a certificate of {uri!r:.200}, but the trust domain is {wanted}")


# -- configurations


def _check_configurations(saved: State, opener: Opener) -> None:
    """That of the CA, and that of a rotation under way; and everything that is sealed opens."""
    records = {sealed.provider_id: opener.record(sealed) for sealed in saved.providers}
    providers = {sealed.provider_id: sealed.provider for sealed in saved.providers}
    configs = [saved.config, saved.rotation.config if saved.rotation is not None else None]
    for config in filter(None, configs):
        _check_configuration(config, providers[config.provider_id], records[config.provider_id])


def _check_configuration(config: CAConfig, provider: str, record: CoveredRecord) -> None:
    _require(config.provider == provider, f"the provider is {config.provider!r:.50}, its state is of {provider!r:.50}")
    # The record is sealed, and so nobody can have changed it. Its secrets must go nowhere else.
    _require(config.config_json == record.config_json, "its configuration is not the one that was sealed with it")
    settings = settings_in(config, record)
    registry.create_provider(config.provider)
    policies = policies_of(settings)
    _require(
        (config.leaf_ttl_seconds, config.auto_rotate_percent)
        == (policies.leaf_ttl_seconds, policies.auto_rotate_percent),
        "what it says of LeafCertTTL and AutoRotateRoot is not what its configuration says",
    )
