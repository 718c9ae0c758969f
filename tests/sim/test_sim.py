"""Named scenes in virtual time: whole clusters whose state machine is a list, so that scenes are easy to read."""

from dataclasses import replace

import pytest

from cluster.raft.membership import ChangeKind, learner
from cluster.raft.node import Outcome
from tests.sim.clients import Client, LeaderWork, Proposer
from tests.sim.cluster import SimCluster, SimNode, member, members_of
from tests.sim.model import CAWorld
from tests.sim.network import NetworkProfile
from tests.sim.run import run_scenario
from tests.sim.script import Faults, Scenario, scenario_of
from tests.sim.world import InvariantViolated


def blackout_without_syncs(seed: int) -> None:
    cluster = SimCluster(f"no sync {seed}")
    for node in cluster.nodes.values():
        node.disk.is_syncing = False
    leader = cluster.start().wait_for_leader()
    append_many(cluster, leader, 20)
    for node in cluster.nodes.values():
        node.cut_power()
    cluster.start()
    append_many(cluster, cluster.wait_for_leader(), 20, b"more")
    cluster.settle()


def test_disk_that_does_not_sync_is_noticed() -> None:
    """The proof that the simulator sees lost acknowledgements."""
    for seed in range(3):
        with pytest.raises(InvariantViolated):
            blackout_without_syncs(seed)


def started(seed: object, size: int = 3) -> tuple[SimCluster, SimNode, list[SimNode]]:
    """A cluster, its leader and the others."""
    cluster = SimCluster(seed, size).start()
    leader = cluster.wait_for_leader()
    cluster.settle()
    return cluster, leader, [node for node in cluster.nodes.values() if node is not leader]


def append_many(cluster: SimCluster, leader: SimNode, count: int, prefix: bytes = b"x") -> None:
    for number in range(count):
        cluster.append(leader, prefix + b"%d" % number)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_cluster_of_any_size_elects_commits_and_reads(size: int) -> None:
    cluster, leader, _ = started(f"size {size}", size)
    append_many(cluster, leader, 10)
    assert [cluster.read(node) for node in cluster.nodes.values()] == [10] * size
    cluster.settle()


@pytest.mark.parametrize("seed", range(5))
def test_killed_leader_is_replaced_at_once_and_nothing_is_lost(seed: int) -> None:
    cluster, leader, _ = started(f"failover {seed}")
    append_many(cluster, leader, 5)
    before = cluster.scheduler.now
    leader.kill()
    second = cluster.wait_for_leader()
    assert cluster.scheduler.now - before < 0.3  # the closed connections tell it, not the time-out
    assert cluster.append(second, b"more") == 6
    leader.start()
    cluster.settle()


@pytest.mark.parametrize("seed", range(5))
def test_leader_that_loses_power_is_replaced_within_the_time_outs(seed: int) -> None:
    cluster, leader, _ = started(f"power {seed}")
    append_many(cluster, leader, 5)
    before = cluster.scheduler.now
    leader.cut_power()
    cluster.append(cluster.wait_for_leader(), b"more")
    assert cluster.scheduler.now - before < 2.5
    leader.start()
    cluster.settle()


@pytest.mark.parametrize("seed", range(5))
def test_blackout_of_all_nodes_loses_nothing(seed: int) -> None:
    cluster, leader, _ = started(f"blackout {seed}")
    append_many(cluster, leader, 30)
    for node in cluster.nodes.values():
        node.cut_power()
    cluster.start()
    assert cluster.read(cluster.wait_for_leader()) == 30
    cluster.settle()


@pytest.mark.parametrize("seed", range(5))
def test_leader_cut_off_from_the_majority_neither_writes_nor_reads(seed: int) -> None:
    cluster, leader, others = started(f"cut {seed}")
    append_many(cluster, leader, 3)
    cluster.network.partition([leader.id], [node.id for node in others])
    lost = cluster.propose(leader, b"lost")
    second = cluster.wait_for_leader(among="".join(node.id for node in others))
    assert cluster.append(second, b"won") == 4
    # One that comes while it still believes to lead, or later, is never answered with old news.
    assert cluster.read(leader) is None
    assert not leader.is_leader
    assert lost == []
    cluster.network.heal()
    cluster.settle()
    assert lost == [Outcome.NOT_LEADER]
    assert cluster.invariants.applied_commands == [b"x0", b"x1", b"x2", b"won"]


