"""Entries that this node passes over when their turn comes: an operator's way out of an entry that ends every node.

Owns the file `skipped-entries.json` beside the log, which stays as it is: a release that does not know of the file
reads the log as ever (and would end at the entry as ever). Each mark names its entry by index, term and digest, so it
can mean no other one. The same marks on all nodes, or their states part.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from cluster.raft.disk import Disk, write_atomically
from cluster.raft.journal import Entry, JournalDamaged

FILE: Final = "skipped-entries.json"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Skip:
    """One entry. `sha256` is over its command, in hex."""

    log_index: int
    term: int
    sha256: str

    @classmethod
    def of(cls, entry: Entry) -> "Skip":
        return cls(entry.log_index, entry.term, hashlib.sha256(entry.command).hexdigest())


def load_skips(disk: Disk, directory: str) -> frozenset[Skip]:
    """Raises: JournalDamaged for a file that is not what `save_skips` writes: without it the node would go another way
    than the others.
    """
    path = os.path.join(directory, FILE)
    if not disk.exists(path):
        return frozenset()
    try:
        content = json.loads(disk.read(path))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r} is not known")
        return frozenset(_skip(**found) for found in content["entries"])
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise JournalDamaged(f"{path}: {error!r:.200}") from error


def _skip(log_index: Any, term: Any, sha256: Any) -> Skip:
    if type(log_index) is not int or type(term) is not int or type(sha256) is not str:
        raise ValueError("fields of a wrong type")
    return Skip(log_index, term, sha256)


def save_skips(disk: Disk, directory: str, skips: Iterable[Skip]) -> None:
    """Durable on return. Raises: OSError."""
    entries = [asdict(skip) for skip in sorted(skips, key=lambda skip: skip.log_index)]
    content = json.dumps({"format": _FORMAT, "entries": entries}, indent=2) + "\n"
    write_atomically(disk, os.path.join(directory, FILE), content.encode())
