"""Another data key for everything that is sealed, on the leader: one command, so that it is done or not.

Every server must be able to open it before it is made, or it could not lead any more, nor start again. Nodes that
cannot be asked, or do not know the question because an older release runs there, hold it up: the command would end
them.
"""

import asyncio
import hashlib
from collections.abc import Collection
from typing import Final

from cluster.access.method_writers import acl_sealed_again
from cluster.api.access import Judge
from cluster.base.clock import Clock
from cluster.base.errors import ClusterError, NoLeader, NotLeader, NotReady, Overloaded, Refused
from cluster.ca.commit import commit
from cluster.ca.opened import sealed_again
from cluster.ca.parts import Parts
from cluster.ca.uptake import Peers
from cluster.node.node_certs import agent_ca_sealed_again
from cluster.raft.membership import Member, learner
from cluster.rpc.messages import SEAL_CHECK, SealCheckAnswer, SealCheckRequest
from cluster.seal.node_sealer import NodeSealer
from cluster.seal.sources import SealError
from fsm.ca import Reseal, SealKey
from providers.errors import ProviderError

_ASK_SECONDS: Final = 3.0
#: How long a server that does not answer is asked again.
_PATIENCE_SECONDS: Final = 8.0
_PAUSE_SECONDS: Final = 0.2
#: Questions for the seal key that a node has before it at a time, and for how many times as long as one has taken it
#: rests before the next: a fifth of one core at most.
_MOST_CHECKS: Final = 2
_REST: Final = 4.0


def seal_id(seal: SealKey | None) -> str:
    """Tells one data key from another, and nothing else."""
    return hashlib.sha256(b"quorumca seal id 1" + seal.wrapped_key).hexdigest()[:16] if seal else ""


class Resealer:
    """The leader's side of `quorumca seal rotate`."""

    def __init__(self, parts: Parts, peers: Peers, node_name: str) -> None:
        self._parts = parts
        self._peers = peers
        self._node_name = node_name

    async def rotate(self, base: str, *, keeps_key: bool, judge: Judge | None = None) -> None:
        """Nothing is done when the seal is not the one with the id `base` any more: it has been done.

        The servers are asked first: one that does not answer is waited for, and no other change has to stand behind
        that. `judge`: whether whoever asks may still do so afterwards.

        Raises: PermissionDenied, Refused, NotReady, NotLeader, ChangeUnderWay, CommitUnknown.
        """
        if (before := self._seal_to_follow(base)) is None:
            return
        try:
            # Off the loop: a passphrase is stretched for a quarter of a second.
            seal, sealers = await asyncio.to_thread(self._next_seal, before, keeps_key)
        except SealError as error:
            raise Refused(str(error)) from error
        asked = self._others()
        await self._require_key_everywhere(asked, seal)
        async with self._parts.changes.turn("RECONFIGURING", is_duty=False, judge=judge) as by:
            if self._seal_to_follow(base) is None:
                return
            self._require_asked(asked)
            self._require_leadership()
            await self._commit(seal, sealers, by)
        await self._take_into_use()

    def _seal_to_follow(self, base: str) -> SealKey | None:
        """The one in force; None when it is another than that with the id `base`. Raises: NotReady."""
        seal = self._parts.replica.state.seal
        if seal is None:
            raise NotReady("CA has not finished initializing: there is nothing sealed yet")
        return seal if seal_id(seal) == base else None

    def _next_seal(self, before: SealKey, keeps_key: bool) -> tuple[SealKey, tuple[NodeSealer, NodeSealer]]:
        """And the sealers of both. Raises: SealError."""
        # It is in use here, and needs no key any more: a lost one can be replaced while nodes run.
        opener = self._parts.sealer.opened(before)
        seal = opener.next_data_key(keeps_key=keeps_key)
        return seal, (opener, opener.opened(seal))

    async def _commit(self, seal: SealKey, sealers: tuple[NodeSealer, NodeSealer], by: str) -> None:
        state = self._parts.replica.state
        assert state.seal is not None  # `_seal_to_follow`
        try:
            providers = tuple(sealed_again(*sealers, found) for found in state.providers)
            acl = acl_sealed_again(*sealers, state.acl)
            agent_ca = agent_ca_sealed_again(*sealers, state.nodes.agent_ca)
        except SealError as error:
            raise Refused(str(error)) from error
        reseal = Reseal(state.ca_index, seal, providers, acl.key, acl.methods, agent_ca)
        applied = await commit(self._parts.replica, reseal)
        self._parts.log("seal.rotated", key_id=seal.kek_id, before=state.seal.kek_id, by=by, index=applied.index)

    def _others(self) -> list[Member]:
        return [member for name, member in sorted(self._parts.replica.members.items()) if name != self._node_name]

    def _require_asked(self, asked: list[Member]) -> None:
        """Raises: Refused when there are other servers than these. A name says little: with another key or address, or
        as a learner once more, it may be another machine.
        """
        # Whoever is a voter now and was a learner then has caught up, and no more.
        if new := [member.id for member in self._others() if member not in asked and learner(member) not in asked]:
            raise Refused(
                f"nothing was changed: {', '.join(new)} joined, or has another key or address, since it was asked: try"
                " again"
            )

    async def _require_key_everywhere(self, others: list[Member], seal: SealKey) -> None:
        """Raises: Refused, with every node that lacks it."""
        request = SealCheckRequest(seal.source, seal.kek_id, seal.salt)

        async def lack(member: Member) -> str:
            try:
                answer = await self._answer_of(member, request)
            except ClusterError as error:
                # One of an older release does not know the operation, and says so.
                return f"{member.id}: {error}"
            return f"{member.id}: {answer.problem}" if answer.problem else ""

        found = [text for text in await asyncio.gather(*map(lack, others)) if text]
        if found:
            raise Refused(f"nothing was changed: not every server has the seal key {seal.kek_id}. " + "; ".join(found))

    async def _answer_of(self, member: Member, request: SealCheckRequest) -> SealCheckAnswer:
        """Of a server that may just be starting again. Raises: ClusterError."""
        deadline = self._parts.clock.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return await self._peers.ask(member, SEAL_CHECK, request, _ASK_SECONDS)
            except (NoLeader, Overloaded):
                if self._parts.clock.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)

    def _require_leadership(self) -> None:
        if not self._parts.replica.leadership.is_ready:
            raise NotLeader("this node does not lead any more")

    async def _take_into_use(self) -> None:
        """At once, or the first signature after it would wait for it. What fails here is the leader's duty."""
        parts = self._parts
        if parts.replica.leadership.is_ready and parts.replica.state.active_root is not None:
            try:
                await parts.authority.adopt(parts.replica.state)
            except (ProviderError, ClusterError, SealError) as error:
                parts.log("duty.failed", duty="adopt", reason=str(error), again_in_seconds=0)


