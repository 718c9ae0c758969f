"""When keys may go into the log, and how a server's own key is exchanged."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from cluster.base.errors import NoLeader, Refused
from cluster.node.membership import Membership
from cluster.node.pinning import ROLLBACK_SECONDS, OwnKey, Pinning
from cluster.raft.membership import Member
from cluster.rpc.messages import ANNOUNCE_KEY, AnnounceKeyRequest
from cluster.rpc.operation import VERSION
from cluster.tls.contexts import TlsFileRefused
from fsm.ca import InitConfig, InitSeal
from fsm.commands import Applied
from tests.kit import samples
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster, FakeReplica
from tests.kit.log import EventLog
from tests.kit.wait import until

KEY, NEXT_KEY, OTHER_KEY = b"k" * 72, b"n" * 72, b"o" * 72
#: Of a certificate that NodeTls refuses.
BAD_KEY = b"b" * 72


class _Peers:
    """Which version each server speaks; who is not here does not answer."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {"b": VERSION, "c": VERSION}

    async def version_of(self, member: Member, *_: object) -> int:
        if member.id not in self.versions:
            raise NoLeader(f"no answer from {member.id}")
        return self.versions[member.id]


def keys_of(cluster: FakeCluster) -> list[bytes]:
    """Of b, as they are in the log."""
    return [*cluster.members["b"].keys]


def pin_all(cluster: FakeCluster) -> None:
    cluster.members = {name: replace(member, keys=(KEY,)) for name, member in cluster.members.items()}


class Leader:
    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster, self.clock, self.peers = cluster, FakeClock(), _Peers()
        self.replica: FakeReplica = cluster.replicas["a"]
        self.replica.is_acl_known = False
        cluster.elect("a")
        membership = Membership(self.replica.real, "a", self.clock, EventLog())
        self.pinning = Pinning(self.replica.real, cast(Any, self.peers), membership, "a", self.clock)

    async def looks(self, seconds: float = 0.0) -> bool:
        """Whether keys may be pinned, after so long."""
        self.clock.advance(seconds)
        await self.pinning.look()
        return self.replica.are_pins_allowed

    def knows_acl(self) -> bool:
        return self.replica.is_acl_known


