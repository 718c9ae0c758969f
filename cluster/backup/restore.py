"""Saving this cluster's CA to a file, and putting a saved one in its place. The file's form is in file.py.

A restore is judged by the node that was asked, before it sends anything; by the leader, before the record gets a row of
it; and by the leader once more, while nothing else changes the CA. The leader cannot see the file, which may hold
millions of records; that state and rows are the file's, and that an operator has said `?force`, is the word of the node
that was asked. It proves with the data key that it is one.
"""

import asyncio
import hmac
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from msgspec import msgpack, structs

from cluster.access.method_writers import acl_sealed_again
from cluster.api.access import Caller, Judge
from cluster.api.backups import Meta
from cluster.backup import file as backup
from cluster.backup.content import ContentRefused, check_content
from cluster.backup.file import Row, Saved, SnapshotInvalid
from cluster.backup.resumed import given_up, rootless, waiting_anew, without_rootless
from cluster.backup.trust import TrustChange, trust_change
from cluster.base.clock import Clock
from cluster.base.errors import CommitUnknown, InternalError, LostRace, NotReady, Refused
from cluster.base.log import Log
from cluster.ca.candidate import Candidate
from cluster.ca.commit import commit
from cluster.ca.opened import Opener, sealed_again
from cluster.ca.parts import Parts
from cluster.raft.node import MAX_PROPOSAL_BYTES
from cluster.raft.replica import Replica, packed_command
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import (
    DONE,
    RESTORE_CHECKED,
    RESTORE_JUDGED,
    RESTORE_PROVEN_ROWS,
    CheckedRestoreRequest,
    JudgedRestoreRequest,
    Nothing,
    ProvenRowsRequest,
    RestoreRequest,
    RestoreRowsRequest,
    RowMessage,
)
from cluster.rpc.operation import Operation
from cluster.seal.node_sealer import NodeSealer
from cluster.seal.records import RecordUnreadable
from cluster.seal.sources import SealError
from fsm.acl import Acl
from fsm.ca import SealKey
from fsm.codec import CodecError, dump_state, load_state
from fsm.commands import RestoreCA
from fsm.leaves import RecordLeaves
from fsm.ledger import LedgerReader
from fsm.state import State
from providers.pki import x509

#: Records in one log entry: most are small. Names may take kilobytes each, and are counted.
_ROWS_PER_ENTRY: Final = 500
_BYTES_PER_ENTRY: Final = MAX_PROPOSAL_BYTES // 2
_BARRIER_SECONDS: Final = 10.0
#: How often the CA is asked for, when other changes of it come first. Each of them needs somebody who makes it.
_ATTEMPTS: Final = 4
_CHANGED: Final = (
    "the CA changed while it was being restored, and was not: the record may have got certificates of the snapshot."
    " Restore again, without ?force first: the refusal says what the snapshot would add now"
)
_CHANGING: Final = (
    "the CA changed again and again while it was being restored, and was not: the record may have got certificates of"
    " the snapshot. Restore again"
)

_Proven = JudgedRestoreRequest | ProvenRowsRequest
_Request = TypeVar("_Request", JudgedRestoreRequest, CheckedRestoreRequest, ProvenRowsRequest)
_Judged = TypeVar("_Judged", JudgedRestoreRequest, CheckedRestoreRequest)


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
        return await asyncio.to_thread(self._write, path, meta, _for_keeping(state), state.seal)

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

    async def restore(self, path: Path, *, is_forced: bool, caller: Caller | None = None) -> tuple[str, ...]:
        """Everything is checked before anything is changed; the CA changes in one command, at the end. Returns what an
        operator must be told. `is_forced`: trust that comes back, and a file without a MAC, are meant.

        Raises: Refused (SnapshotInvalid, another seal key, not forced), OSError; NotReady before the cluster has a data
        key; NoLeader, CommitUnknown, InternalError (a leader of the release before among them).
        """
        saved = await asyncio.to_thread(backup.read, path)
        sealer = await asyncio.to_thread(check_seal, self._sealer, saved.state)
        is_authentic = _is_authentic(sealer, saved.sums, saved.mac)
        asking = _Asking(self._replica, self._forwarder, self._sealer, saved, is_authentic, is_forced, caller)
        await asking.judge()
        await asyncio.to_thread(check_content, saved.state, Opener(sealer), int(self._clock.now()))
        await asyncio.to_thread(saved.check_rows)
        await asking.whether_the_leader_takes_it()
        pages = saved.pages()
        while page := await asyncio.to_thread(next, pages, None):
            for issuer, rows in _entries(page):
                await asking.for_rows(issuer, rows)
        await asking.for_the_ca()
        change = asking.change
        self._log_restored(saved, change, is_forced=is_forced, by=caller.by if caller else "")
        await self._replica.read_barrier(timeout=_BARRIER_SECONDS)
        return (*change.notes(), *given_up(saved.state))

    def _log_restored(self, saved: Saved, change: TrustChange, *, is_forced: bool, by: str) -> None:
        self._log(
            "snapshot.restored",
            trust_domain=change.trust_domain,
            saved_by=saved.meta.node,
            created_at=saved.meta.created_at,
            is_authentic=change.is_authentic,
            is_forced=is_forced,
            is_same_trust_domain=change.is_same_trust_domain,
            tokens=change.tokens,
            added_roots=[root.root_id for root in change.roots],
            removed_roots=[root.root_id for root in change.removed],
            given_up_rotation=_rootless_id(saved.state),
            by=by,
        )


