"""Nodes whose API stands still while their Raft goes on, in virtual time."""

import random

import pytest

from cluster.raft.membership import ChangeKind
from tests.sim.cluster import SimCluster, SimNode, member, members_of
from tests.sim.network import NetworkProfile

#: From the moment at which a stall is known; what is left of three seconds when it took a second and a quarter to see.
_MOVE_SECONDS = 1.7


def stall(node: SimNode, *, ends: bool = False) -> None:
    node.raft.is_stalled = not ends
    node.run(node.wake)


def started(seed: str, size: int = 3, network: NetworkProfile | None = None) -> tuple[SimCluster, SimNode]:
    cluster = SimCluster(seed, size, network=network or NetworkProfile()).start()
    # With the keys of the servers in the log: until they are, somebody is always an entry behind.
    cluster.wait(lambda: all(node.raft.admission.is_pinned for node in cluster.nodes.values()), 20.0, "keys are pinned")
    cluster.settle()
    return cluster, cluster.wait_for_leader()


def others(cluster: SimCluster, *left_out: SimNode) -> str:
    return "".join(node_id for node_id, node in cluster.nodes.items() if node not in left_out)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_stalled_leader_is_followed_at_once_by_one_that_is_caught_up(seed: int, size: int) -> None:
    cluster, leader = started(f"stalled leader {seed}", size)
    cluster.append(leader, b"before")
    since = cluster.scheduler.now
    stall(leader)
    second = cluster.wait_for_leader(_MOVE_SECONDS, others(cluster, leader))
    assert cluster.scheduler.now - since < 0.3
    term = second.raft.core.term
    cluster.append(second, b"after")
    cluster.run(30.0)
    assert [node.raft.core.term for node in cluster.nodes.values()] == [term] * size  # nobody has campaigned since
    stall(leader, ends=True)
    cluster.settle()
    assert second.is_ready_leader


@pytest.mark.parametrize("pinned", range(3))
@pytest.mark.parametrize("seed", range(5))
def test_leader_that_stalls_while_it_pins_keys_is_followed_at_once(seed: int, pinned: int) -> None:
    """An entry that it adds by itself puts everybody one behind again, and whoever is behind cannot take over."""
    cluster = SimCluster(f"stalled while pinning {seed}", 3).start()
    leader = cluster.wait_for_leader()

    def keys(node: SimNode) -> int:
        return sum(bool(known.keys) for known in node.raft.core.members.values())

    cluster.wait(lambda: keys(leader) >= pinned, 5.0, f"{pinned} keys are in its log")
    since = cluster.scheduler.now
    stall(leader)
    second = cluster.wait_for_leader(_MOVE_SECONDS, others(cluster, leader))
    assert cluster.scheduler.now - since < 0.3
    cluster.wait(lambda: keys(second) == 3, 5.0, "the next leader goes on with the keys")
    stall(leader, ends=True)
    cluster.settle()


@pytest.mark.parametrize("seed", range(5))
def test_leader_that_stalls_as_a_learner_catches_up_is_followed_at_once(seed: int) -> None:
    cluster, leader = started(f"stalled while promoting {seed}")
    new = cluster.add("n", members_of("a", "b", "c"))
    new.start()
    cluster.change_membership(leader, ChangeKind.LEARN, member("n"))

    def is_pinned() -> bool:
        known = leader.raft.core.members.get("n")
        return known is not None and bool(known.keys)

    cluster.wait(is_pinned, 10.0, "its key is in the log, and next comes its vote")
    since = cluster.scheduler.now
    stall(leader)
    cluster.wait_for_leader(_MOVE_SECONDS, others(cluster, leader))
    assert cluster.scheduler.now - since < 0.3
    cluster.wait(lambda: new.raft.core.is_voter, 10.0, "the next leader makes it a voter")


@pytest.mark.parametrize("seed", range(20))
def test_leadership_moves_in_time_when_the_request_to_take_over_is_lost(seed: int) -> None:
    cluster, leader = started(f"lost request {seed}")
    cluster.network.filter = lambda _from, _to, message: message["type"] != "timeout_now"
    since = cluster.scheduler.now
    stall(leader)
    cluster.wait_for_leader(_MOVE_SECONDS, others(cluster, leader))
    assert cluster.scheduler.now - since > 0.3  # it was no hand-over


@pytest.mark.parametrize("seed", range(5))
def test_stalled_node_gives_the_vote_that_the_others_need(seed: int) -> None:
    cluster, leader = started(f"vote {seed}")
    stall(leader)
    second = cluster.wait_for_leader(among=others(cluster, leader))
    second.cut_power()
    third = cluster.wait_for_leader(among=others(cluster, leader, second))
    cluster.append(third, b"with its copy, too")
    assert leader.raft.core.applied_index > 0
    second.start()
    stall(leader, ends=True)
    cluster.settle()


def test_nobody_leads_while_all_are_stalled_and_one_that_turns_again_does() -> None:
    cluster, _ = started("all stalled")
    for node in cluster.nodes.values():
        stall(node)
    cluster.run(10.0)
    assert not any(node.is_leader for node in cluster.nodes.values())
    back = cluster.nodes["b"]
    stall(back, ends=True)
    assert cluster.wait_for_leader() is back
    cluster.append(back, b"it goes on")


@pytest.mark.parametrize("seed", range(20))
def test_stalls_at_random_on_a_bad_network_lose_nothing(seed: int) -> None:
    """Proposals go on through whoever leads; every step of every node is checked."""
    network = NetworkProfile(slow=0.02, reset=0.002, lost=0.01, repeated=0.01)
    cluster, _ = started(f"random stalls {seed}", network=network)
    rng = random.Random(f"random stalls {seed}")
    for number in range(60):
        stall(rng.choice([*cluster.nodes.values()]), ends=rng.random() < 0.5)
        for node in cluster.nodes.values():
            if node.is_leader:
                # Two of them, while one does not know yet that it was deposed.
                cluster.propose(node, f"{number} {node.id}".encode())
        cluster.run(0.3 * rng.random())
    for node in cluster.nodes.values():
        stall(node, ends=True)
    cluster.settle(20.0)
