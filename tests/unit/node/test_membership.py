"""Adding, removing, handing over: what is refused, and in which words."""

import asyncio
import re
from collections.abc import Awaitable
from dataclasses import replace

import pytest

from cluster.api.access import OPERATOR_WRITE, Caller
from cluster.base.errors import BadRequest, ClusterError, Conflict, NotFound, NotLeader, PermissionDenied, Refused
from cluster.node.membership import Membership
from cluster.raft.membership import Member, voter
from tests.kit.callers import ANYBODY, anybody
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster
from tests.kit.log import EventLog


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def membership(cluster: FakeCluster, clock: FakeClock) -> Membership:
    """Of a, which leads."""
    cluster.elect("a")
    return Membership(cluster.replicas["a"].real, "a", clock, EventLog())


async def assert_refused(work: Awaitable[None], error: type[ClusterError], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        await work


async def test_only_the_leader_changes_anything(cluster: FakeCluster, membership: Membership) -> None:
    cluster.elect("b")
    for work in (
        membership.transfer(None, anybody),
        membership.add("d", "h:1", "h:2", anybody),
        membership.remove("b", None, anybody),
    ):
        with pytest.raises(NotLeader):
            await work


async def test_new_server_learns_first(cluster: FakeCluster, membership: Membership) -> None:
    await membership.add("d", "h:1", "h:2", anybody)
    assert cluster.members["d"] == Member("d", "h:1", "h:2", is_voter=False)
    before = cluster.members
    await membership.add("d", "h:1", "h:2", anybody)  # again, as it is
    assert cluster.members is before


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("D", "h:1", "h:2"), BadRequest, "ID 'D' is not allowed: must be a DNS label: lower-case letters, digits"),
        (("d", "h", "h:2"), BadRequest, "Address 'h' is not allowed: must be host:port"),
        (("d", "h:1", ""), BadRequest, "RPC '' is not allowed: must be host:port"),
        (("d", "h:1", "h:1"), BadRequest, "RPC 'h:1' is not allowed: must be another than Address"),
        (("b", "h:1", "h:2"), Refused, "ID 'b' is a server already, at 127.0.0.1:2: remove it first"),
        (("d", "127.0.0.1:2", "h:2"), Refused, "Address '127.0.0.1:2' is an address of the server b: remove it first"),
        (("d", "h:1", "127.0.0.1:3"), Refused, "RPC '127.0.0.1:3' is an address of the server c: remove it first"),
    ],
)
async def test_server_that_cannot_be_added_is_refused_with_the_reason(
    cluster: FakeCluster, membership: Membership, arguments: tuple[str, str, str], error: type[ClusterError], text: str
) -> None:
    before = cluster.members
    with pytest.raises(error, match=f"^{re.escape(text)}"):
        await membership.add(*arguments, anybody)
    assert cluster.members is before


async def test_removal_by_name_or_address(cluster: FakeCluster, membership: Membership) -> None:
    await membership.remove("b", None, anybody)
    await membership.remove(None, "127.0.0.1:3", anybody)
    assert sorted(cluster.members) == ["a"]