@pytest.fixture
def leader(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Leader:
    monkeypatch.setattr("cluster.node.pinning._PINNED_SECONDS", 0.01)
    return Leader(cluster)


def has_a_root(cluster: FakeCluster) -> None:
    for command in (InitSeal(samples.SEAL), InitConfig(samples.config(), samples.provider_state())):
        cluster.commit(command)
    assert isinstance(cluster.commit(samples.set_roots(cluster.state, samples.root("r1"))), Applied)


@pytest.fixture
def old(leader: Leader) -> Leader:
    """Of a cluster that has run for a while."""
    has_a_root(leader.cluster)
    return leader


async def test_new_cluster_pins_at_once_when_all_understand(leader: Leader) -> None:
    leader.replica.is_founding = True
    leader.peers.versions["c"] = VERSION - 1
    assert not await leader.looks(ROLLBACK_SECONDS)
    del leader.peers.versions["c"]
    assert not await leader.looks(ROLLBACK_SECONDS)
    leader.peers.versions["c"] = VERSION
    assert await leader.looks()


async def test_new_cluster_whose_first_leader_is_lost_does_not_wait_either(leader: Leader) -> None:
    """Who follows it has seen no root; that there is one when all answer makes it no older."""
    leader.peers.versions["c"] = VERSION - 1
    assert not await leader.looks()
    has_a_root(leader.cluster)
    leader.peers.versions["c"] = VERSION
    assert await leader.looks()


async def test_access_control_begins_behind_the_keys(leader: Leader) -> None:
    assert await leader.looks()
    assert not leader.knows_acl()
    pin_all(leader.cluster)
    await leader.looks()
    assert leader.knows_acl()


async def test_access_control_waits_for_servers_that_have_keys_and_do_not_know_it(old: Leader) -> None:
    """They are of a release that pins keys and has no tokens."""
    pin_all(old.cluster)
    old.peers.versions["b"] = VERSION - 1
    for _ in range(3):
        await old.looks(ROLLBACK_SECONDS)
    assert not old.knows_acl()
    old.peers.versions["b"] = VERSION
    await old.looks()
    await old.looks(ROLLBACK_SECONDS - 1)
    assert not old.knows_acl()
    await old.looks(1)
    assert old.knows_acl()
    assert not old.replica.are_pins_allowed
    old.cluster.elect("b")
    await old.looks()
    assert not old.knows_acl()


async def test_after_an_upgrade_the_way_back_is_open_for_a_while(old: Leader) -> None:
    assert not await old.looks(ROLLBACK_SECONDS)
    assert not await old.looks(ROLLBACK_SECONDS - 1)
    old.peers.versions["b"] = VERSION - 1  # somebody goes back
    assert not await old.looks(2)
    old.peers.versions["b"] = VERSION
    assert not await old.looks(ROLLBACK_SECONDS)
    assert await old.looks(ROLLBACK_SECONDS)


async def test_only_the_leader_decides_and_each_for_itself(old: Leader) -> None:
    assert not await old.looks()
    old.cluster.elect("b")
    assert not await old.looks(ROLLBACK_SECONDS)
    old.cluster.elect("a")
    assert not await old.looks(ROLLBACK_SECONDS)
    assert await old.looks(ROLLBACK_SECONDS)


async def test_leader_takes_an_old_key_out_once_it_sees_the_new_one(leader: Leader) -> None:
    members = leader.cluster.members
    leader.cluster.members = {**members, "b": replace(members["b"], keys=(KEY, NEXT_KEY))}
    await leader.looks()
    assert keys_of(leader.cluster) == [KEY, NEXT_KEY]
    leader.cluster.keys["b"] = NEXT_KEY
    await leader.looks()
    assert keys_of(leader.cluster) == [NEXT_KEY]


class Own:
    """Server b, whose certificate may change. Also its TLS and its forwarder."""

    def __init__(self, cluster: FakeCluster, pinned: tuple[bytes, ...] = (KEY,)) -> None:
        self.cluster, self.log = cluster, EventLog()
        self.key = self.in_files = KEY
        self.asked: list[AnnounceKeyRequest] = []
        self.failures: list[Exception] = []
        self.pin(pinned)
        replica = cluster.replicas["b"]
        self.own = OwnKey(replica.real, cast(Any, self), cast(Any, self), "b", self.log)

    def pin(self, keys: tuple[bytes, ...]) -> None:
        self.cluster.members = {**self.cluster.members, "b": replace(self.cluster.members["b"], keys=keys)}

    def read_key(self) -> bytes:
        if self.in_files == BAD_KEY:
            raise TlsFileRefused("nobody accepts it")
        return self.in_files

    def reload(self, key: bytes) -> None:
        assert key == self.read_key()
        self.key = self.in_files

    async def call(self, operation: object, request: AnnounceKeyRequest) -> None:
        assert operation is ANNOUNCE_KEY
        self.asked.append(request)
        if self.failures:
            raise self.failures.pop(0)
        self.pin((*self.cluster.members["b"].keys, request.key))


@pytest.mark.parametrize("pinned", [(KEY,), ()], ids=["pinned", "not yet"])
async def test_renewed_certificate_of_the_same_key_is_used_at_once(
    cluster: FakeCluster, pinned: tuple[bytes, ...]
) -> None:
    own = Own(cluster, pinned)
    assert own.own.reload()
    if not pinned:
        own.in_files = NEXT_KEY
        assert own.own.reload()
        assert own.key == NEXT_KEY
    assert not own.asked
    assert not own.log.names()


async def test_other_key_is_used_once_the_others_know_it(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.node.pinning._SOON_SECONDS", 0.0)
    own = Own(cluster)
    task = asyncio.ensure_future(own.own.run())
    own.in_files = NEXT_KEY
    own.failures = [NoLeader("No cluster leader"), Refused("another exchange")]
    assert not own.own.reload()
    assert own.key == KEY
    await until(lambda: own.key == NEXT_KEY)
    await until(lambda: cluster.replicas["b"].refreshed == 1)
    assert own.asked == 3 * [AnnounceKeyRequest(NEXT_KEY, "b")]
    assert own.log.names() == ["tls.reload_failed", "tls.reload_failed", "tls.key_changed"]
    assert own.own.reload()
    task.cancel()


async def test_key_that_nobody_could_be_shown_is_not_announced(cluster: FakeCluster) -> None:
    own = Own(cluster)
    task = asyncio.ensure_future(own.own.run())
    own.in_files = BAD_KEY
    with pytest.raises(TlsFileRefused):
        own.own.reload()
    own.in_files, own.failures = NEXT_KEY, [NoLeader("No cluster leader")]
    own.own.reload()
    await until(lambda: own.asked)
    own.in_files = BAD_KEY  # while the leader is looked for
    await until(lambda: not own.own._due.is_set())
    assert (own.key, own.asked) == (KEY, [AnnounceKeyRequest(NEXT_KEY, "b")])
    own.in_files = OTHER_KEY
    own.own.reload()
    await until(lambda: own.key == OTHER_KEY)
    task.cancel()


async def test_key_that_the_others_refuse_is_told_with_what_to_do(cluster: FakeCluster) -> None:
    own = Own(cluster, (OTHER_KEY,))
    own.own.check()
    assert own.log.names() == ["tls.key_not_pinned"]
    own.in_files = NEXT_KEY  # nobody would hear the announcement
    assert own.own.reload()
    assert own.key == NEXT_KEY


def test_nobody_announces_a_key_for_another_server() -> None:
    assert ANNOUNCE_KEY.as_told_by(AnnounceKeyRequest(KEY, "a"), "b") == AnnounceKeyRequest(KEY, "b")
