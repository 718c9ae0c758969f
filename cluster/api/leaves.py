"""Certificates for services, agents and gateways."""

from dataclasses import dataclass, field
from typing import Protocol

from cluster.api.access import Caller


@dataclass(frozen=True, slots=True)
class IssuedCert:
    """A certificate that was signed and recorded."""

    serial: int
    cert_pem: str  # leaf first, then every certificate up to but not including the root; newline-terminated
    kind: str  # "service" | "agent" | "mesh-gateway" | "server"
    name: str  # service or node; "" for a mesh gateway or server
    spiffe_id: str
    not_before: int  # Unix seconds
    not_after: int
    index: int  # state index of its record: CreateIndex and ModifyIndex


@dataclass(frozen=True, slots=True)
class LocalLeaf:
    """A leaf that this node holds for a local service, with its private key."""

    cert: IssuedCert
    private_key_pem: str = field(repr=False)
    is_hit: bool  # answered from what was there: X-Cache
    age_seconds: int  # since it was issued


class Leaves(Protocol):
    """Certificates for services, agents and gateways."""

    async def sign(self, caller: Caller, csr_pem: str, requested_by: str) -> IssuedCert:
        """Signed, recorded on a majority, and only then returned.

        Raises: CSRRejected (400), RateLimitReached (429), NotReady, NoLeader, Overloaded (503), CommitUnknown (504),
        InternalError, ProviderError (500).
        """
        ...

    async def leaf(
        self, caller: Caller, service: str, requested_by: str, *, index: int = 0, timeout_seconds: float = 0.0
    ) -> LocalLeaf:
        """The leaf of a local service, made or renewed when it is due.

        With `index` at or above the present leaf's: wait until it is renewed, or for the time-out.
        Raises: as `sign`; CSRRejected for a name that cannot be one.
        """
        ...