def test_leader_that_cannot_hear_the_new_one_is_told_by_those_who_can() -> None:
    """S5: cut off from one follower only, it would lead on beside it."""
    cluster, leader, others = started("s5")
    cluster.network.partition([leader.id], [others[0].id], [others[1].id])
    cluster.run(0.6)
    for pair in ((leader, others[1]), (others[0], others[1])):
        for one, other in (pair, pair[::-1]):
            cluster.network.open(one.id, other.id)
    cluster.wait_for_leader()
    cluster.run(3.0)
    assert sum(node.is_leader for node in cluster.nodes.values()) == 1
    cluster.network.heal()
    cluster.settle()


@pytest.mark.parametrize("seed", range(3))
def test_follower_cut_off_from_the_leader_only_deposes_nobody(seed: int) -> None:
    """S10: PreVote. It still reaches the other follower, who hears the leader."""
    cluster, leader, others = started(f"s10 {seed}")
    term = leader.raft.core.term
    for pair in ((leader.id, others[0].id), (others[0].id, leader.id)):
        cluster.network.block(*pair)
    cluster.run(20.0)
    assert leader.is_ready_leader
    assert {node.raft.core.term for node in cluster.nodes.values()} == {term}
    cluster.network.heal()
    cluster.settle()
    assert leader.raft.core.term == term


def test_follower_that_was_cut_off_does_not_depose_the_leader_when_it_returns() -> None:
    cluster, leader, others = started("returns")
    term = leader.raft.core.term
    cluster.network.partition([leader.id, others[0].id], [others[1].id])
    cluster.run(20.0)
    cluster.network.heal()
    cluster.settle()
    assert (leader.is_leader, leader.raft.core.term) == (True, term)


def test_flapping_connection_to_the_leader_deposes_nobody() -> None:
    cluster, leader, others = started("flap")
    term = leader.raft.core.term
    for _ in range(50):
        cluster.network.reset(leader.id, others[0].id)
        cluster.run(0.15)
    cluster.settle()
    assert (leader.is_leader, leader.raft.core.term) == (True, term)


@pytest.mark.parametrize("seed", range(5))
def test_entries_of_a_deposed_leader_are_not_acknowledged(seed: int) -> None:
    """S1: neither when the new leader has compacted its log, and sends a snapshot instead."""
    cluster, leader, others = started(f"s1 {seed}")
    cluster.network.partition([leader.id], [node.id for node in others])
    lost = [cluster.propose(leader, b"lost %d" % number) for number in range(3)]
    second = cluster.wait_for_leader(among="".join(node.id for node in others))
    for number in range(40):
        cluster.append(second, b"y" * 200 + b"%d" % number)
    assert second.raft.compactions > 0
    cluster.network.heal()
    cluster.settle()
    assert all(result in ([Outcome.NOT_LEADER], [Outcome.UNKNOWN]) for result in lost)
    assert not any(command.startswith(b"lost") for command in cluster.invariants.applied_commands)


@pytest.mark.parametrize("seed", range(5))
def test_node_that_was_away_for_long_catches_up_by_snapshot(seed: int) -> None:
    cluster, leader, others = started(f"away {seed}")
    others[0].kill()
    for number in range(60):
        cluster.append(leader, b"z" * 200 + b"%d" % number)
    others[0].start()
    cluster.settle()
    assert any("snapshot.installed" in event for event in cluster.events)
    assert cluster.read(others[0]) == 60