async def test_of_two_servers_added_at_once_the_later_is_looked_at_behind_the_earlier(
    cluster: FakeCluster, membership: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was looked at once, before it waited: two servers could have one address."""
    monkeypatch.setattr("cluster.node.membership._PAUSE_SECONDS", 0.0)
    cluster.replicas["a"].membership_refusals = 1  # e's comes first
    later = asyncio.create_task(membership.add("d", "h:1", "h:2", anybody))
    await asyncio.sleep(0)
    await membership.add("e", "h:1", "h:3", anybody)
    await assert_refused(later, Refused, "Address 'h:1' is an address of the server e: remove it first")
    assert sorted(cluster.members) == ["a", "b", "c", "e"]


@pytest.mark.parametrize("change", ["add", "remove", "add again"])
async def test_whoever_waits_for_a_change_is_judged_again_when_its_turn_has_come(
    cluster: FakeCluster, membership: Membership, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("cluster.node.membership._PAUSE_SECONDS", 0.0)
    cluster.members = {**cluster.members, "b": replace(cluster.members["b"], rpc_address="h:9", keys=(b"k" * 72,))}
    cluster.keys = {"b": b"j" * 72}
    cluster.replicas["a"].membership_refusals = 1  # another change comes first
    judged = []

    def judge() -> Caller:
        judged.append(change)
        if cluster.replicas["a"].membership_refusals == 0:  # by then the token was deleted
            raise ANYBODY.refusal(OPERATOR_WRITE)
        return ANYBODY

    b = cluster.members["b"]
    works = {
        "add": lambda: membership.add("d", "h:1", "h:2", judge),
        "remove": lambda: membership.remove("c", None, judge),
        "add again": lambda: membership.add("b", b.raft_address, b.rpc_address, judge),
    }
    before = cluster.members
    with pytest.raises(PermissionDenied):
        await works[change]()
    assert len(judged) > 1
    assert cluster.members == before


async def test_server_without_which_there_is_no_quorum_stays(cluster: FakeCluster, membership: Membership) -> None:
    cluster.replicas["a"].contact_age_seconds = {"c": 5.0}
    text = "without b the cluster would have no quorum: c cannot be reached; bring it back, or remove it first"
    await assert_refused(membership.remove("b", None, anybody), Refused, text)
    await membership.remove("c", None, anybody)
    await membership.remove("b", None, anybody)
    assert sorted(cluster.members) == ["a"]


async def test_removal_that_cannot_be_is_refused(cluster: FakeCluster, membership: Membership) -> None:
    await assert_refused(
        membership.remove("x", None, anybody), NotFound, "'x' is no server of this cluster: must be one of a, b, c"
    )
    await assert_refused(
        membership.remove(None, "h:9", anybody), NotFound, "'h:9' is no server of this cluster: must be one of a, b, c"
    )
    cluster.members = {"a": cluster.members["a"]}
    await assert_refused(membership.remove("a", None, anybody), Refused, "the only server cannot be removed")


async def test_leader_hands_over_before_it_is_removed(cluster: FakeCluster, membership: Membership) -> None:
    cluster.replicas["a"].can_hand_over = False
    with pytest.raises(Refused, match="no other voter has caught up"):
        await membership.remove("a", None, anybody)
    cluster.replicas["a"].can_hand_over = True
    with pytest.raises(NotLeader):  # the request goes on at the next leader
        await membership.remove("a", None, anybody)
    assert cluster.leader == "b"
    assert "a" in cluster.members


async def test_change_under_way_is_waited_for_but_not_for_ever(
    cluster: FakeCluster, clock: FakeClock, membership: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.node.membership._PAUSE_SECONDS", 0.0)
    cluster.replicas["a"].membership_refusals = 3
    await membership.remove("b", None, anybody)
    assert "b" not in cluster.members
    monkeypatch.setattr("cluster.node.membership._PATIENCE_SECONDS", 0.0)
    cluster.replicas["a"].membership_refusals = 1
    with pytest.raises(Refused, match="another change of membership is under way"):
        await membership.remove("c", None, anybody)


async def test_transfer_names_what_is_wrong(cluster: FakeCluster, membership: Membership) -> None:
    await assert_refused(
        membership.transfer("x", anybody), BadRequest, "id 'x' is no server of this cluster: must be one of a, b, c"
    )
    await assert_refused(membership.transfer("a", anybody), Refused, "a leads already")
    await membership.add("d", "h:1", "h:2", anybody)
    await assert_refused(membership.transfer("d", anybody), Refused, "d does not vote yet: it has not caught up")
    cluster.replicas["a"].can_hand_over = False
    text = "no other voter has caught up, so leadership stays here"
    await assert_refused(membership.transfer(None, anybody), Refused, text)
    assert cluster.leader == "a"


async def test_health_follows_the_last_contact_and_since_when(
    cluster: FakeCluster, clock: FakeClock, membership: Membership
) -> None:
    replica = cluster.replicas["a"]
    replica.contact_age_seconds = {"b": 0.05, "c": float("inf")}
    started = int(clock.now())
    first = (await membership.info()).servers
    assert [(server.is_healthy, server.last_contact_ms) for server in first] == [(True, 0), (True, 50), (False, None)]
    clock.advance(100)
    replica.contact_age_seconds = {"b": 1.5, "c": float("inf")}
    second = (await membership.info()).servers
    assert [server.stable_since - started for server in second] == [0, 100, 0]
    assert [server.is_healthy for server in second] == [True, False, False]


async def test_follower_knows_itself_and_its_leader_only(cluster: FakeCluster, clock: FakeClock) -> None:
    cluster.elect("a")
    info = await Membership(cluster.replicas["b"].real, "b", clock, EventLog()).info()
    assert [(server.is_leader, server.last_contact_ms) for server in info.servers] == [
        (True, 10),
        (False, 0),
        (False, None),
    ]


# -- how many, and one at a time


async def test_tenth_server_is_refused(cluster: FakeCluster, membership: Membership) -> None:
    for number in range(6):
        await membership.add(f"n{number}", f"h:{2 * number + 1}", f"h:{2 * number + 2}", anybody)
        cluster.members = {name: voter(known) for name, known in cluster.members.items()}
    before = cluster.members
    text = "ID 'n9' would be the tenth server: a cluster has at most 9; remove one first"
    await assert_refused(membership.add("n9", "h:91", "h:92", anybody), Conflict, text)
    assert cluster.members is before
    await membership.add("n0", "h:1", "h:2", anybody)  # one that is there, again
    assert Conflict.http_status == 409


async def test_second_learner_is_refused_until_the_first_one_votes_or_is_gone(
    cluster: FakeCluster, membership: Membership
) -> None:
    await membership.add("d", "h:1", "h:2", anybody)
    before = cluster.members
    with pytest.raises(Conflict, match=r"^d was added and has no vote yet.* remove-peer -id d`\)$"):
        await membership.add("e", "h:3", "h:4", anybody)
    assert cluster.members is before
    await membership.add("d", "h:1", "h:2", anybody)
    await membership.remove("d", None, anybody)
    await membership.add("e", "h:3", "h:4", anybody)
    assert not cluster.members["e"].is_voter


async def test_learner_that_never_answers_is_shown(cluster: FakeCluster, membership: Membership) -> None:
    await membership.add("d", "h:1", "h:2", anybody)
    cluster.replicas["a"].contact_age_seconds = {"d": 30.0}
    shown = {server.name: server for server in (await membership.info()).servers}["d"]
    assert (shown.is_voter, shown.is_healthy, shown.last_contact_ms) == (False, False, 30_000)


# -- keys


KEY, NEXT_KEY, THIRD_KEY = b"k" * 72, b"n" * 72, b"t" * 72
#: The CA of a key that counts.
TRUSTED = b"c" * 32


def pin(cluster: FakeCluster, *keys: bytes) -> None:
    """What b has in the log."""
    cluster.members = {**cluster.members, "b": replace(cluster.members["b"], keys=keys)}


def keys_of(cluster: FakeCluster) -> list[bytes]:
    return [*cluster.members["b"].keys]


async def add_again(membership: Membership, cluster: FakeCluster) -> None:
    cluster.members = {**cluster.members, "b": replace(cluster.members["b"], raft_address="h:1", rpc_address="h:2")}
    await membership.add("b", "h:1", "h:2", anybody)


@pytest.mark.parametrize(
    ("pinned", "seen", "after"),
    [
        ((KEY,), KEY, (KEY,)),
        ((KEY,), NEXT_KEY, (NEXT_KEY,)),
        ((KEY, NEXT_KEY), NEXT_KEY, (NEXT_KEY,)),
        ((KEY, NEXT_KEY), KEY, (KEY,)),
        ((KEY,), None, (KEY,)),  # it cannot be reached
        ((), NEXT_KEY, ()),  # the leader pins it by itself, or must not yet
    ],
)
async def test_server_that_is_added_again_gets_the_key_that_it_has(
    cluster: FakeCluster,
    membership: Membership,
    pinned: tuple[bytes, ...],
    seen: bytes | None,
    after: tuple[bytes, ...],
) -> None:
    pin(cluster, *pinned)
    if seen is not None:
        cluster.keys["b"] = seen
    cluster.replicas["a"].membership_refusals = 1
    await add_again(membership, cluster)
    assert cluster.members["b"].keys == after
    assert cluster.replicas["a"].dialled == ["b"]


async def test_announced_key_counts_beside_the_present_one_until_it_is_used(
    cluster: FakeCluster, membership: Membership
) -> None:
    pin(cluster, KEY)
    cluster.keys["b"] = KEY
    for _ in range(2):
        await membership.announce_key("b", NEXT_KEY)
        assert keys_of(cluster) == [KEY, NEXT_KEY]
    await membership.drop_old_keys()
    assert keys_of(cluster) == [KEY, NEXT_KEY]
    with pytest.raises(Refused, match="another exchange of the key of b is under way"):
        await membership.announce_key("b", THIRD_KEY)
    cluster.keys["b"] = NEXT_KEY
    await membership.drop_old_keys()
    assert keys_of(cluster) == [NEXT_KEY]


@pytest.mark.parametrize(
    ("anchor", "expiry"), [(TRUSTED, FakeClock().now() - 1), (bytes(32), FakeClock().now() + 60)], ids=["expired", "CA"]
)
async def test_key_that_would_not_count_is_not_announced(
    cluster: FakeCluster, membership: Membership, anchor: bytes, expiry: float
) -> None:
    """With it in the log the name alone would count, and the leader pin what it sees: the key that is given up."""
    pin(cluster, KEY)
    cluster.anchors, cluster.keys["b"] = frozenset([TRUSTED]), KEY
    announced = b"n" * 32 + anchor + int(expiry).to_bytes(8, "big")
    with pytest.raises(Refused, match="the new certificate of b has expired, or is of a CA that the leader does not"):
        await membership.announce_key("b", announced)
    assert keys_of(cluster) == [KEY]
    good = b"n" * 32 + TRUSTED + int(FakeClock().now() + 60).to_bytes(8, "big")
    await membership.announce_key("b", good)
    assert keys_of(cluster) == [KEY, good]


@pytest.mark.parametrize("name", ["b", "x"])
async def test_nobody_announces_a_key_before_there_is_one(
    cluster: FakeCluster, membership: Membership, name: str
) -> None:
    with pytest.raises(Refused, match=f"no key is pinned for {name}"):
        await membership.announce_key(name, KEY)
