"""The keeper: the one process of a node that has the seal key and the data key, and all that is asked of it.

A node's main process speaks to the network and parses what strangers send; whatever is in its memory is one fault of a
parser away from them. So it starts one more process (keeper_process.py), which reads the seal key, opens the data key,
and from then on opens and seals for it. What is opened leaves it covered (cover.py): the main process carries it to the
processes that sign, and does not look inside. It could: whoever runs code of their own there can ask for the key of the
cover. What is kept from them is what reads memory.

What leaves it bare gives away no secret of the CA, and the main process needs it all the time: the key that serials are
drawn with, derived from the data key (RFC 5869), the one of the MACs on the node's own files, and what access control
has sealed, which is the key that tokens are looked up with, and the credentials of auth methods.

Everything here is plain values, so that it can be asked over a socket; `Keeper` is what answers, and is the same in the
process and in tests that need none.
"""

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from cluster.seal.cover import COVER_KEY_BYTES, Cover
from cluster.seal.disk_key import DiskKey, DiskKeyFile
from cluster.seal.records import PlainRecord, open_record, seal_record
from cluster.seal.sealer import Sealer
from cluster.seal.sources import KeyAt, KeyPlaces, key_source, next_sources
from fsm.ca import SealKey

#: Seals whose data key is kept open beside the one in use: of a snapshot that is restored, of a change of the seal key.
_MOST_OPEN: Final = 4
#: For so long, so that a passphrase is not stretched for every part of a snapshot.
_OPEN_SECONDS: Final = 60.0
#: Before the purpose of what may leave the keeper bare: no provider's record has such a purpose, so none opens so.
_BARE: Final = "access control: "


@dataclass(frozen=True, slots=True)
class CoveredRecord:
    """As `PlainRecord`, its secrets and its state covered."""

    secrets: Mapping[str, bytes] = field(repr=False)
    state: bytes = field(repr=False)
    config_json: str


class KeeperCalls(Protocol):
    """What a node asks of its keeper; each call may raise SealError, whose text says what to do, and KeeperLost."""

    def check_node(self, facts: Mapping[str, Any] | None) -> None:
        """At start: is the seal key there, and is it the one this data directory was used with?"""
        ...

    def open_disk_key(self, *, accepts_without: bool, always_requires: bool) -> DiskKey:
        """See `DiskKeyFile.open`. Raises: OSError."""
        ...

    def establish_disk_key(self) -> None:
        """See `DiskKeyFile.establish`. Raises: OSError."""
        ...

    def follow_disk_key(self) -> None:
        """See `DiskKeyFile.follow`, of the seal that `unlock` has taken into use. Raises: OSError."""
        ...

    def new_data_key(self) -> SealKey: ...
    def next_data_key(self, before: SealKey, *, keeps_key: bool) -> SealKey:
        """See `Sealer.next_data_key`."""
        ...

    def lacks(self, source: str, kek_id: str, salt: bytes) -> str:
        """Why this node could not open a seal with this key; empty if it could."""
        ...

    def unlock(self, seal: SealKey) -> bytes:
        """Take this seal's data key into use; its draw key."""
        ...

    def draw_key(self, seal: SealKey) -> bytes:
        """Of any seal that this node's key opens; see `Sealer.draw_key`."""
        ...

    def mac(self, seal: SealKey, sums: bytes) -> bytes:
        """See `Sealer.mac`."""
        ...

    def proof(self, seal: SealKey, request: bytes) -> bytes:
        """See `Sealer.proof`."""
        ...

    def key_at(self) -> KeyAt:
        """See `Sealer.key_at`."""
        ...

    def open_record(self, seal: SealKey, purpose: str, sealed: bytes) -> CoveredRecord:
        """Raises: RecordUnreadable."""
        ...

    def seal_record(self, seal: SealKey, purpose: str, record: CoveredRecord) -> bytes: ...
    def open_bare(self, seal: SealKey, what: str, sealed: bytes) -> bytes:
        """What access control has sealed, uncovered: the main process needs it all the time. Of nothing else."""
        ...

    def seal_bare(self, seal: SealKey, what: str, plain: bytes) -> bytes: ...
    def cover_values(self, values: Mapping[str, object]) -> Mapping[str, bytes]:
        """What an operator has just given, as every other process of this node may see it."""
        ...


def new_cover_key() -> bytes:
    return secrets.token_bytes(COVER_KEY_BYTES)