def test_lost_answer_to_an_installed_snapshot_is_repeated() -> None:
    """Else the leader would offer it for ever."""
    cluster, leader, others = started("lost answer")
    late = others[0]
    late.kill()
    for number in range(60):
        cluster.append(leader, b"z" * 200 + b"%d" % number)
    late.start()
    cluster.wait(lambda: late.raft.core.applied_index > 1, 10, "the snapshot")
    cluster.network.reset(late.id, leader.id)  # with the answer on its way
    cluster.settle()


def test_deposed_leader_whose_log_is_compacted_away_elsewhere_but_for_its_end_catches_up() -> None:
    """It has the snapshot's last entry, does not know that it is committed, and the entry behind it is another one."""
    cluster, leader, others = started("conflict behind the snapshot")
    append_many(cluster, leader, 8)
    cluster.settle()
    for node in others:
        node.run(node.raft.compact)
    cluster.wait(lambda: all(node.raft.compactions for node in others), 1.0, "snapshots")
    for node in others:
        node.raft.journal.compact_to(7)  # as when more had been written before
    cluster.network.partition([leader.id], [node.id for node in others])
    lost = cluster.propose(leader, b"lost")
    cluster.run(0.1)
    leader.kill()
    second = cluster.wait_for_leader()
    append_many(cluster, second, 5, b"y")
    # The next one believes at first that everybody has as much as it has.
    second.run(second.raft.hand_over, None)
    cluster.wait(lambda: not second.is_leader, 1.0, "hand-over")
    cluster.wait_for_leader()
    leader.start()
    cluster.network.heal()
    cluster.settle()
    assert not lost
    assert len(cluster.invariants.applied_commands) == 13


def test_leadership_is_handed_over_without_waiting_for_a_time_out() -> None:
    cluster, leader, others = started("hand over")
    append_many(cluster, leader, 5)
    before = cluster.scheduler.now
    leader.run(leader.raft.hand_over, others[1].id)
    cluster.wait(lambda: others[1].is_ready_leader, 1.0, "the new leader")
    assert cluster.scheduler.now - before < 0.1
    cluster.settle()


def test_paused_leader_comes_back_as_a_follower() -> None:
    cluster, leader, _ = started("pause")
    append_many(cluster, leader, 5)
    leader.pause(5.0)
    others = "".join(node.id for node in cluster.nodes.values() if node is not leader)
    assert cluster.append(cluster.wait_for_leader(among=others), b"more") == 6
    cluster.run(5.0)
    assert not leader.is_leader
    cluster.settle()


# -- membership


def test_new_server_learns_then_votes_and_counts() -> None:
    cluster, leader, _ = started("join")
    for number in range(60):
        cluster.append(leader, b"z" * 200 + b"%d" % number)
    new = cluster.add("d", members_of("a", "b", "c"))
    new.start()
    result = cluster.change_membership(leader, ChangeKind.LEARN, member("d"))
    cluster.wait(lambda: new.raft.core.is_voter, 10, "the new voter")
    assert result == [None]
    cluster.settle()
    assert set(leader.raft.core.members) == set("abcd")
    assert leader.raft.core.other_voters == set("abcd") - {leader.id}


def test_server_that_does_not_run_stays_a_learner() -> None:
    cluster, leader, _ = started("absent")
    cluster.add("d", members_of("a", "b", "c"))
    assert cluster.change_membership(leader, ChangeKind.LEARN, member("d")) == []
    cluster.run(5.0)
    assert leader.raft.core.members["d"] == learner(member("d"))
    append_many(cluster, leader, 5)


@pytest.mark.parametrize("seed", range(3))
def test_removed_server_that_keeps_running_disturbs_nobody(seed: int) -> None:
    cluster, leader, others = started(f"removed {seed}")
    term = leader.raft.core.term
    cluster.change_membership(leader, ChangeKind.REMOVE, member(others[0].id))
    append_many(cluster, leader, 5)
    cluster.run(20.0)
    assert (leader.is_leader, leader.raft.core.term) == (True, term)
    cluster.settle()
    assert cluster.read(leader) == 5


