"""Which DNS names and IP addresses a leaf may carry beside its SPIFFE ID.

A leaf is a TLS certificate like any other: whoever trusts the mesh's roots and compares host names believes what stands
here. So nobody gets a name that is a server's, a whole registry's, everybody's (localhost) or nobody's.

What is decided, form first:

    final dot            dropped: Consul's agents ask with one, and RFC 5280 4.2.1.6 has none
    upper case           taken as it is, and compared without case (RFC 4343)
    A-labels (xn--)      taken as any other label: what is compared is what stands in the certificate
    other characters     refused: letters, digits, hyphen, and "_" as DNS-SD uses it (RFC 1034 3.5, RFC 1123 2.1)
    wildcards            one, as the whole leftmost label (RFC 6125 6.4.3), below somebody's own domain
    addresses as text    refused: they belong into an IP SAN (RFC 9525 6.3), and a name that ends in a number is one to
                         many a URL parser
    IP addresses         all but such as no host has
"""

import functools
import re
from importlib.resources import files
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509

from providers.api import CSRPolicy
from providers.errors import CSRRejected
from providers.pki.spiffe import Kind, SpiffeId

# Labels of 1 to 63, in all 253.
_DNS_NAME = re.compile(
    r"(?:\*\.)?(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*"
    r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
)
_MAX_DNS_NAME = 253
# The last label of an IPv4 address as URL parsers take one (WHATWG URL 3.5, "ends in a number").
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_BROADCAST = IPv4Address("255.255.255.255")
# What Consul's DNS has in the place of a datacenter: `server.service.consul` is a service that is called "server".
_LOOKUPS = frozenset({"addr", "connect", "ingress", "node", "query", "service", "virtual"})
# As much of a name as a refusal repeats.
_SHOWN = 200


def check_host(name: x509.GeneralName, identity: SpiffeId, policy: CSRPolicy) -> x509.GeneralName:
    """The DNS name or address as the certificate of `identity` carries it.

    Raises: CSRRejected.
    """
    if not isinstance(name, x509.DNSName):
        _check_address(name.value)
        return name
    bare = name.value.removesuffix(".")
    if len(bare) > _MAX_DNS_NAME or not _DNS_NAME.fullmatch(bare):
        raise CSRRejected(f"CSR SAN holds a DNS name that is not valid: {name.value[:_SHOWN]!r}")
    _check_name(bare, bare.lower().split("."), identity, policy)
    return name if bare == name.value else x509.DNSName(bare)


def _check_name(name: str, labels: list[str], identity: SpiffeId, policy: CSRPolicy) -> None:
    if _NUMBER.fullmatch(labels[-1]):
        raise _refused(name, "an IP address is allowed as an IP SAN only")
    # Before the rule about servers, which speaks of wildcards that hold a domain of somebody's own.
    if labels[0] == "*" and is_public_suffix(labels[1:]):
        raise _refused(name, "a wildcard is allowed only below a domain that one owner has, as in '*.web.example.com'")
    if _is_servers(labels, policy):
        domain = policy.domain
        raise _refused(name, f"server.<datacenter>.{domain} and names below it are for the cluster's servers only")
    if labels[-1] == "localhost" and identity.kind is not Kind.AGENT:
        raise _refused(name, "it is allowed for agents only: every host has a localhost of its own")


def _is_servers(labels: list[str], policy: CSRPolicy) -> bool:
    """Whether it is, or as a wildcard stands for, a name by which Consul's agents and peers know servers.

    Those of other datacenters too: all of them trust the same roots.
    """
    below = _below(labels, policy.domain)
    if len(below) >= 2 and below[-2] in ("server", "*"):
        return below[-1] == policy.datacenter or below[-1] not in _LOOKUPS
    # Of the server kind, for peers (consul-compat 2.2).
    below = _below(labels, policy.trust_domain)
    return len(below) >= 3 and below[-1] == "peering" and below[-3] in ("server", "*")


def _below(labels: list[str], domain: str) -> list[str]:
    """The labels before the domain; empty when the name is not below it."""
    parts = domain.lower().split(".")
    return labels[: -len(parts)] if labels[-len(parts) :] == parts else []


def is_public_suffix(labels: list[str]) -> bool:
    """Whether anybody may register a name directly below this domain, lower case; so for every single label."""
    if len(labels) == 1:
        return True
    name, rules = ".".join(labels), _public_suffixes()
    if f"!{name}" in rules:
        return False
    return not rules.isdisjoint((name, f"*.{name}", ".".join(["*", *labels[1:]])))


@functools.cache  # 9,000 names: read when the first wildcard is asked for
def _public_suffixes() -> frozenset[str]:
    lines = files("providers.pki").joinpath("public_suffixes.txt").read_text("ascii").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


def _check_address(address: IPv4Address | IPv6Address) -> None:
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_unspecified or mapped.is_multicast or mapped == _BROADCAST:
        raise CSRRejected(
            f"CSR SAN holds the IP address {str(address)!r}: an address that one host can have is allowed, not an"
            " unspecified, multicast or broadcast one"
        )


def _refused(name: str, rule: str) -> CSRRejected:
    return CSRRejected(f"CSR SAN holds the DNS name {name[:_SHOWN]!r}: {rule}")
