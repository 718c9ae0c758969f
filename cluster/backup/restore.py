"""Saving this cluster's CA to a file, and putting a saved one in its place. The file's form is in file.py.

A restore is judged twice: by the node that was asked, before it sends anything, and by the leader, while nothing else
changes the CA. The leader cannot see the file, which may hold millions of records; that the state is the file's, and
that an operator has said `?force`, is the word of the node that was asked. It proves with the data key that it is one.
"""

import asyncio
import hmac
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from msgspec import structs

from cluster.api.backups import Meta
from cluster.backup import file as backup
from cluster.backup.content import ContentRefused, check_content
from cluster.backup.file import Row, Saved, SnapshotInvalid
from cluster.backup.resumed import given_up, rootless, waiting_anew, without_rootless
from cluster.backup.trust import TrustChange, trust_change
from cluster.base.clock import Clock
from cluster.base.errors import InternalError, LostRace, NotReady, Refused
from cluster.base.log import Log
from cluster.ca.candidate import Candidate
from cluster.ca.commit import commit
from cluster.ca.opened import Opener, sealed_again
from cluster.ca.parts import Parts
from cluster.raft.replica import Replica
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import (
    DONE,
    RESTORE_JUDGED,
    RESTORE_ROWS,
    JudgedRestoreRequest,
    Nothing,
    RestoreRequest,
    RestoreRowsRequest,
    RowMessage,
)
from cluster.seal.node_sealer import NodeSealer
from cluster.seal.records import RecordUnreadable
from cluster.seal.sources import SealError
from fsm.ca import SealKey
from fsm.codec import CodecError, dump_state, load_state
from fsm.commands import RestoreCA
from fsm.leaves import RecordLeaves
from fsm.ledger import LedgerReader
from fsm.state import State
from providers.pki import x509

#: Records in one log entry: well below what an entry may hold.
_ROWS_PER_ENTRY: Final = 500
_BARRIER_SECONDS: Final = 10.0
#: How often the CA is asked for, when other changes of it come first. Each of them needs somebody who makes it.
_ATTEMPTS: Final = 4
_CHANGED: Final = (
    "the CA changed while it was being restored: nothing was done. Restore again, without ?force first: the refusal"
    " says what the snapshot would add now"
)
_CHANGING: Final = "the CA changed again and again while it was being restored: nothing was done. Restore again"


