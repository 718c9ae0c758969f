"""Name constraints (RFC 5280 4.2.1.10): which DNS names and addresses a CA is good for, and who asks for others.

A leaf must please every CA on its way to every root that clients trust. In a rotation these are more than the ones it
is signed below: so what they say is collected, and asked of a CSR before anything is signed.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network

from cryptography import x509

from providers.api import NameLimits


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
    said = [f"permits {', '.join(permitted)}"] if permitted else []
    said += [f"excludes {', '.join(excluded)}"] if excluded else []
    rule = " and ".join(said)
    return f"CSR SAN holds {str(name)[:200]!r}, which not every trusted CA may vouch for: {limits.ca} {rule}"
