"""What the rest of a node has of its seal: everything that needs the data key, asked of the keeper (keeper.py).

Nothing here holds a key that opens what is sealed.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.seal.keeper import CoveredRecord, KeeperCalls
from cluster.seal.sealer import facts_of
from cluster.seal.sources import KeyAt, SealError
from fsm.ca import SealKey


@dataclass(frozen=True, slots=True)
class _Held:
    """One value: a seal is taken into use in another thread than those that look."""

    seal: SealKey
    draw_key: bytes = field(repr=False)


class NodeSealer:
    """Seals and opens once it has been told of the cluster's seal. Calls wait for the keeper, which takes a fraction of
    a millisecond; those that may stretch a passphrase say so.
    """

    def __init__(self, keeper: KeeperCalls) -> None:
        self._keeper = keeper
        self._held: _Held | None = None

    def unlock(self, seal: SealKey) -> None:
        """Take the cluster's data key into use. Slow with a passphrase.

        Raises: SealError when this node's key does not open it.
        """
        if not self.holds(seal):
            self._held = _Held(seal, self._keeper.unlock(seal))

    def opened(self, seal: SealKey) -> "NodeSealer":
        """A sealer for this seal, whatever this one is unlocked with later. It takes this node's key, and may take it
        again after a minute, but for the seal in use: there the key may be lost while nodes run. Slow with a
        passphrase. Raises: SealError.
        """
        other = NodeSealer(self._keeper)
        other._held = _Held(seal, self._keeper.draw_key(seal))
        return other

    def new_data_key(self) -> SealKey:
        """A fresh data key, wrapped. It is in use only once it has been committed and `unlock` was called. Slow with a
        passphrase.
        """
        return self._keeper.new_data_key()

    def next_data_key(self, *, keeps_key: bool) -> SealKey:
        """As `Sealer.next_data_key`. Slow with a passphrase. Raises: SealError, which says what to do."""
        return self._keeper.next_data_key(self._in_use().seal, keeps_key=keeps_key)

    def holds(self, seal: SealKey) -> bool:
        """Whether it is the one in use: `unlock` has nothing to do."""
        return self._held is not None and self._held.seal == seal

    def lacks(self, source: str, kek_id: str, salt: bytes) -> str:
        """Why this node could not open a seal with this key; empty if it could. Slow with a passphrase."""
        return self._keeper.lacks(source, kek_id, salt)

    def key_at(self) -> KeyAt:
        """Where the key in force is found now. Slow with a passphrase."""
        return KeyAt.FIRST if self._held is None else self._keeper.key_at()

    # -- what a provider has, under a cover

    def open_record(self, purpose: str, sealed: bytes) -> CoveredRecord:
        """Raises: SealError when the bytes were not sealed by this cluster for this purpose; RecordUnreadable."""
        return self._keeper.open_record(self._in_use().seal, purpose, sealed)

    def seal_record(self, purpose: str, record: CoveredRecord) -> bytes:
        """Raises: SealError."""
        return self._keeper.seal_record(self._in_use().seal, purpose, record)

    def cover_values(self, values: Mapping[str, object]) -> Mapping[str, bytes]:
        """The secrets of a configuration that was just given, by name; the value "" is nothing to cover."""
        return self._keeper.cover_values(values)

    # -- what access control has sealed

    def open_bare(self, what: str, sealed: bytes) -> bytes:
        """Raises: SealError when the bytes were not sealed by this cluster, or not for this."""
        return self._keeper.open_bare(self._in_use().seal, what, sealed)

    def seal_bare(self, what: str, plain: bytes) -> bytes:
        """Raises: SealError."""
        return self._keeper.seal_bare(self._in_use().seal, what, plain)

    # -- what is derived from the data key

    def mac(self, sums: bytes) -> bytes:
        """Of a snapshot for keeping: HMAC-SHA256 of its sums. Raises: SealError before `unlock`."""
        return self._keeper.mac(self._in_use().seal, sums)

    def draw(self, request: bytes) -> bytes:
        """32 bytes for a request, the same whenever it is sent; without the data key nobody chooses or foresees them.

        Raises: SealError before `unlock`.
        """
        return hmac.digest(self._in_use().draw_key, request, "sha256")

    def proof(self, request: bytes) -> bytes:
        """That whoever sends this request has the cluster's data key: 32 bytes. Raises: SealError before `unlock`."""
        return self._keeper.proof(self._in_use().seal, request)

    def node_facts(self) -> dict[str, str] | None:
        """What is compared after the next start; None before `unlock`."""
        held = self._held
        return None if held is None else facts_of(held.seal)

    def _in_use(self) -> _Held:
        """Raises: SealError before `unlock`."""
        held = self._held
        if held is None:
            raise SealError("the cluster has no seal yet")
        return held