@pytest.mark.parametrize("seed", range(5))
def test_cluster_replaced_server_by_server_keeps_everything(seed: int) -> None:
    """While clients write, and the nodes are killed at times."""
    cluster = SimCluster(f"replace {seed}", world=CAWorld()).start()
    proposer = Proposer(cluster)
    work, clients = LeaderWork(cluster, proposer), [Client(cluster, proposer, number) for number in range(2)]
    for old, new_id in zip("abc", "uvw", strict=True):
        leader = cluster.wait_for_leader()
        if leader.id == old:
            # Under load there is not always one that has everything.
            cluster.wait(lambda leader=leader: not leader.is_leader or leader.raft.hand_over(None), 2.0, "a heir")  # type: ignore[misc]
            cluster.wait(lambda old=old: not cluster.nodes[old].is_leader, 2.0, "hand-over")  # type: ignore[misc]
            leader = cluster.wait_for_leader()
        new = cluster.add(new_id, members_of("a", "b", "c"))
        new.start()
        # The keys of the servers are being put into the log, perhaps: changes are made one at a time.
        asked: list[Outcome | None] = [Outcome.REFUSED]
        deadline = cluster.scheduler.now + 20.0
        while asked == [Outcome.REFUSED]:
            assert cluster.scheduler.now < deadline, f"{new_id} is not added\n{cluster.describe()}"
            asked = cluster.change_membership(leader, ChangeKind.LEARN, member(new_id))
            cluster.run(0.05)
        cluster.wait(lambda new=new: new.raft.core.is_voter, 20, f"{new_id} votes")  # type: ignore[misc]
        leader = cluster.wait_for_leader()
        if leader.id != old:
            cluster.change_membership(leader, ChangeKind.REMOVE, member(old))
        cluster.run(0.5)
        cluster.nodes[cluster.rng.choice("uvw"[: "abc".index(old) + 1])].kill()
        cluster.run(0.5)
        cluster.start()
        cluster.run(1.0)
    work.stop()
    for client in clients:
        client.stop()
    cluster.run(2.0)
    cluster.settle()
    assert cluster.history.acknowledged > 0


# -- an empty disk in the place of a full one (G7)


@pytest.mark.parametrize("seed", range(10))
def test_emptied_disk_does_not_let_a_node_without_the_latest_entries_lead(seed: int) -> None:
    cluster, leader, (late, wiped) = started(f"wiped {seed}")
    cluster.network.partition([leader.id, wiped.id], [late.id])
    append_many(cluster, leader, 5)
    leader.kill()
    wiped.replace_disk()
    wiped.start()
    cluster.network.heal()
    cluster.run(10.0)
    assert not late.is_leader
    assert not wiped.is_leader
    leader.start()
    cluster.settle()
    assert len(cluster.invariants.applied_commands) == 5


def test_one_of_two_nodes_with_a_new_disk_is_brought_up_to_date() -> None:
    """Both agree, and the one that remembers has everything: waiting for a third would be for ever."""
    cluster, leader, (wiped,) = started("two", 2)
    append_many(cluster, leader, 5)
    leader.kill()
    wiped.replace_disk()
    cluster.start()
    cluster.settle()
    assert cluster.read(wiped) == 5


def founded(crash_in: int) -> tuple[SimCluster, SimNode]:
    """A new cluster, and its first leader, killed so soon after its election."""
    cluster = SimCluster("early end").start()
    cluster.wait(lambda: any(node.is_leader for node in cluster.nodes.values()), 5, "a leader")
    first = next(node for node in cluster.nodes.values() if node.is_leader)
    cluster.run(crash_in * 0.0003)
    first.kill()
    return cluster, first


@pytest.mark.parametrize("crash_in", range(1, 12))
def test_new_cluster_whose_first_leader_ends_early_goes_on_when_it_returns(crash_in: int) -> None:
    cluster, first = founded(crash_in)
    cluster.run(3.0)
    first.start()
    cluster.append(cluster.wait_for_leader(), b"one")
    cluster.settle()


