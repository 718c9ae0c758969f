"""Somebody with a certificate of the agent CA who is no server of the cluster, under every name that may be had: while
there is a leader, between leaders, and towards a server that was away.
"""

from dataclasses import replace
from typing import Any

import pytest

from cluster.raft import codec
from cluster.raft.codec import Message
from cluster.raft.membership import ChangeKind, MembershipChange, learner
from tests.sim.cluster import SimCluster, SimNode, member, members_of
from tests.sim.run import run_scenario
from tests.sim.script import scenario_of

FAR = 1 << 20
OTHER_KEY = b"x" * 72


class Hostile:
    """In the place of a node. It may connect to everybody, and hears what is sent to it."""

    is_up = True

    def __init__(self, cluster: SimCluster, name: str, key: bytes | None = None) -> None:
        self.cluster = cluster
        self.name = name
        self.heard: list[Message] = []
        if name in cluster.nodes:
            node = cluster.nodes.pop(name)
            if node.is_up:
                node.kill()
        cluster.network.join(name, self)
        if key is not None:
            cluster.network.keys[name] = key
        cluster.network.set_members(name, cluster.nodes)

    def say(self, term: int) -> None:
        """To everybody, again and again, all that could harm if it were believed."""
        entry = (codec.pack_batch(1, 1, [b"poison"]), 2, term)
        for kind, fields in (
            ("term_notice", {"term": term}),
            ("pre_vote", {"term": term, "last_log_index": FAR, "last_log_term": term, "round": 1}),
            ("request_vote", {"term": term, "last_log_index": FAR, "last_log_term": term}),
            ("timeout_now", {"term": term}),
            ("append_entries", _append(term, (1, 0), (entry,))),
            ("append_entries", _append(term, (FAR, term), ())),
            ("offer_snapshot", {"term": term, "log_index": FAR, "epoch": 1}),
            ("confirm_leader", {"round": 1, "term": term}),
            ("read_index", {"request": 1}),
            ("pull_snapshot", {"log_index": 1, "offset": 0}),
            ("who_is", {"name": "a"}),
            ("is_server", {"name": self.name, "keys": (OTHER_KEY,)}),
        ):
            for peer in self.cluster.nodes:
                self.cluster.network.send(self.name, peer, [{"type": kind, "ct": term, **fields}])

    # -- Endpoint

    def receive(self, _peer: str, message: Message) -> None:
        self.heard.append(message)

    def link_up(self, peer: str) -> None: ...
    def link_down(self, peer: str) -> None: ...
    def peer_lost(self, peer: str) -> None: ...
    def stranger(self, peer: str) -> None: ...


def _append(term: int, previous: tuple[int, int], entries: tuple[Any, ...]) -> dict[str, Any]:
    ends = {"prevLogIdx": previous[0], "prevLogTerm": previous[1]}
    return {"term": term, "commit_index": FAR, **ends, "entries": entries, "epoch": 1}


def settled(size: int = 3) -> SimCluster:
    """With everybody's key in the log, and something besides."""
    cluster = SimCluster("hostile", size).start()
    leader = cluster.wait_for_leader()
    cluster.append(leader, b"one")
    cluster.wait(lambda: all(is_pinned(node) for node in cluster.nodes.values()), 5.0, "all keys are pinned")
    cluster.settle()
    return cluster


def is_pinned(node: SimNode) -> bool:
    return all(known.keys for known in node.raft.core.members.values())


def removed(cluster: SimCluster) -> str:
    """A server that was added, voted, and was removed."""
    node = cluster.add("d", members_of("a", "b", "c"))
    node.start()
    leader = cluster.wait_for_leader()
    cluster.change_membership(leader, ChangeKind.LEARN, learner(member("d")))
    cluster.wait(lambda: node.raft.core.is_voter and is_pinned(node), 5.0, "d votes, and its key is in the log")
    cluster.settle()
    leader = cluster.wait_for_leader(among="abc")
    cluster.change_membership(leader, ChangeKind.REMOVE, leader.raft.core.members["d"])
    cluster.wait(
        lambda: all("d" in cluster.nodes[name].raft.admission.removed for name in "abc"),
        5.0,
        "d is removed for certain",
    )
    return "d"


HOSTILE = {
    "never a server": lambda cluster: Hostile(cluster, "z"),
    "removed": lambda cluster: Hostile(cluster, removed(cluster)),
    "name of a server": lambda cluster: Hostile(cluster, "c", OTHER_KEY),
}


def facts(cluster: SimCluster) -> list[Any]:
    """Of those that run; what a compaction may change is not among them."""
    found = []
    for node in cluster.nodes.values():
        if node.is_up:
            core, journal = node.raft.core, node.raft.journal
            ends = (core.commit_index, core.applied_index, journal.entries[-1])
            found.append((node.id, core.term, core.leader_id, journal.vote, *ends))
    return found


