"""Issued certificates: what is recorded about each, and the commands of their record. The record is `fsm.ledger`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class LeafKind(IntEnum):
    """What a certificate was issued for. The numbers are in the log and in the ledger: never reuse one."""

    SERVICE = 1
    AGENT = 2
    MESH_GATEWAY = 3
    SERVER = 4
    INTERMEDIATE = 5

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


#: By the label that clients use.
LEAF_KINDS: Final[Mapping[str, LeafKind]] = {kind.label: kind for kind in LeafKind}


@dataclass(frozen=True, slots=True)
class LeafRecord:
    """One issued certificate."""

    serial: bytes  # minimal big-endian
    kind: int  # LeafKind
    name: str  # service or node name
    spiffe_id: str
    public_key_sha256: bytes
    not_before: int
    not_after: int
    requested_by: str
    # Identifies the request where the serial does not: a provider whose backend picks serials. Empty otherwise.
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class RecordLeaves:
    """Certificates signed by one key, recorded before they leave the cluster."""

    issuer_key_id: bytes
    records: tuple[LeafRecord, ...]


@dataclass(frozen=True, slots=True)
class TidyLedger:
    """Drop the records of certificates that expired before this time."""

    expired_before: int


LeafCommand = RecordLeaves | TidyLedger
