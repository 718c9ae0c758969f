"""How a node gets what the leader's log no longer holds: the snapshot, then the bulk data it stands on.

The node that lags pulls, one part at a time, so the leader keeps no state for it, a slow node slows nobody, and a
transfer goes on where it stopped, across restarts too: bulk data is kept as it arrives. What one server sent is not
built on when another one offers its snapshot: one of them may lie. Reading bulk data happens off the Raft thread.
"""

from collections.abc import Callable
from typing import Final, Protocol

from cluster.base.log import Log, Seldom
from cluster.raft import snapshot as snapshots
from cluster.raft.codec import Message
from cluster.raft.snapshot import MAX_HEAD_BYTES, MAX_STATE_BYTES, Snapshot, SnapshotDamaged

PART_BYTES: Final = 256 << 10
_REPEAT_SECONDS: Final = 1.0


class BulkData(Protocol):
    """The part of the state machine that is too big for a snapshot: append-only, and the same on every node."""

    def bulk_position(self) -> int:
        """How far this node's bulk data reaches."""
        ...

    def bulk_read(self, after: int, state: bytes) -> tuple[bytes, bool]:
        """The part that follows `after` of what `state` stands on, and whether it is the last. In any thread."""
        ...

    def bulk_begin(self, log_index: int, state: bytes) -> None:
        """Parts of what `state` stands on will come: `bulk_restart` if what is here goes further, for then it is of
        something else. Raises: ValueError for what is no state.
        """
        ...

    def bulk_write(self, part: bytes, log_index: int, state: bytes) -> None:
        """Add a part that another node's `bulk_read` gave of a snapshot; it counts once that is installed.

        Raises: ValueError when it does not fit, or the snapshot does not stand on it.
        """
        ...

    def bulk_restart(self, log_index: int) -> None:
        """Forget parts whose snapshot was not installed; this node has applied all up to `log_index`."""
        ...


class SnapshotSource:
    """The leader's side."""

    def __init__(
        self,
        send: Callable[[str, Message], bool],
        bulk: BulkData,
        in_background: Callable[[Callable[[], object], Callable[[object], None]], None],
    ) -> None:
        self._send = send
        self._bulk = bulk
        self._in_background = in_background
        self._snapshot: Snapshot | None = None
        self._encoded = b""
        self._reading: set[str] = set()

    @property
    def log_index(self) -> int | None:
        return None if self._snapshot is None else self._snapshot.log_index

    def use(self, snapshot: Snapshot) -> None:
        """Offer this one from now on; it is durable already."""
        self._snapshot = snapshot
        self._encoded = snapshot.encode()

    def incoming(self, peer: str, message: Message) -> None:
        snapshot = self._snapshot
        if snapshot is None or message["log_index"] != snapshot.log_index:
            return  # superseded: the next offer names the present one
        if message["type"] == "pull_snapshot":
            offset = message["offset"]
            part = self._encoded[offset : offset + PART_BYTES]
            head = {"type": "snapshot_part", "log_index": snapshot.log_index, "offset": offset}
            self._send(peer, {**head, "total": len(self._encoded), "data": part})
        elif peer not in self._reading:
            self._reading.add(peer)
            after, state = message["after"], snapshot.state

            def reply(result: object) -> None:
                self._reading.discard(peer)
                if isinstance(result, tuple):
                    part, is_last = result
                    head = {"type": "bulk_part", "log_index": snapshot.log_index, "after": after}
                    self._send(peer, {**head, "data": part, "is_last": is_last})

            self._in_background(lambda: self._bulk.bulk_read(after, state), reply)