class _Asking:
    """What a node asks of the leader for one restore. Each request is for the CA beside which the snapshot was judged
    last, and proves that: sending the records may take minutes, and other changes of the CA may come first.
    """

    def __init__(
        self,
        replica: Replica,
        forwarder: Forwarder,
        sealer: NodeSealer,
        saved: Saved,
        is_authentic: bool,
        is_forced: bool,
        caller: Caller | None,
    ) -> None:
        self._replica = replica
        self._forwarder = forwarder
        self._sealer = sealer
        self._saved = saved
        self._is_authentic = is_authentic
        self._is_forced = is_forced
        self._caller = caller
        self._judged: tuple[State, TrustChange] | None = None

    @property
    def change(self) -> TrustChange:
        """Against the CA that the last request was for."""
        return self._beside[1]

    @property
    def _beside(self) -> tuple[State, TrustChange]:
        assert self._judged is not None  # `judge` comes first
        return self._judged

    async def judge(self) -> None:
        """Beside the cluster's state of now. Raises: Refused, NoLeader."""
        await self._replica.read_barrier(timeout=_BARRIER_SECONDS)
        state = self._replica.state
        change = trust_change(state, self._saved.state, is_authentic=self._is_authentic)
        change.require(is_forced=self._is_forced)
        if self._judged is not None and self._is_forced and change.roots != self.change.roots:
            raise Refused(_CHANGED)
        self._judged = state, change

    async def whether_the_leader_takes_it(self) -> None:
        """Raises: as `Snapshots.restore`."""
        try:
            await self._ask(RESTORE_CHECKED, lambda state: self._request(CheckedRestoreRequest, state))
        except CommitUnknown as error:  # it was a question
            raise NotReady(f"nothing was changed: the leader could not judge the snapshot in time ({error})") from error

    async def for_rows(self, issuer_key_id: bytes, rows: list[RowMessage]) -> None:
        """Raises: as `Snapshots.restore`."""
        await self._ask(
            RESTORE_PROVEN_ROWS,
            lambda state: ProvenRowsRequest(issuer_key_id, rows, state.trust_domain, state.ca_index, b""),
        )

    async def for_the_ca(self) -> None:
        """Raises: as `Snapshots.restore`."""
        await self._ask(RESTORE_JUDGED, lambda state: self._request(JudgedRestoreRequest, state))

    def _request(self, kind: type[_Judged], state: State) -> _Judged:
        saved = self._saved
        return kind(dump_state(saved.state), saved.sums, saved.mac, self._is_forced, state.ca_index, b"")

    async def _ask(self, operation: Operation[_Request, Nothing], request_beside: Callable[[State], _Request]) -> None:
        for _ in range(_ATTEMPTS):
            state, _ = self._beside
            request = request_beside(state)
            proof = await asyncio.to_thread(_proof, self._sealer, state, request)
            try:
                proven = structs.replace(request, proof=proof)
                await self._forwarder.call(operation, proven, caller=self._caller)
            except LostRace:
                await self.judge()
                continue
            return
        raise Refused(_CHANGING)


def _for_keeping(state: State) -> State:
    """Without the tokens of logins: they end within a day, are most of all tokens, and can be had again."""
    kept = tuple(token for token in state.acl.tokens if not token.auth_method)
    return replace(state, acl=replace(state.acl, tokens=kept))


@dataclass(frozen=True, slots=True)
class _Looked:
    """A saved state that is sound in itself."""

    saved: State
    sealer: NodeSealer  # opens what is sealed in it
    is_authentic: bool


