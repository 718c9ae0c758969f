"""What certificates whoever asks may have. Made by the caller from what it knows of who asks: here nothing is known of
tokens and policies. It travels with its CSR to the process that signs, and is judged there (`providers.pki.granted`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack


@dataclass(frozen=True, slots=True)
class NameGrant:
    """About the certificates of one name, or of all names that begin so."""

    is_given: bool
    #: Patterns, lower case, and networks; None: any that the CA has for anybody.
    dns: tuple[str, ...] | None = ()
    networks: tuple[str, ...] | None = ()
    ttl_max_seconds: int = 0  # 0: as the CA is configured

    def packed(self) -> list[object]:
        return [self.is_given, self.dns, self.networks, self.ttl_max_seconds]

    @classmethod
    def unpacked(cls, packed: Sequence[Any]) -> "NameGrant":
        is_given, dns, networks, ttl_max_seconds = packed
        return cls(
            is_given,
            None if dns is None else tuple(dns),
            None if networks is None else tuple(networks),
            ttl_max_seconds,
        )


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
    """All that one caller may have."""

    services: Names
    nodes: Names
    gateways: NameGrant

    def to_bytes(self) -> bytes:
        """As it goes to a worker."""
        data: bytes = msgpack.packb([self.services.packed(), self.nodes.packed(), self.gateways.packed()])
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "Grant":
        services, nodes, gateways = msgpack.unpackb(data)
        return cls(Names.unpacked(services), Names.unpacked(nodes), NameGrant.unpacked(gateways))


ANYTHING = NameGrant(is_given=True, dns=None, networks=None)
#: Of a caller whom no rule binds.
EVERYTHING = Grant(Names(default=ANYTHING), Names(default=ANYTHING), ANYTHING)