class Snapshots:
    """Any node's side."""

    def __init__(
        self,
        replica: Replica,
        forwarder: Forwarder,
        sealer: NodeSealer,
        ledger_path: str,
        node_name: str,
        datacenter: str,
        clock: Clock,
        log: Log,
    ) -> None:
        self._replica = replica
        self._forwarder = forwarder
        self._sealer = sealer
        self._ledger_path = ledger_path
        self._node_name = node_name
        self._datacenter = datacenter
        self._clock = clock
        self._log = log

    async def save(self, path: Path) -> Meta:
        """Of what this node has applied: whole, and as of one moment. Raises: Refused before there is a CA, OSError."""
        log_index, state, _ = await self._replica.digest()
        await self._replica.flush_ledger()
        root = state.active_root
        if state.seal is None or state.config is None or root is None:
            raise Refused("there is no CA to save yet")
        meta = Meta(
            format=backup.FORMAT,
            index=state.index,
            log_index=log_index,
            created_at=int(self._clock.now()),
            datacenter=self._datacenter,
            node=self._node_name,
            trust_domain=state.trust_domain,
            active_root_id=root.root_id,
            roots=len(state.roots),
            certificates=0,
            seal_source=state.seal.source,
            seal_key_id=state.seal.kek_id,
        )
        return await asyncio.to_thread(self._write, path, meta, state, state.seal)

    def _write(self, path: Path, meta: Meta, state: State, seal: SealKey) -> Meta:
        reader = LedgerReader(self._ledger_path)
        try:
            sealer = self._sealer.opened(seal)
            return backup.write(
                path,
                meta,
                state,
                sealer.mac,
                lambda after: reader.export_rows(after, state.leaf_index, backup.PAGE_ROWS),
            )
        except SealError as error:  # at once; or, when the seal key was changed meanwhile, at the end
            raise Refused(f"the snapshot could not be given its MAC: {error}") from error
        finally:
            reader.close()

    async def restore(self, path: Path, *, is_forced: bool) -> tuple[str, ...]:
        """Everything is checked before anything is changed; the CA changes in one command, at the end. Returns what an
        operator must be told. `is_forced`: trust that comes back, and a file without a MAC, are meant.

        Raises: Refused (SnapshotInvalid, another seal key, not forced), OSError; NotReady before the cluster has a data
        key; NoLeader, CommitUnknown, InternalError (a leader of the release before among them).
        """
        saved = await asyncio.to_thread(backup.read, path)
        sealer = await asyncio.to_thread(check_seal, self._sealer, saved.state)
        is_authentic = _is_authentic(sealer, saved.sums, saved.mac)
        state, meant = await self._judged(saved.state, is_authentic=is_authentic, is_forced=is_forced)
        await asyncio.to_thread(_present, self._sealer, state)  # it will have to prove that it has it
        await asyncio.to_thread(check_content, saved.state, Opener(sealer), int(self._clock.now()))
        await asyncio.to_thread(saved.check_rows)
        pages = saved.pages()
        while page := await asyncio.to_thread(next, pages, None):
            for issuer, rows in _entries(page):
                records = RestoreRowsRequest(issuer, [RowMessage.of(row.record) for row in rows])
                await self._forwarder.call(RESTORE_ROWS, records)
        change = await self._ask_for_the_ca(saved, meant, is_forced=is_forced)
        self._log_restored(saved, change, is_forced=is_forced)
        await self._replica.read_barrier(timeout=_BARRIER_SECONDS)
        return (*change.notes(), *given_up(saved.state))

    async def _ask_for_the_ca(self, saved: Saved, meant: TrustChange, *, is_forced: bool) -> TrustChange:
        """Each request is for the CA as it is at that moment, and judged beside it: sending the records may have taken
        minutes, and another change of the CA may come first.

        Raises: as `restore`.
        """
        for _ in range(_ATTEMPTS):
            state, change = await self._judged(saved.state, is_authentic=meant.is_authentic, is_forced=is_forced)
            if is_forced and change.roots != meant.roots:
                raise Refused(_CHANGED)
            request = JudgedRestoreRequest(
                dump_state(saved.state), saved.sums, saved.mac, is_forced, state.ca_index, b""
            )
            proof = await asyncio.to_thread(_proof, self._sealer, state, request)
            try:
                await self._forwarder.call(RESTORE_JUDGED, structs.replace(request, proof=proof))
            except LostRace:
                continue
            return change
        raise Refused(_CHANGING)

    async def _judged(self, saved: State, *, is_authentic: bool, is_forced: bool) -> tuple[State, TrustChange]:
        """Beside the cluster's state of now. Raises: Refused, NoLeader."""
        await self._replica.read_barrier(timeout=_BARRIER_SECONDS)
        state = self._replica.state
        change = trust_change(state, saved, is_authentic=is_authentic)
        change.require(is_forced=is_forced)
        return state, change

    def _log_restored(self, saved: Saved, change: TrustChange, *, is_forced: bool) -> None:
        self._log(
            "snapshot.restored",
            trust_domain=saved.meta.trust_domain,
            saved_by=saved.meta.node,
            created_at=saved.meta.created_at,
            is_authentic=change.is_authentic,
            is_forced=is_forced,
            is_same_trust_domain=change.is_same_trust_domain,
            added_roots=[root.root_id for root in change.roots],
            removed_roots=[root.root_id for root in change.removed],
            given_up_rotation=_rootless_id(saved.state),
        )


