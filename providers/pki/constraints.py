"""Name constraints (RFC 5280 4.2.1.10): which DNS names and addresses a CA is good for, and who asks for others.

A leaf must please every CA on its way to every root that clients trust. In a rotation these are more than the ones it
is signed below: so what they say is collected, and asked of a CSR before anything is signed.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network

from cryptography import x509
from cryptography.x509.oid import NameOID

from providers.api import NameLimits
from providers.pki.x509 import common_name, subject_alt_names, uris

#: What Java takes for a DNS name: a space makes it none.
_HOST = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_SPIFFE = "spiffe://"


def limits_of(certs: Iterable[x509.Certificate]) -> tuple[NameLimits, ...]:
    """What these CAs say of DNS names and addresses, each once. CAs that limit other kinds of names are not taken."""
    found: dict[NameLimits, None] = {}
    for cert in certs:
        try:
            constraints = cert.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            continue
        permitted, excluded = constraints.permitted_subtrees or (), constraints.excluded_subtrees or ()
        hosts, addresses = (_dns(permitted), _dns(excluded)), (_networks(permitted), _networks(excluded))
        found[NameLimits(cert.subject.rfc4514_string(), *hosts, *addresses)] = None
    return tuple(found)


def refusal(names: Iterable[x509.GeneralName], limits: Sequence[NameLimits]) -> str:
    """Why a CA with these limits does not vouch for one of the names; empty when all do for all."""
    for name in names:
        for one in limits:
            if isinstance(name, x509.DNSName) and not _permits_host(one, name.value.lower()):
                return _text(name.value, one, one.permitted_dns, one.excluded_dns)
            if isinstance(name, x509.IPAddress) and not _permits_address(one, name.value):
                return _text(name.value, one, one.permitted_addresses, one.excluded_addresses)
    return ""


def doubt(names: Iterable[x509.GeneralName], limits: Sequence[NameLimits]) -> str:
    """For names that these limits permit, as far as we can tell, and of which a strict verifier is not so sure."""
    shown = ", ".join(repr(str(name.value)[:200]) for name in names)
    cas = ", ".join(one.ca for one in limits)
    return f"CSR SAN holds {shown[:1000]}, of which a name is not plainly permitted by the name constraints of {cas}"


def _permits_host(limits: NameLimits, host: str) -> bool:
    bare = host.removeprefix("*.")
    if limits.permitted_dns and not any(_is_below(bare, domain) for domain in limits.permitted_dns):
        return False
    # A wildcard stands for names that may be excluded, though it is not itself.
    hidden = host != bare and any(_is_below(domain, bare) for domain in limits.excluded_dns)
    return not hidden and not any(_is_below(bare, domain) for domain in limits.excluded_dns)


def _permits_address(limits: NameLimits, address: object) -> bool:
    if not isinstance(address, IPv4Address | IPv6Address):
        return False

    def is_in(networks: Iterable[str]) -> bool:
        return any(address in ip_network(network) for network in networks)

    permitted, excluded = limits.permitted_addresses, limits.excluded_addresses
    return (not permitted or is_in(permitted)) and not is_in(excluded)


def _is_below(host: str, domain: str) -> bool:
    if domain.startswith("."):  # not in the RFC; who reads it means what is below, and not itself
        return host.endswith(domain)
    return not domain or host == domain or host.endswith(f".{domain}")


def _dns(names: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    return tuple(name.value.lower() for name in names if isinstance(name, x509.DNSName))


def _networks(names: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    return tuple(str(name.value) for name in names if isinstance(name, x509.IPAddress))


def _text(name: object, limits: NameLimits, permitted: Sequence[str], excluded: Sequence[str]) -> str:
    rule = _rule(permitted, excluded)
    return f"CSR SAN holds {str(name)[:200]!r}, which not every trusted CA may vouch for: {limits.ca} {rule}"


def _rule(permitted: Sequence[str], excluded: Sequence[str]) -> str:
    said = [f"permits {', '.join(permitted)}"] if permitted else []
    said += [f"excludes {', '.join(excluded)}"] if excluded else []
    return " and ".join(said)


def refusal_of_common_name(cert: x509.Certificate, limits: Iterable[NameLimits]) -> str:
    """Why a CA with these limits, above this one, does not vouch for its common name; empty when all do.

    Java alone asks: without DNS names beside it the common name of a CA is one to it, if it looks like one.
    """
    names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    common = str(names[-1].value) if names else ""
    if not _HOST.fullmatch(common) or any(isinstance(name, x509.DNSName) for name in subject_alt_names(cert)):
        return ""
    for one in limits:
        if not _permits_host(one, common.lower()):
            said = _rule(one.permitted_dns, one.excluded_dns)
            return f"its common name {common!r} is a DNS name to Java, and {one.ca} {said}"
    return ""


def refusal_of_cas(cert: x509.Certificate) -> str:
    """Why the CAs that are made here and in Vault cannot stand below this one in a chain; empty when they can."""
    for one in limits_of([cert]):
        cluster_id = next((uri.removeprefix(_SPIFFE) for uri in uris(cert) if uri.startswith(_SPIFFE)), "0" * 8)
        if not _permits_host(one, common_name("pri", "0" * 8, "consul", cluster_id)):
            return f"has name constraints ({_rule(one.permitted_dns, one.excluded_dns)})"
    return ""