class Keeper:
    """Implements `KeeperCalls`. May be asked from several threads at once."""

    def __init__(self, sealer: Sealer, disk_key: DiskKeyFile, cover: Cover) -> None:
        self._sealer = sealer
        self._disk_key = disk_key
        self._cover = cover
        self._others = _OpenSeals()

    @classmethod
    def of(cls, places: KeyPlaces, node_name: str, cover_key: bytes, variables: Mapping[str, str]) -> "Keeper":
        """`variables`: where the passphrase is, if it came by the environment. Raises: SealError."""
        sealer = Sealer(key_source(places, variables), *next_sources(places))
        return cls(sealer, DiskKeyFile(Path(places.data_dir), node_name, sealer), Cover(cover_key))

    def check_node(self, facts: Mapping[str, Any] | None) -> None:
        self._sealer.check_node(facts)

    def open_disk_key(self, *, accepts_without: bool, always_requires: bool) -> DiskKey:
        return self._disk_key.open(accepts_without=accepts_without, always_requires=always_requires)

    def establish_disk_key(self) -> None:
        self._disk_key.establish()

    def follow_disk_key(self) -> None:
        self._disk_key.follow()

    def new_data_key(self) -> SealKey:
        return self._sealer.new_data_key()

    def next_data_key(self, before: SealKey, *, keeps_key: bool) -> SealKey:
        return self._opened(before).next_data_key(keeps_key=keeps_key)

    def lacks(self, source: str, kek_id: str, salt: bytes) -> str:
        return self._sealer.lacks(source, kek_id, salt)

    def unlock(self, seal: SealKey) -> bytes:
        self._sealer.unlock(seal)
        self._others.clear()  # a data key that is out of use is not kept
        return self._sealer.draw_key()

    def draw_key(self, seal: SealKey) -> bytes:
        return self._opened(seal).draw_key()

    def mac(self, seal: SealKey, sums: bytes) -> bytes:
        return self._opened(seal).mac(sums)

    def proof(self, seal: SealKey, request: bytes) -> bytes:
        return self._opened(seal).proof(request)

    def key_at(self) -> KeyAt:
        return self._sealer.key_at()

    def open_record(self, seal: SealKey, purpose: str, sealed: bytes) -> CoveredRecord:
        record = open_record(self._opened(seal), purpose, sealed)
        return CoveredRecord(
            self._cover.cover_values(record.secrets), self._cover.cover(record.state), record.config_json
        )

    def seal_record(self, seal: SealKey, purpose: str, record: CoveredRecord) -> bytes:
        plain = PlainRecord(
            self._cover.uncover_values(record.secrets), self._cover.uncover(record.state), record.config_json
        )
        return seal_record(self._opened(seal), purpose, plain)

    def open_bare(self, seal: SealKey, what: str, sealed: bytes) -> bytes:
        return self._opened(seal).open(sealed, _BARE + what)

    def seal_bare(self, seal: SealKey, what: str, plain: bytes) -> bytes:
        return self._opened(seal).seal(plain, _BARE + what)

    def cover_values(self, values: Mapping[str, object]) -> Mapping[str, bytes]:
        return self._cover.cover_values(values)

    def _opened(self, seal: SealKey) -> Sealer:
        """Raises: SealError."""
        if self._sealer.holds(seal):
            return self._sealer.opened(seal)  # which no later change of the one in use changes
        return self._others.get(seal, self._sealer)


class _OpenSeals:
    """Other seals than the one in use, for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[SealKey, Sealer] = {}
        self._clearances = 0

    def get(self, seal: SealKey, opener: Sealer) -> Sealer:
        """Raises: SealError."""
        with self._lock:
            found, before = self._open.get(seal), self._clearances
        if found is not None:
            return found
        opened = opener.opened(seal)  # others go on while a passphrase is stretched
        forget = threading.Timer(_OPEN_SECONDS, self._forget, (seal, opened))
        forget.daemon = True
        forget.start()
        with self._lock:
            if self._clearances == before:
                while len(self._open) >= _MOST_OPEN:
                    del self._open[next(iter(self._open))]
                self._open[seal] = opened
        return opened

    def clear(self) -> None:
        with self._lock:
            self._open.clear()
            self._clearances += 1

    def _forget(self, seal: SealKey, opened: Sealer) -> None:
        with self._lock:
            if self._open.get(seal) is opened:
                del self._open[seal]
