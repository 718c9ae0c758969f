"""Snapshots for keeping."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cluster.api.access import Caller
from cluster.api.reads import ReadLevel


@dataclass(frozen=True, slots=True)
class Meta:
    """What `inspect` shows."""

    format: int
    index: int
    log_index: int
    created_at: int  # Unix seconds
    datacenter: str
    node: str
    trust_domain: str
    active_root_id: str
    roots: int
    certificates: int
    seal_source: str
    seal_key_id: str
    #: Why a restore will refuse the file: what a release before had on record and this one takes from nobody. Else "".
    not_restorable: str = ""


class Backups(Protocol):
    """The CA and the record of certificates as a file."""

    async def save_snapshot(self, path: Path, level: ReadLevel) -> Meta:
        """Write the CA and the record of certificates to this file; what it holds.

        Raises: Refused before there is a CA, or for one that no file can hold; NoLeader, OSError.
        """
        ...

    async def restore_snapshot(self, caller: Caller, path: Path, *, is_forced: bool) -> tuple[str, ...]:
        """Put the CA of this file in the place of the present one; what an operator must be told of it, line by line:
        roots that are trusted now and were not before.

        Raises: Refused (422: no snapshot, damaged, changed, sealed with another key, or something that only an operator
        can know to be meant, unless `is_forced`; the CA was not changed, nor the record but where other changes of the
        CA came first), OSError, NoLeader, CommitUnknown, InternalError.
        """
        ...
