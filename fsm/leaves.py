"""Issued certificates: what is recorded about each, and the commands of their record. The record is `fsm.ledger`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

from fsm.fields import Digest, KeyId, LeafTime, Length, OneOf, RequestId, Serial, Text, Time, Uri


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


def kind_label(number: int) -> str:
    """Of a record, whatever number it holds: what an earlier release took into its log cannot be taken back."""
    try:
        return LeafKind(number).label
    except ValueError:
        return f"unknown-{number}"


#: Characters of what is recorded of who asked.
MAX_REQUESTER: Final = 256
#: In one command.
MAX_RECORDS: Final = 1024

#: By the label that clients use.
LEAF_KINDS: Final[Mapping[str, LeafKind]] = {kind.label: kind for kind in LeafKind}


@dataclass(frozen=True, slots=True)
class LeafRecord:
    """One issued certificate. These are the bounds of what may be proposed; what may be on record, and so in a copy, is
    all that a ledger can hold (`fsm.ledger.check_row`).
    """

    serial: Serial
    kind: Annotated[int, OneOf(frozenset(LeafKind), f"one of {', '.join(map(str, map(int, LeafKind)))}")]
    name: Uri  # service or node name
    spiffe_id: Uri
    public_key_sha256: Digest
    not_before: LeafTime
    not_after: LeafTime
    requested_by: Annotated[str, Text(0, MAX_REQUESTER)]
    # Identifies the request where the serial does not: a provider whose backend picks serials. Empty otherwise.
    request_id: RequestId = b""


@dataclass(frozen=True, slots=True)
class RecordLeaves:
    """Certificates signed by one key, recorded before they leave the cluster."""

    issuer_key_id: KeyId
    records: Annotated[tuple[LeafRecord, ...], Length(0, MAX_RECORDS)]


@dataclass(frozen=True, slots=True)
class TidyLedger:
    """Drop the records of certificates that expired before this time."""

    expired_before: Time


LeafCommand = RecordLeaves | TidyLedger