class SnapshotWork:
    """The leader's side of a restore."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def unproven(self, _request: RestoreRequest | RestoreRowsRequest) -> Nothing:
        """As the release before asks, which takes snapshots for which this one wants `?force`, and has rows recorded
        before the leader has judged them. Raises: Refused.
        """
        raise Refused(
            "the node that was asked is of the release before, which does not say how it has judged the snapshot:"
            " restore it through a node of this release; nothing was changed"
        )

    async def checked(self, request: CheckedRestoreRequest) -> Nothing:
        """Whether `ca` would do it as things stand. Nothing is changed. Raises: as `ca`."""
        looked = await self._looked_at(request)
        state = self._parts.replica.state
        change = self._judge(state, request, looked)
        command = await self._command(state, looked, change)
        size = len(await asyncio.to_thread(packed_command, command))
        if size > MAX_PROPOSAL_BYTES:
            raise ContentRefused(
                f"the snapshot cannot be restored: its state takes {size} bytes of the log, allowed are"
                f" {MAX_PROPOSAL_BYTES}"
            )
        return DONE

    async def rows(self, request: ProvenRowsRequest) -> Nothing:
        """Records that are there already are left alone.

        Raises: LostRace, as `ca`; Refused, NotReady, NotLeader, CommitUnknown.
        """
        state = self._parts.replica.state
        _require_its_ca(request, state)
        if request.trust_domain != state.trust_domain:
            raise LostRace(_CHANGED)
        await asyncio.to_thread(self._require_proof, state, request)
        if not request.rows:
            return DONE
        records = tuple(row.value() for row in request.rows)
        await commit(self._parts.replica, RecordLeaves(request.issuer_key_id, records))
        return DONE

    async def ca(self, request: JudgedRestoreRequest, judge: Judge | None = None) -> Nothing:
        """`judge`: whether whoever asks may still do so, once its turn has come.

        Raises: PermissionDenied; LostRace when the CA is not the one that the request is for; Refused, InternalError,
        NotReady, NotLeader, CommitUnknown.
        """
        looked = await self._looked_at(request)
        async with self._parts.changes.turn("RECONFIGURING", is_duty=False, judge=judge) as by:
            state = self._parts.replica.state
            # Here, where nothing else changes the CA: a root that was taken away meanwhile does not come back.
            change = self._judge(state, request, looked)
            applied = await commit(self._parts.replica, await self._command(state, looked, change))
        saved = looked.saved
        self._parts.log(
            "ca.restored",
            trust_domain=saved.trust_domain,
            roots=len(saved.roots),
            tokens=change.tokens,
            # Beside the state that was replaced, which may be newer than the one that the node that was asked has seen.
            removed_roots=[root.root_id for root in change.removed],
            given_up_rotation=_rootless_id(saved),
            by=by,
            index=applied.index,
        )
        return DONE

    async def _looked_at(self, request: JudgedRestoreRequest) -> _Looked:
        """All that takes time. Raises: as `ca`."""
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
        return _Looked(saved, sealer, is_authentic)

    def _judge(self, state: State, request: JudgedRestoreRequest, looked: _Looked) -> TrustChange:
        """Raises: LostRace, Refused."""
        _require_its_ca(request, state)
        change = trust_change(state, looked.saved, is_authentic=looked.is_authentic)
        change.require(is_forced=request.is_forced)
        return change

    async def _command(self, state: State, looked: _Looked, change: TrustChange) -> RestoreCA:
        """Raises: Refused, NotReady."""
        kept = without_rootless(looked.saved, self._parts.unix_now)
        if change.tokens is None:
            # None of it is applied where it is this cluster's own, and it may be more than a log entry has room for.
            # What is in a file that nobody vouches for is whatever its writer would like.
            kept = replace(kept, acl=Acl())
        resealed = await asyncio.to_thread(self._under_seal_of, state, kept, looked.sealer)
        # As late as can be: what is recorded from here until it is applied counts as renewed.
        resumed = waiting_anew(resealed, self._parts.replica.state.index + 1, self._parts.unix_now)
        return RestoreCA(state.ca_index, resumed)

    def _require_proof(self, state: State, request: _Proven) -> None:
        """A server's TLS key opens the way to here, and is not enough. Raises: NotReady, Refused."""
        expected = _proof(self._parts.sealer, state, request)
        if not hmac.compare_digest(request.proof, expected):
            raise Refused(
                "the request to restore does not prove that it comes from a node with this cluster's data key; the CA"
                " was not changed. If the seal key is just being changed, restore again"
            )

    def _under_seal_of(self, state: State, saved: State, sealer: NodeSealer) -> State:
        """The saved state, with all that `sealer` opens of it sealed by this cluster's data key. That of the snapshot
        may have been changed because somebody had it; and every server has the one in force.

        Raises: NotReady, Refused.
        """
        present = _present(self._parts.sealer, state)
        # `check_content` has opened each of them.
        providers = tuple(sealed_again(sealer, present, found) for found in saved.providers)
        acl = acl_sealed_again(sealer, present, saved.acl)
        return replace(saved, seal=state.seal, providers=providers, acl=acl)

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


def _require_its_ca(request: _Proven, state: State) -> None:
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


def _proof(sealer: NodeSealer, state: State, request: _Proven) -> bytes:
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


def _entries(page: Iterable[Row]) -> Iterator[tuple[bytes, list[RowMessage]]]:
    """Rows of one issuer each, few and small enough for one log entry, in the order in which they were issued."""
    for issuer, rows in itertools.groupby(page, key=lambda row: row.issuer_key_id):
        chunk: list[RowMessage] = []
        size = 0
        for message in (RowMessage.of(row.record) for row in rows):
            length = len(msgpack.encode(message))
            if chunk and (len(chunk) >= _ROWS_PER_ENTRY or size + length > _BYTES_PER_ENTRY):
                yield issuer, chunk
                chunk, size = [], 0
            chunk.append(message)
            size += length
        yield issuer, chunk
