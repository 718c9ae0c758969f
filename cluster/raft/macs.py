"""MACs of the files that a node starts from: journal, snapshot and marks of entries to be passed over are taken only as
this node, or a command of its operator, has written them.

Their checksums find what a disk does. They do not stop anybody who can write to the data directory and computes them
anew, and what such a file says is applied: a root, a member, a vote. So each synced group of the journal, each snapshot
and the file of marks have a MAC too, under a key that the seal key wraps (cluster/seal/disk_key.py). DESIGN.md says
what that cannot do.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

MAC_BYTES: Final = 16
#: What to do when files without MACs are no surprise.
REMEDY: Final = (
    "if the release before has run on this data directory since, start it once with"
    " `quorumca agent --accept-files-without-mac`"
)
#: In the place of the MAC before the first one.
NO_MAC: Final = bytes(MAC_BYTES)
_GROUP: Final = b"quorumca wal 1"
_SNAPSHOT: Final = b"quorumca snap 1"
_SKIPS: Final = b"quorumca skips 1"
_SEQ_BYTES: Final = 8


def nothing() -> None:
    """What there is to do when nobody keeps a mark."""


@dataclass(frozen=True, slots=True)
class FileMacs:
    """One node's key. `is_required`: files without MACs are refused; else they are taken this once, and the node has
    them written anew before it does anything else, then calls `established`.
    """

    key: bytes = field(repr=False)
    is_required: bool = True
    established: Callable[[], None] = nothing

    def group(self, previous: bytes, seq: int, records: Iterable[bytes | memoryview]) -> bytes:
        """Of what one sync made durable: its records but the last, and the MAC of the group before, so that no group
        can be left out, moved or put into another segment.
        """
        digest = hashlib.blake2b(digest_size=MAC_BYTES, key=self.key, person=_GROUP)
        digest.update(previous)
        digest.update(seq.to_bytes(_SEQ_BYTES, "little"))
        for record in records:
            digest.update(record)
        return digest.digest()

    def snapshot(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=MAC_BYTES, key=self.key, person=_SNAPSHOT).digest()

    def skips(self, marks: bytes) -> bytes:
        return hashlib.blake2b(marks, digest_size=MAC_BYTES, key=self.key, person=_SKIPS).digest()


def is_same(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)
