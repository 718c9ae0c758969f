"""Certificates for services, agents and gateways."""

from dataclasses import dataclass, field


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