class CatchUp:
    """The side of the node that lags."""

    def __init__(
        self,
        send: Callable[[str, Message], bool],
        bulk: BulkData,
        applied_index: Callable[[], int],
        install: Callable[[Snapshot], None],
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._send = send
        self._bulk = bulk
        self._applied_index = applied_index
        self._install = install
        self._clock = clock
        self._log = log
        self._log_seldom = Seldom(log, clock)  # what a server can have said as often as it likes
        self._source: tuple[str, int] | None = None
        self._buffer = bytearray()
        self._snapshot: Snapshot | None = None
        self._sender: str | None = None  # of the bulk data that came last
        self._asked = 0.0
        # Since `_copied_from`, for whoever wants to know what a transfer that was cut short has sent again.
        self._copied_from: int | None = None
        self._parts = 0
        self._part_bytes = 0

    @property
    def is_active(self) -> bool:
        return self._source is not None

    def offered(self, peer: str, log_index: int | None) -> None:
        """The leader has no more entries for this node, but a snapshot at `log_index`."""
        if log_index is None or log_index <= self._applied_index():
            return
        if self._source != (peer, log_index):
            if self._sender not in (None, peer):
                self._bulk.bulk_restart(self._applied_index())
                self._sender = None
            position = self._bulk.bulk_position()
            self._log_seldom("snapshot.wanted", peer, source=peer, log_index=log_index, bulk_position=position)
            if self._copied_from is None:
                self._copied_from = position
            self._source, self._snapshot = (peer, log_index), None
            self._buffer.clear()
            self._ask()
        elif self._clock() - self._asked > _REPEAT_SECONDS:
            self._ask()

    def incoming(self, peer: str, message: Message) -> None:
        if self._source != (peer, message["log_index"]):
            return
        if message["type"] == "snapshot_part":
            self._snapshot_part(message)
        else:
            self._bulk_part(peer, message)

    def _snapshot_part(self, message: Message) -> None:
        if self._snapshot is not None or message["offset"] != len(self._buffer) or not message["data"]:
            return  # repeated
        self._buffer += message["data"]
        if len(self._buffer) > message["total"] or message["total"] > MAX_STATE_BYTES + MAX_HEAD_BYTES:
            self._give_up("snapshot is longer than announced")
            return
        if len(self._buffer) == message["total"]:
            try:
                self._snapshot = snapshots.decode(bytes(self._buffer))
            except SnapshotDamaged as error:
                self._give_up(str(error))
                return
            if self._snapshot.log_index != message["log_index"]:
                self._give_up(f"it ends at entry {self._snapshot.log_index}: announced was {message['log_index']}")
                return
            self._buffer.clear()
            try:
                self._bulk.bulk_begin(self._applied_index(), self._snapshot.state)
            except ValueError as error:
                self._give_up(str(error))
                return
        self._ask()

    def _bulk_part(self, peer: str, message: Message) -> None:
        if self._snapshot is None or message["after"] != self._bulk.bulk_position():
            return  # repeated
        snapshot = self._snapshot
        try:
            self._bulk.bulk_write(message["data"], snapshot.log_index, snapshot.state)
        except ValueError as error:
            # At fault may be what is here, from an earlier transfer or a release that believed more.
            self._bulk.bulk_restart(self._applied_index())
            self._give_up(str(error))
            return
        self._sender = peer
        self._parts += 1
        self._part_bytes += len(message["data"])
        if message["is_last"]:
            self._source = self._snapshot = None
            self._log_copied()
            self._install(snapshot)
        else:
            self._ask()

    def _ask(self) -> None:
        if self._source is None:
            return
        self._asked = self._clock()
        peer, log_index = self._source
        if self._snapshot is None:
            self._send(peer, {"type": "pull_snapshot", "log_index": log_index, "offset": len(self._buffer)})
        else:
            self._send(peer, {"type": "pull_bulk", "log_index": log_index, "after": self._bulk.bulk_position()})

    def _log_copied(self) -> None:
        position = self._bulk.bulk_position()
        self._log(
            "bulk.copied", after=self._copied_from, position=position, parts=self._parts, part_bytes=self._part_bytes
        )
        self._copied_from, self._parts, self._part_bytes = None, 0, 0

    def _give_up(self, reason: str) -> None:
        """Start again with the leader's next offer."""
        peer = self._source[0] if self._source else ""
        self._log_seldom("snapshot.refused", peer, source=peer, reason=reason)
        self._source, self._snapshot = None, None
        self._buffer.clear()