def attack(cluster: SimCluster, hostile: Hostile, seconds: float = 3.0) -> None:
    for number in range(int(10 * seconds)):
        hostile.say(FAR + number)
        cluster.run(0.1)


@pytest.mark.parametrize("kind", HOSTILE)
def test_while_there_is_a_leader_nothing_changes(kind: str) -> None:
    cluster = settled()
    hostile = HOSTILE[kind](cluster)
    cluster.wait_for_leader()
    cluster.settle()
    before = facts(cluster)
    attack(cluster, hostile)
    assert facts(cluster) == before
    assert not hostile.heard


@pytest.mark.parametrize("kind", HOSTILE)
def test_between_leaders_nobody_is_led_asked_or_deposed(kind: str) -> None:
    cluster = settled()
    hostile = HOSTILE[kind](cluster)
    leader = cluster.wait_for_leader()
    cluster.settle()
    last = [node for node in cluster.nodes.values() if node is not leader][-1]
    for node in cluster.nodes.values():
        if node is not last:
            node.kill()
    cluster.run(2.0)
    [before] = facts(cluster)
    assert before[2] is None
    attack(cluster, hostile)
    assert facts(cluster) == [before]
    assert not hostile.heard
    cluster.start()
    cluster.wait_for_leader()
    cluster.append(cluster.wait_for_leader(), b"two")
    cluster.settle()


@pytest.mark.parametrize("kind", HOSTILE)
def test_after_a_blackout_nobody_else_leads(kind: str) -> None:
    """What a restarted node knows is not proved before a leader says so."""
    cluster = settled()
    hostile = HOSTILE[kind](cluster)
    cluster.wait_for_leader()
    cluster.settle()
    cluster.run(1.0)  # snapshots that a removal asks for
    for node in cluster.nodes.values():
        node.cut_power()
    cluster.nodes["a"].start()
    attack(cluster, hostile)
    core = cluster.nodes["a"].raft.core
    assert core.leader_id is None
    assert core.term < FAR
    cluster.start()
    cluster.append(cluster.wait_for_leader(), b"two")
    cluster.settle()


def test_server_that_was_away_follows_one_that_was_added_meanwhile() -> None:
    cluster = settled()
    leader = cluster.wait_for_leader()
    away = next(node for node in cluster.nodes.values() if node is not leader)
    away.kill()
    new = cluster.add("n", members_of("a", "b", "c"))
    new.start()
    cluster.change_membership(leader, ChangeKind.LEARN, learner(member("n")))
    cluster.wait(lambda: new.raft.core.is_voter and is_pinned(new), 5.0, "it votes")
    cluster.settle()
    leader.run(leader.raft.hand_over, "n")
    cluster.wait(lambda: new.is_ready_leader, 5.0, "the new one leads")
    cluster.append(new, b"two")
    away.start()
    cluster.settle()
    assert away.raft.core.leader_id == "n"
    assert any("raft.server_vouched" in event for event in cluster.events)


@pytest.mark.parametrize("seed", [31231, 32218])
def test_server_that_knows_its_leader_as_a_learner_without_a_key_follows_it(seed: int) -> None:
    """It missed the entries in between."""
    run_scenario(seed, scenario_of(seed))


def test_cluster_with_servers_of_the_release_before_pins_nobody() -> None:
    cluster = SimCluster("old", 3, pins=False).start()
    cluster.append(cluster.wait_for_leader(), b"one")
    cluster.settle()
    assert not any(node.raft.admission.is_pinned for node in cluster.nodes.values())
    cluster.pins = True
    cluster.wait(lambda: all(is_pinned(node) for node in cluster.nodes.values()), 5.0, "all keys are pinned")


def test_server_that_exchanges_its_key_while_it_is_announced_is_never_missed() -> None:
    cluster = settled()
    leader = cluster.wait_for_leader()
    other = next(node for node in cluster.nodes.values() if node is not leader)
    known = leader.raft.core.members[other.id]
    for keys in ((*known.keys, OTHER_KEY), (OTHER_KEY,)):
        before = leader.raft.core.members[other.id]
        pinned = replace(before, keys=keys)
        leader.run(
            leader.raft.change_membership,
            MembershipChange(ChangeKind.PIN, pinned, before.keys),
            lambda _outcome: None,
        )
        cluster.settle()
        cluster.network.keys[other.id] = OTHER_KEY
        cluster.network.reset(other.id, leader.id)
        cluster.append(leader, b"%d keys" % len(keys))
        cluster.settle()
    assert cluster.wait_for_leader() is leader