@pytest.mark.parametrize("crash_in", [1, 8, 15, 40])
def test_new_cluster_goes_on_without_its_first_leader_once_the_others_have_its_first_entry(crash_in: int) -> None:
    cluster, first = founded(crash_in)
    others = [node for node in cluster.nodes.values() if node is not first]
    have_it = all(node.raft.journal.entries[-1].log_index > 1 for node in others)
    cluster.run(5.0)
    assert any(node.is_leader for node in others) is have_it
    assert have_it or crash_in < 40
    first.start()
    cluster.settle()


def test_nodes_that_know_nothing_do_not_start_afresh_beside_one_that_does() -> None:
    """One disk was emptied, one node never ran: they are a majority, and only the third has what was acknowledged."""
    cluster = SimCluster("afresh")
    first, second, never_ran = cluster.nodes.values()
    never_ran.start()
    first.start()
    second.start()
    cluster.wait_for_leader()
    cluster.network.partition([first.id, second.id], [never_ran.id])
    never_ran.replace_disk()
    append_many(cluster, cluster.wait_for_leader(among=first.id + second.id), 5)
    first.kill()
    second.replace_disk()
    second.start()
    never_ran.start()
    cluster.network.heal()
    cluster.run(20.0)
    assert not second.is_leader
    assert not never_ran.is_leader
    first.start()
    cluster.settle()
    assert len(cluster.invariants.applied_commands) == 5


@pytest.mark.parametrize("seed", range(5))
def test_emptied_disk_that_has_a_snapshot_again_does_not_vote_yet(seed: int) -> None:
    """It had acknowledged entries behind the snapshot, too."""
    cluster, leader, (late, wiped) = started(f"snapshot only {seed}")
    append_many(cluster, leader, 3)
    leader.run(leader.raft.compact)
    cluster.wait(lambda: leader.raft.compactions > 0, 1, "a snapshot")
    cluster.settle()
    cluster.network.partition([leader.id, wiped.id], [late.id])
    append_many(cluster, leader, 5, b"y")
    leader.raft.journal.compact_to(4)  # as when more had been written before: a new disk has to take the snapshot
    wiped.replace_disk()
    cluster.run(0.2)  # the leader leads on
    wiped.start()
    cluster.wait(lambda: any("snapshot.installed" in event for event in cluster.events), 10, "the snapshot")
    leader.kill()
    cluster.network.heal()
    cluster.run(20.0)
    assert not wiped.is_leader
    assert not late.is_leader
    leader.start()
    cluster.settle()
    assert len(cluster.invariants.applied_commands) == 8


@pytest.mark.parametrize("seed", range(6))
def test_disks_emptied_one_at_a_time_lose_nothing(seed: int) -> None:
    """Among other faults; the next one only when the node before is up to date again."""
    scenario = scenario_of(seed)
    faults = replace(scenario.faults, wipe=3.0, membership=0.0, blackout=0.0)
    run_scenario(f"wipe {seed}", replace(scenario, faults=faults, size=3 + 2 * (seed % 2)))


# -- disks that fail


@pytest.mark.parametrize("seed", range(5))
def test_node_whose_disk_is_full_stops_and_the_others_go_on(seed: int) -> None:
    cluster, leader, others = started(f"full {seed}")
    cluster.has_bad_disks = True
    victim = cluster.rng.choice([leader, *others])
    victim.disk.room_bytes = 500
    position = 0
    for number in range(40):
        leader = cluster.wait_for_leader()
        result = cluster.propose(leader, b"%d" % number)
        cluster.wait(lambda result=result, leader=leader: bool(result) or not leader.is_up, 5.0, "an answer or its end")  # type: ignore[misc]
        position = result[0] if result and isinstance(result[0], int) else position
    assert not victim.is_up
    assert position > 30
    victim.disk.room_bytes = None
    victim.start()
    cluster.settle()


def test_quiet_cluster_costs_no_elections() -> None:
    scenario = Scenario(3, Faults(per_second=0), NetworkProfile(), seconds=20.0, clients=2)
    cluster = run_scenario("quiet", scenario).cluster
    assert {node.raft.core.term for node in cluster.nodes.values()} == {1}
    assert cluster.history.unknown == 0