class SnapshotWork:
    """The leader's side of a restore."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def rows(self, request: RestoreRowsRequest) -> Nothing:
        """Records that are there already are left alone. Raises: Refused, NotLeader, CommitUnknown."""
        if not request.rows:
            return DONE
        records = tuple(row.value() for row in request.rows)
        await commit(self._parts.replica, RecordLeaves(request.issuer_key_id, records))
        return DONE

    async def unjudged(self, _request: RestoreRequest) -> Nothing:
        """As the release before asks, which takes snapshots for which this one wants `?force`. Raises: Refused."""
        raise Refused(
            "the node that was asked is of the release before, which does not say how it has judged the snapshot:"
            " restore it through a node of this release; nothing was changed"
        )

    async def ca(self, request: JudgedRestoreRequest) -> Nothing:
        """Raises: LostRace when the CA is not the one that the request is for; Refused, InternalError, NotReady,
        NotLeader, CommitUnknown.
        """
        state = self._parts.replica.state
        await asyncio.to_thread(self._require_proof, state, request)
        # Here too: so the data key that has proved it is the one in force when its turn has come.
        _require_its_ca(request, state)
        try:
            saved = load_state(request.state)
        except CodecError as error:
            raise Refused(f"the saved state cannot be read: {error}") from error
        sealer = await asyncio.to_thread(check_seal, self._parts.sealer, saved)
        is_authentic = _is_authentic(sealer, request.sums, request.mac)
        opener = Opener(sealer)
        await asyncio.to_thread(check_content, saved, opener, self._parts.unix_now)
        await self._check_provider(saved, opener)
        async with self._parts.changes.turn("RECONFIGURING", is_duty=False):
            state = self._parts.replica.state
            # Here, where nothing else changes the CA: a root that was taken away meanwhile does not come back.
            _require_its_ca(request, state)
            change = trust_change(state, saved, is_authentic=is_authentic)
            change.require(is_forced=request.is_forced)
            kept = without_rootless(saved, self._parts.unix_now)
            resealed = await asyncio.to_thread(self._under_seal_of, state, kept, sealer)
            # As late as can be: what is recorded from here until it is applied counts as renewed.
            resumed = waiting_anew(resealed, self._parts.replica.state.index + 1, self._parts.unix_now)
            applied = await commit(self._parts.replica, RestoreCA(state.ca_index, resumed))
        self._parts.log(
            "ca.restored",
            trust_domain=saved.trust_domain,
            roots=len(saved.roots),
            # Beside the state that was replaced, which may be newer than the one that the node that was asked has seen.
            removed_roots=[root.root_id for root in change.removed],
            given_up_rotation=_rootless_id(saved),
            index=applied.index,
        )
        return DONE

    def _require_proof(self, state: State, request: JudgedRestoreRequest) -> None:
        """A server's TLS key opens the way to here, and is not enough. Raises: NotReady, Refused."""
        expected = _proof(self._parts.sealer, state, request)
        if not hmac.compare_digest(request.proof, expected):
            raise Refused(
                "the request to restore does not prove that it comes from a node with this cluster's data key; nothing"
                " was changed. If the seal key is just being changed, restore again"
            )

    def _under_seal_of(self, state: State, saved: State, sealer: NodeSealer) -> State:
        """The saved state, with all that `sealer` opens of it sealed by this cluster's data key. That of the snapshot
        may have been changed because somebody had it; and every server has the one in force.

        Raises: NotReady, Refused.
        """
        present = _present(self._parts.sealer, state)
        # `check_content` has opened each of them.
        providers = tuple(sealed_again(sealer, present, found) for found in saved.providers)
        return replace(saved, seal=state.seal, providers=providers)

    async def _check_provider(self, saved: State, opener: Opener) -> None:
        """Configured in the workers, the provider must hold the active root, as after every election.

        Raises: Refused.
        """
        root = saved.active_root
        assert root is not None  # looked at by `check_content`
        stored = opener.stored(saved)
        try:
            async with Candidate(
                self._parts, stored.config.cluster_id, stored.settings, stored.record.state
            ) as candidate:
                chain = candidate.configured.chain
        except InternalError as error:
            raise ContentRefused(f"the snapshot cannot be restored: {error}") from error
        found = x509.root_id(chain.root_pem) if chain else "none"
        if found != root.root_id:
            raise ContentRefused(
                f"the snapshot cannot be restored: its active root is {root.root_id}, but its provider has {found}"
            )


def _rootless_id(saved: State) -> str:
    rotation = rootless(saved)
    return rotation.rotation_id if rotation is not None else ""


def _require_its_ca(request: JudgedRestoreRequest, state: State) -> None:
    """Raises: LostRace. A request is good for one state of the CA, so it has an effect once, however often and by
    whomever it is delivered.
    """
    if request.ca_index != state.ca_index:
        raise LostRace(_CHANGED)


def _present(sealer: NodeSealer, state: State) -> NodeSealer:
    """Of the cluster's own seal. Raises: NotReady before there is one; Refused."""
    if state.seal is None:
        raise NotReady("CA has not finished initializing: there is no data key yet")
    try:
        return sealer.opened(state.seal)
    except SealError as error:
        raise Refused(f"nothing can be restored by a node that does not have the data key: {error}") from error


def _proof(sealer: NodeSealer, state: State, request: JudgedRestoreRequest) -> bytes:
    """Raises: NotReady, Refused."""
    return _present(sealer, state).proof(request.unproven())


def _is_authentic(sealer: NodeSealer, sums: bytes, mac: str) -> bool:
    """False for a file without a MAC. Raises: SnapshotInvalid for one whose MAC is wrong, which nothing excuses."""
    is_authentic = backup.is_right_mac(sealer.mac, sums, mac)
    if mac and not is_authentic:
        raise SnapshotInvalid(
            "the snapshot's MAC is wrong: it was changed after it was saved, or put together from several"
        )
    return is_authentic


def check_seal(sealer: NodeSealer, saved: State) -> NodeSealer:
    """One that opens what is sealed in the saved state, all of which was tried. Raises: Refused, which says what to
    do.
    """
    if saved.seal is None:
        raise Refused("the snapshot holds no CA")
    try:
        opened = sealer.opened(saved.seal)
        moved = Opener(opened).moved(saved)
    except RecordUnreadable as error:
        raise Refused(f"what is sealed in the snapshot is of no release's making: {error}") from error
    except SealError as error:
        raise Refused(f"the snapshot was sealed with another seal key than this cluster has: {error}") from error
    if moved:
        raise Refused(f"{', '.join(moved)} in the snapshot's configuration is not what its secrets were sealed with")
    return opened


def _entries(page: Iterable[Row]) -> Iterator[tuple[bytes, list[Row]]]:
    """Rows of one issuer each, few enough for one log entry, in the order in which they were issued."""
    for issuer, rows in itertools.groupby(page, key=lambda row: row.issuer_key_id):
        while chunk := list(itertools.islice(rows, _ROWS_PER_ENTRY)):
            yield issuer, chunk
