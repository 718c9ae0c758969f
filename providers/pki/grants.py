"""What certificates whoever asks may have: judged on the CSR that is signed, where it is signed.

The caller makes a grant from what it knows of who asks; here nothing is known of tokens and policies. A grant travels
with its CSR to the process that signs, so there is no moment between judging and signing in which one of the two could
be exchanged, and a CSR is parsed once.

A pattern of DNS names may have a star in each label, which stands for any part of it: `web-*.example` is good for
`web-1.example`, and neither for `web.example` nor for `web-1.a.example`. A name that is a wildcard itself, `*.example`
(RFC 9525 6.3), needs the pattern `*.example`, which is good for the same names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from cryptography import x509

from providers.errors import NotGranted
from providers.pki.spiffe import Kind, SpiffeId

_RIGHTS = {Kind.SERVICE: "service:write", Kind.AGENT: "node:write", Kind.MESH_GATEWAY: "mesh:write"}

#: Of a server, as in Consul, where it is a right of servers alone; here nobody gets one this way.
_NEVER = "acl:write"


@dataclass(frozen=True, slots=True)
class NameGrant:
    """About the certificates of one name, or of all names that begin so."""

    is_given: bool
    dns: tuple[str, ...] = ()  # patterns, lower case
    networks: tuple[str, ...] = ()
    ttl_max_seconds: int = 0  # 0: as the CA is configured

    def packed(self) -> list[object]:
        return [self.is_given, self.dns, self.networks, self.ttl_max_seconds]

    @classmethod
    def unpacked(cls, packed: Sequence[Any]) -> "NameGrant":
        is_given, dns, networks, ttl_max_seconds = packed
        return cls(is_given, tuple(dns), tuple(networks), ttl_max_seconds)


@dataclass(frozen=True, slots=True)
class Names:
    """The very name decides, else the longest beginning of it, else the default."""

    exact: Mapping[str, NameGrant] = field(default_factory=dict)
    prefixes: Mapping[str, NameGrant] = field(default_factory=dict)
    default: NameGrant = NameGrant(is_given=False)

    def of(self, name: str) -> NameGrant:
        if (found := self.exact.get(name)) is not None:
            return found
        longest = max((prefix for prefix in self.prefixes if name.startswith(prefix)), key=len, default=None)
        return self.default if longest is None else self.prefixes[longest]

    def packed(self) -> list[object]:
        return [
            {name: grant.packed() for name, grant in self.exact.items()},
            {name: grant.packed() for name, grant in self.prefixes.items()},
            self.default.packed(),
        ]

    @classmethod
    def unpacked(cls, packed: Sequence[Any]) -> "Names":
        exact, prefixes, default = packed
        return cls(
            {name: NameGrant.unpacked(grant) for name, grant in exact.items()},
            {name: NameGrant.unpacked(grant) for name, grant in prefixes.items()},
            NameGrant.unpacked(default),
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """All that one caller may have. `hosts_are_free`: DNS names and addresses are not looked at."""

    services: Names
    nodes: Names
    gateways: NameGrant
    hosts_are_free: bool = False

    def packed(self) -> list[object]:
        return [self.services.packed(), self.nodes.packed(), self.gateways.packed(), self.hosts_are_free]

    @classmethod
    def unpacked(cls, packed: Sequence[Any]) -> "Grant":
        services, nodes, gateways, hosts_are_free = packed
        return cls(
            Names.unpacked(services), Names.unpacked(nodes), NameGrant.unpacked(gateways), hosts_are_free=hosts_are_free
        )

    def check(self, identity: SpiffeId, hosts: Sequence[x509.GeneralName]) -> NameGrant:
        """Whether a certificate of this identity, with these DNS names and addresses, may be had; and by what.

        Raises: NotGranted, whose text goes on where somebody has said who asks.
        """
        grant = self._of(identity)
        if not grant.is_given:
            on = f' on "{identity.name}"' if identity.name else ""
            raise NotGranted(f"lacks permission '{_RIGHTS.get(identity.kind, _NEVER)}'{on}")
        if not self.hosts_are_free:
            for host in hosts:
                if not _is_covered(host, grant):
                    raise NotGranted(_refusal(host, identity, grant))
        return grant

    def _of(self, identity: SpiffeId) -> NameGrant:
        match identity.kind:
            case Kind.SERVICE:
                return self.services.of(identity.name)
            case Kind.AGENT:
                return self.nodes.of(identity.name)
            case Kind.MESH_GATEWAY:
                return self.gateways
            case _:
                return NameGrant(is_given=False)


def _is_covered(host: x509.GeneralName, grant: NameGrant) -> bool:
    if isinstance(host, x509.DNSName):
        return any(_compiled(pattern).fullmatch(host.value.lower()) is not None for pattern in grant.dns)
    address = host.value
    return isinstance(address, IPv4Address | IPv6Address) and any(
        address in ip_network(text) for text in grant.networks
    )


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
