"""Which keys servers have: into the log as soon as every server understands them there, and another one in step.

Who leads has the keys pinned (`RaftNode._pin_member`), and lets access control begin behind that. In a cluster that has
no CA yet that is at once. In one that has run the release before, all servers must have been of this release for a
while first: that release cannot read a log with keys or tokens in it, so until then the way back is open.

A server whose own certificate gets another key tells the leader before it uses it, over a connection with the key that
it has. It takes the new one into use when the log has both, and the leader takes the old one out once it sees the new.
"""

import asyncio
import contextlib
import ssl
from typing import Final, NoReturn

from cluster.base.clock import Clock
from cluster.base.errors import ClusterError
from cluster.base.log import Log
from cluster.node.membership import Membership
from cluster.raft.admission import is_key_of
from cluster.raft.replica import Replica
from cluster.rpc.forward import Forwarder
from cluster.rpc.messages import ANNOUNCE_KEY, WATCHERS, AnnounceKeyRequest, WatchersRequest
from cluster.rpc.operation import VERSION
from cluster.rpc.peers import Peers
from cluster.tls.contexts import NodeTls, TlsFileRefused

#: How long after an upgrade the release before can be gone back to.
ROLLBACK_SECONDS: Final = 600.0
_LOOK_SECONDS: Final = 5.0
_SOON_SECONDS: Final = 0.2
_ANSWER_SECONDS: Final = 2.0
_PINNED_SECONDS: Final = 1.0


class Pinning:
    """What the leader does about it."""

    def __init__(self, replica: Replica, peers: Peers, membership: Membership, node_name: str, clock: Clock) -> None:
        self._replica = replica
        self._peers = peers
        self._membership = membership
        self._node_name = node_name
        self._clock = clock
        self._term = 0  # in which this node leads; 0: it does not
        self._is_new = False
        self._understood_since: float | None = None

    async def run(self) -> NoReturn:
        while True:
            await self.look()
            is_soon = self._is_new and not self._is_done
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SOON_SECONDS if is_soon else _LOOK_SECONDS):
                    await self._replica.leadership_changed.wait()

    async def look(self) -> None:
        self._notice_term()
        if not self._term:
            return
        if not self._is_done:
            await self._ask_all()
        if self._replica.admission.is_pinned:
            with contextlib.suppress(ClusterError):  # found again at the next look, by whoever leads then
                await self._membership.drop_old_keys()

    @property
    def _is_done(self) -> bool:
        """Nothing is left to be found out: what an earlier release cannot read is in the log."""
        return self._replica.admission.is_pinned and self._replica.state.acl.key is not None

    def _notice_term(self) -> None:
        leadership = self._replica.leadership
        term = leadership.term if leadership.is_ready else 0
        if term == self._term:
            return
        self._term = term
        self._understood_since = None
        self._replica.is_acl_known = False
        # Also where the one that has founded the cluster was lost at once: there is nothing yet to go back with.
        self._is_new = bool(term) and (self._replica.is_founding or self._replica.state.active_root is None)

    async def _ask_all(self) -> None:
        if not await self._all_understand():
            self._understood_since = None
            return
        now = self._clock.monotonic()
        if self._understood_since is None:
            self._understood_since = now
        if not self._is_new and now - self._understood_since < ROLLBACK_SECONDS:
            return
        if not self._replica.admission.is_pinned:
            await self._replica.allow_pins()
            await self._wait_pinned()
        if self._replica.admission.is_pinned and self._replica.leadership.term == self._term:
            self._replica.know_acl()

    async def _wait_pinned(self) -> None:
        """Nobody has to wait for the next look who wants a token of a new cluster."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PINNED_SECONDS):
                while not self._replica.admission.is_pinned:
                    await self._replica.admission_changed.wait()

    async def _all_understand(self) -> bool:
        """Whether every server, this one aside, answers and speaks what this release speaks."""
        others = [member for name, member in self._replica.members.items() if name != self._node_name]
        asked = [self._peers.version_of(other, WATCHERS, WatchersRequest(0), _ANSWER_SECONDS) for other in others]
        versions = await asyncio.gather(*asked, return_exceptions=True)
        return all(isinstance(version, int) and version >= VERSION for version in versions)


class OwnKey:
    """What a server does whose certificate gets another key."""

    def __init__(self, replica: Replica, forwarder: Forwarder, tls: NodeTls, node_name: str, log: Log) -> None:
        self._replica = replica
        self._forwarder = forwarder
        self._tls = tls
        self._node_name = node_name
        self._log = log
        self._due = asyncio.Event()
        self._said = ""

    @property
    def pinned(self) -> tuple[bytes, ...]:
        """What the others know this server by; empty while nothing is pinned, or it is no member."""
        member = self._replica.members.get(self._node_name)
        return () if member is None else member.keys

    @property
    def _counts(self) -> tuple[bytes, ...]:
        """The same, unless the name alone counts now."""
        replica = self._replica
        member = replica.members.get(self._node_name)
        return member.keys if member is not None and replica.admission.is_known_by_key(member) else ()

    def reload(self) -> bool:
        """Take certificate and key from the files into use; False if the other servers must be told first, which is
        done then. Raises: TlsFileRefused.
        """
        key, counts = self._tls.read_key(), self._counts
        if counts and not is_key_of(key, counts) and is_key_of(self._tls.key, counts):
            self._due.set()
            return False
        self._tls.reload(key)
        self.check()
        self._due.set()
        return True

    def check(self) -> None:
        """Say so if the others refuse this server."""
        if (counts := self._counts) and not is_key_of(self._tls.key, counts):
            action = (
                "the other servers refuse it: on one of them, add this server again as it is"
                f" (`quorumca operator raft add-peer -id {self._node_name} ...`), or bring the former key back"
            )
            self._log("tls.key_not_pinned", key=self._tls.key.hex(), action=action)

    async def run(self) -> NoReturn:
        self.check()
        while True:
            await self._due.wait()
            if await self._announce():
                self._due.clear()
            else:
                await asyncio.sleep(_SOON_SECONDS)

    async def _announce(self) -> bool:
        """True once the new key is in use, or no longer in the files."""
        try:
            key = self._tls.read_key()
            if key == self._tls.key:
                await self._replica.refresh_links()
                return True
            if not is_key_of(key, self.pinned):
                await self._forwarder.call(ANNOUNCE_KEY, AnnounceKeyRequest(key, self._node_name))
            if is_key_of(key, self.pinned):
                self._tls.reload(key)
                await self._replica.refresh_links()
                self._log("tls.key_changed", key=key.hex())
                return True
        except TlsFileRefused:
            return True  # whoever looks after the files looks again, and says why
        except (ClusterError, ssl.SSLError) as error:
            if self._said != str(error):
                self._said = str(error)
                self._log("tls.reload_failed", certificate="node", reason=f"the others do not know its key: {error}")
        return False
