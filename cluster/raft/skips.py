"""Entries that this node passes over when their turn comes: an operator's way out of an entry that ends every node.

Owns the file `skipped-entries.json` beside the log, which stays as it is: a release that does not know of the file
reads the log as ever (and would end at the entry as ever). Each mark names its entry by index, term and digest, so it
can mean no other one. The same marks on all nodes, or their states part. A mark changes what is applied, so the file
has a MAC of the node (macs.py) where there is a key.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass
from typing import Any, Final

from cluster.raft.disk import Disk, write_atomically
from cluster.raft.journal import Entry, JournalDamaged
from cluster.raft.macs import REMEDY, FileMacs, is_same

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


def load_skips(disk: Disk, directory: str, macs: FileMacs | None = None) -> frozenset[Skip]:
    """Raises: JournalDamaged for a file that is not what `save_skips` writes: without it the node would go another way
    than the others, and with one of somebody else's too.
    """
    path = os.path.join(directory, FILE)
    if not disk.exists(path):
        return frozenset()
    try:
        content = json.loads(disk.read(path))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r} is not known")
        skips = frozenset(_skip(**found) for found in content["entries"])
        mac = bytes.fromhex(content.get("mac", ""))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise JournalDamaged(f"{path}: {error!r:.200}") from error
    # No marks are as good as no file, which anybody can remove.
    if macs is not None and skips:
        _check_mac(path, skips, mac, macs)
    return skips


def _skip(log_index: Any, term: Any, sha256: Any) -> Skip:
    if type(log_index) is not int or type(term) is not int or type(sha256) is not str:
        raise ValueError("fields of a wrong type")
    return Skip(log_index, term, sha256)


def _check_mac(path: str, skips: Iterable[Skip], mac: bytes, macs: FileMacs) -> None:
    """Raises: JournalDamaged."""
    if not mac and not macs.is_required:
        return
    if not mac:
        raise JournalDamaged(
            f"{path}: it has no MAC: it was not written by this release; remove it and mark the entries again (quorumca"
            f" operator raft skip-entry), or, {REMEDY}"
        )
    if not is_same(mac, _mac(skips, macs)):
        raise JournalDamaged(
            f"{path}: its MAC is wrong: it was changed by somebody who does not have this node's key; remove it and"
            " mark the entries again (quorumca operator raft skip-entry)"
        )


def _rows(skips: Iterable[Skip]) -> list[dict[str, Any]]:
    return [asdict(skip) for skip in sorted(skips, key=astuple)]


def _mac(skips: Iterable[Skip], macs: FileMacs) -> bytes:
    """Of what the file says, however it is laid out."""
    return macs.skips(json.dumps([list(row.values()) for row in _rows(skips)]).encode())


def save_skips(disk: Disk, directory: str, skips: Iterable[Skip], macs: FileMacs | None = None) -> None:
    """Durable on return. Raises: OSError."""
    skips = frozenset(skips)
    content: dict[str, Any] = {"format": _FORMAT, "entries": _rows(skips)}
    if macs is not None:
        content["mac"] = _mac(skips, macs).hex()  # the release before does not look at it
    data = json.dumps(content, indent=2) + "\n"
    write_atomically(disk, os.path.join(directory, FILE), data.encode())
