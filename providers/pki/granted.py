"""Whether whoever asks may have a certificate: judged on the CSR that is signed, where it is signed.

A grant travels with its CSR to the process that signs. So there is no moment between judging and signing in which one
of the two could be exchanged, and a CSR is parsed once.

A pattern of DNS names may have a star in each label, which stands for any part of it: `web-*.example` is good for
`web-1.example`, and neither for `web.example` nor for `web-1.a.example`. A name that is a wildcard itself, `*.example`
(RFC 9525 6.3), needs the pattern `*.example`, which is good for the same names.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network

from cryptography import x509

from providers.errors import NotGranted
from providers.grants import Grant, NameGrant
from providers.pki.spiffe import Kind, SpiffeId

_RIGHTS = {Kind.SERVICE: "service:write", Kind.AGENT: "node:write", Kind.MESH_GATEWAY: "mesh:write"}

#: Of a server, as in Consul, where it is a right of servers alone; here nobody gets one this way.
_NEVER = "acl:write"


def check_grant(grants: Grant, identity: SpiffeId, hosts: Sequence[x509.GeneralName]) -> NameGrant:
    """Whether a certificate of this identity, with these DNS names and addresses, may be had; and by what.

    Raises: NotGranted, whose text goes on where somebody has said who asks.
    """
    grant = _of(grants, identity)
    if not grant.is_given:
        on = f' on "{identity.name}"' if identity.name else ""
        raise NotGranted(f"lacks permission '{_RIGHTS.get(identity.kind, _NEVER)}'{on}")
    for host in hosts:
        if not _is_covered(host, grant):
            raise NotGranted(_refusal(host, identity, grant))
    return grant


def _of(grants: Grant, identity: SpiffeId) -> NameGrant:
    match identity.kind:
        case Kind.SERVICE:
            return grants.services.of(identity.name)
        case Kind.AGENT:
            return grants.nodes.of(identity.name)
        case Kind.MESH_GATEWAY:
            return grants.gateways
        case _:
            return NameGrant(is_given=False)


def _is_covered(host: x509.GeneralName, grant: NameGrant) -> bool:
    if isinstance(host, x509.DNSName):
        name = host.value.lower()
        return grant.dns is None or any(_compiled(pattern).fullmatch(name) is not None for pattern in grant.dns)
    address = host.value
    is_address = isinstance(address, IPv4Address | IPv6Address)
    return is_address and (grant.networks is None or any(address in ip_network(network) for network in grant.networks))


def _refusal(host: x509.GeneralName, identity: SpiffeId, grant: NameGrant) -> str:
    kind, allowed = ("DNS name", grant.dns) if isinstance(host, x509.DNSName) else ("IP address", grant.networks)
    shown = ", ".join(allowed) if allowed else "none"
    of = f'{identity.kind.value} "{identity.name}"' if identity.name else identity.kind.value
    return f'lacks permission for the {kind} "{host.value}" in a certificate of {of}: its policies allow {shown:.500}'


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> "re.Pattern[str]":
    """With one star in a label at most, so that matching is linear. A part of a label is no wildcard."""
    labels = ["[^.*]+" if label == "*" else re.escape(label).replace(r"\*", "[^.*]*") for label in pattern.split(".")]
    if pattern.startswith("*."):
        labels[0] = r"(?:\*|[^.*]+)"
    return re.compile(r"\.".join(labels))