class SealChecks:
    """What the leader is answered, on any node.

    One after the other, and with pauses: each may stretch a passphrase, for any server that asks, as often as it asks.
    Signing must not have to wait for them, nor what else this node's threads do.
    """

    def __init__(self, sealer: NodeSealer, clock: Clock) -> None:
        self._sealer = sealer
        self._clock = clock
        self._turn = asyncio.Lock()
        self._present = 0
        self._rests_until = clock.monotonic()

    async def answer(self, request: SealCheckRequest) -> SealCheckAnswer:
        """Raises: Overloaded."""
        if self._present >= _MOST_CHECKS:
            raise Overloaded("this node is asked for its seal key too often: try again later")
        self._present += 1
        # Whoever asks may stop waiting at once and ask again; the thread does not stop, and counts until it is done.
        is_awaited = [True]
        answering = asyncio.ensure_future(self._in_turn(request, is_awaited))
        answering.add_done_callback(self._is_done)
        try:
            return await asyncio.shield(answering)
        finally:
            is_awaited.clear()

    def _is_done(self, answering: "asyncio.Future[SealCheckAnswer]") -> None:
        self._present -= 1
        if not answering.cancelled():
            answering.exception()  # looked at: perhaps nobody waits for it any more

    async def _in_turn(self, request: SealCheckRequest, is_awaited: Collection[bool]) -> SealCheckAnswer:
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rests_until - self._clock.monotonic()))
            if not is_awaited:
                return SealCheckAnswer("")  # which nobody sees
            begun = self._clock.monotonic()
            try:
                problem = await asyncio.to_thread(self._sealer.lacks, request.source, request.kek_id, request.salt)
            finally:
                ended = self._clock.monotonic()
                self._rests_until = ended + _REST * (ended - begun)
        return SealCheckAnswer(problem[:1024])
