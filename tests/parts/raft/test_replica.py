"""Real replicas: three in one process, on loopback, with TLS, files and threads. Waits are for conditions."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from cluster.base.errors import CommitUnknown, NoLeader, NotLeader, Overloaded, Refused
from cluster.raft import replica as replica_module
from cluster.raft.codec import FRAME_HEADER, pack_frame
from cluster.raft.core import RaftTiming
from cluster.raft.journal import JournalDamaged
from cluster.raft.membership import ChangeKind, Member, Members
from cluster.raft.node import CompactionPolicy, Proposal
from cluster.raft.replica import Replica, ReplicaSettings
from cluster.raft.snapshot import Snapshot
from cluster.tls.contexts import NodeTls, TlsFiles
from fsm.ca import InitConfig, InitSeal
from fsm.commands import Applied, Rejected
from fsm.leaves import RecordLeaves
from fsm.ledger import LedgerReader, LedgerSummary
from fsm.state import Area, State
from tests.kit import samples, tls_files
from tests.kit.log import EventLog
from tests.kit.ports import free_ports
from tests.kit.seats import roomy_seats
from tests.kit.wait import until

DEADLINE_SECONDS = 20.0


class Cluster:
    """Replicas `node-1`, `node-2`, ... of one datacenter."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.names = [f"node-{number}" for number in range(1, 5)]
        self.authority = tls_files.Authority()
        self.authority.write_ca(directory / "ca.pem")
        ports = free_ports(len(self.names))
        self.members: dict[str, Member] = {}
        for name, port in zip(self.names, ports, strict=True):
            self.authority.write_server(directory, name)
            self.members[name] = Member(name, f"127.0.0.1:{port}", f"127.0.0.1:{port}")
        self.running: dict[str, Replica] = {}
        self.fatal: list[BaseException] = []
        self.log = EventLog()

    @property
    def initial(self) -> Members:
        return {name: self.members[name] for name in self.names[:3]}

    def tls(self, name: str) -> NodeTls:
        path = self.directory
        return NodeTls(TlsFiles(f"{path}/ca.pem", f"{path}/{name}.pem", f"{path}/{name}.key"), "dc1", "consul")

    def settings(self, name: str, **changes: Any) -> ReplicaSettings:
        address = self.members[name].raft_address
        data_dir = self.directory / "data" / name
        data_dir.mkdir(parents=True, exist_ok=True)
        # Small, so that a few dozen entries are compacted.
        compaction = CompactionPolicy(trigger_bytes=20_000, keep_bytes=2_000)
        base = ReplicaSettings(name, address, address, str(data_dir), self.initial, compaction=compaction)
        return replace(base, **changes)

    async def start(self, name: str, *, leads_at_once: bool = True, **changes: Any) -> Replica:
        self.running[name] = await Replica.start(
            self.settings(name, **changes),
            self.tls(name),
            self.log,
            self._on_fatal,
            seats=roomy_seats("raft"),
            leads_at_once=leads_at_once,
        )
        return self.running[name]

    def _on_fatal(self, error: BaseException) -> NoReturn:
        self.fatal.append(error)
        raise SystemExit(70)

    async def stop(self, name: str) -> None:
        await self.running.pop(name).stop()

    async def close(self) -> None:
        for name in [*self.running]:
            await self.stop(name)
        assert self.fatal == []

    async def leader(self) -> tuple[str, Replica]:
        def leaders() -> list[tuple[str, Replica]]:
            return [(name, replica) for name, replica in self.running.items() if replica.leadership.is_ready]

        await until(lambda: bool(leaders()), "a leader")
        return leaders()[0]

    async def follower(self) -> tuple[str, Replica]:
        leader, _ = await self.leader()
        return next((name, replica) for name, replica in self.running.items() if name != leader)

    async def record(self, count: int, start: int = 0) -> None:
        """Propose so many certificates, one entry each or fewer, on whoever leads."""
        _, leader = await self.leader()
        numbers = range(start + 1, start + count + 1)
        commands = [RecordLeaves(samples.ISSUER, (samples.record(number),)) for number in numbers]
        for first in range(0, count, 20):
            batch = commands[first : first + 20]
            results = await asyncio.gather(*(leader.propose(command, timeout=DEADLINE_SECONDS) for command in batch))
            assert all(isinstance(result, Applied) for result in results)

    def summary(self, name: str) -> LedgerSummary:
        reader = LedgerReader(str(self.directory / "data" / name / "ledger.db"))
        try:
            found = reader.summary()
        finally:
            reader.close()
        return LedgerSummary(0, found.count, found.digest)

    async def equal(self, *names: str) -> None:
        """Wait until these have the same state and ledger as the leader, and check that they do."""
        leader_name, leader = await self.leader()
        index = await leader.read_barrier(timeout=DEADLINE_SECONDS)
        for name in names:
            await until(lambda name=name: self.running[name].applied_index >= index, f"{name} at {index}")  # type: ignore[misc]
            assert self.running[name].state == leader.state
            await self.running[name].flush_ledger()
            await leader.flush_ledger()
            assert self.summary(name) == self.summary(leader_name)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path)
    await asyncio.gather(*(cluster.start(name) for name in cluster.names[:3]))
    yield cluster
    await cluster.close()


async def test_command_is_applied_on_every_node(cluster: Cluster) -> None:
    _, leader = await cluster.leader()
    assert await leader.propose(InitSeal(samples.SEAL), timeout=DEADLINE_SECONDS) == Applied(1)
    second = await leader.propose(InitSeal(samples.SEAL), timeout=DEADLINE_SECONDS)
    assert isinstance(second, Rejected)
    await cluster.record(50)
    await cluster.equal(*cluster.running)
    assert leader.state.index == 51


async def test_command_that_no_node_could_apply_never_enters_the_log(cluster: Cluster) -> None:
    _, leader = await cluster.leader()
    last = (await leader.status()).last_index
    changes: dict[str, Any]
    for changes, why in (
        ({"not_after": 1 << 63}, r"not_after is 9223372036854775808: must be from 0 to 253402300799"),
        ({"not_before": -1}, r"not_before is -1: must be from 0 to 253402300799"),
        ({"serial": b"\0\1"}, r"serial is 0001: must not begin with a zero byte"),
        ({"name": "é" * 2049}, r"name has 4098 bytes in UTF-8: must have at most 4096"),
        ({"kind": 99}, r"kind is 99"),
        ({"requested_by": 7}, r"requested_by is of type int"),
        ({"requested_by": "x" * 300_000}, r"requested_by has 300000 characters: must have from 0 to 256"),
    ):
        command = RecordLeaves(samples.ISSUER, (samples.record(1, **changes),))
        with pytest.raises(Refused, match=rf"the write cannot be made: RecordLeaves\.records\[0\]\.{why}"):
            await leader.propose(command, timeout=5)
    assert (await leader.status()).last_index == last
    assert cluster.fatal == []


async def test_what_one_call_raises_holds_up_none_behind_it(cluster: Cluster) -> None:
    """A call that was handed to the Raft thread, or to the one of the API, together with others."""
    _, leader = await cluster.leader()

    def fails() -> None:
        raise ValueError("its own affair")

    done: list[str] = []
    leader._to_raft(fails)
    leader._to_raft(done.append, "raft")
    leader._to_owner(fails)
    leader._to_owner(done.append, "owner")
    await until(lambda: sorted(done) == ["owner", "raft"])
    assert (await leader.propose(InitSeal(samples.SEAL), timeout=5)) is not None
    assert cluster.log.names().count("background.failed") == 2


async def test_what_a_callback_of_raft_raises_is_a_line_of_the_log(cluster: Cluster) -> None:
    def fail() -> None:
        raise ValueError("of a frame, perhaps")

    _, replica = await cluster.follower()
    replica._raft_loop.call_soon_threadsafe(fail)
    await until(lambda: "loop.failed" in cluster.log.names())


async def test_follower_refuses_a_command_and_reads_what_was_committed(cluster: Cluster) -> None:
    await cluster.record(5)
    _, leader = await cluster.leader()
    for replica in cluster.running.values():
        await replica.read_barrier(timeout=DEADLINE_SECONDS)
        assert replica.state == leader.state
    _, follower = await cluster.follower()
    with pytest.raises(NotLeader):
        await follower.propose(InitSeal(samples.SEAL), timeout=DEADLINE_SECONDS)
    assert follower.state.seal is None


async def test_blocking_query_on_a_follower_is_woken_by_a_write(cluster: Cluster) -> None:
    _, leader = await cluster.leader()
    _, follower = await cluster.follower()
    waiting = asyncio.create_task(woken(follower, 0, Area.CA))
    await leader.propose(InitSeal(samples.SEAL), timeout=DEADLINE_SECONDS)
    assert (await waiting).seal == samples.SEAL
    late = await follower.wait_for_index(99, lambda state: state.ca_index, Area.CA, timeout=0.01)
    assert late.seal == samples.SEAL


async def woken(replica: Replica, index: int, area: Area) -> State:
    """The state once the area is past this index. Fails if nobody tells, though the state would show it in the end."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await replica.wait_for_index(
            index, lambda state: state.area_index(area), area, timeout=10 * DEADLINE_SECONDS
        )


async def test_change_of_one_area_wakes_nobody_who_waits_for_another(cluster: Cluster) -> None:
    _, leader = await cluster.leader()
    _, follower = await cluster.follower()
    ca, leaves = (asyncio.create_task(follower.changed[area].wait()) for area in (Area.CA, Area.LEAVES))
    await leader.propose(InitSeal(samples.SEAL), timeout=DEADLINE_SECONDS)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await ca
    ca = asyncio.create_task(follower.changed[Area.CA].wait())
    seen = asyncio.create_task(woken(follower, 0, Area.LEAVES))
    await asyncio.sleep(0)
    assert not leaves.done()
    await cluster.record(20)
    assert (await seen).leaf_index > 0
    async with asyncio.timeout(DEADLINE_SECONDS):
        await leaves
    assert not ca.done()
    config = InitConfig(samples.config(), samples.provider_state())
    await leader.propose(config, timeout=DEADLINE_SECONDS)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await ca


async def test_no_waiter_misses_what_comes_while_it_looks(cluster: Cluster) -> None:
    """Each waits for the certificate that is recorded meanwhile, with nothing after it that would wake it later."""
    _, leader = await cluster.leader()
    for number in range(1, 31):
        before = leader.state.leaf_index
        command = RecordLeaves(samples.ISSUER, (samples.record(number),))
        waiting = [asyncio.create_task(woken(replica, before, Area.LEAVES)) for replica in cluster.running.values()]
        result = await leader.propose(command, timeout=DEADLINE_SECONDS)
        assert isinstance(result, Applied)
        for state in await asyncio.gather(*waiting):
            assert state.leaf_index == result.index


async def test_others_go_on_when_the_leader_ends_and_it_catches_up_when_it_returns(cluster: Cluster) -> None:
    await cluster.record(20)
    name, _ = await cluster.leader()
    await cluster.stop(name)
    await cluster.record(20, start=20)
    await cluster.start(name)
    await cluster.equal(*cluster.names[:3])
    assert cluster.summary(name).count == 40


async def test_all_nodes_restarted_have_everything(cluster: Cluster) -> None:
    await cluster.record(30)
    for name in cluster.names[:3]:
        await cluster.stop(name)
    await asyncio.gather(*(cluster.start(name) for name in cluster.names[:3]))
    await cluster.leader()
    await cluster.equal(*cluster.names[:3])
    assert cluster.summary("node-1").count == 30


async def test_without_a_majority_nothing_is_written_or_confirmed(cluster: Cluster) -> None:
    name, leader = await cluster.leader()
    for other in [other for other in cluster.running if other != name]:
        await cluster.stop(other)
    with pytest.raises((CommitUnknown, NoLeader)):
        await leader.propose(InitSeal(samples.SEAL), timeout=0.3)
    with pytest.raises(NoLeader):
        await leader.read_barrier(timeout=0.3)
    await until(lambda: not leader.leadership.is_ready, "it notices")
    with pytest.raises(NoLeader):
        await leader.propose(InitSeal(samples.SEAL), timeout=0.3)
    assert leader.state.seal is None


async def test_leadership_is_handed_over_on_request(cluster: Cluster) -> None:
    await cluster.record(5)
    name, leader = await cluster.leader()
    target, other = await cluster.follower()
    assert await leader.hand_over(DEADLINE_SECONDS, target)
    await until(lambda: other.leadership.is_ready, "the other leads")
    await until(lambda: leader.leadership.leader_id == target, "it follows")
    assert isinstance(await other.propose(InitSeal(samples.SEAL), timeout=DEADLINE_SECONDS), Applied)
    assert await leader.hand_over(DEADLINE_SECONDS)  # it leads no longer, so this is done already
    assert name != target


async def test_leader_whose_owner_stands_still_gives_leadership_away(cluster: Cluster) -> None:
    """This test is the owner. All three have the same loop, but only one of them looks at it."""
    await cluster.record(5)
    name, leader = await cluster.leader()
    others = [replica for other, replica in cluster.running.items() if other != name]
    leader.watch_owner()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not any(other.leadership.is_ready for other in others) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert leader.stalls == 1
    await until(lambda: "api.turns_again" in cluster.log.names(), "it turns again")
    names = cluster.log.names()
    assert names.index("api.stalled") < names.index("leader.gives_way") < names.index("api.turns_again")
    assert leader.longest_stall_seconds >= 1.0
    # And it may lead again.
    await (await cluster.leader())[1].hand_over(DEADLINE_SECONDS, name)
    await until(lambda: leader.leadership.is_ready, "it leads again")


async def test_replica_of_a_node_that_is_starting_votes_and_does_not_lead(tmp_path: Path) -> None:
    """The only one that may lead is the last that would campaign."""
    cluster = Cluster(tmp_path)
    slow = RaftTiming(election_min=2.0, election_max=3.0)
    await cluster.start("node-1", timing=slow)
    starting = [await cluster.start(name, leads_at_once=False) for name in ("node-2", "node-3")]
    name, leader = await cluster.leader()
    assert name == "node-1"
    for replica in starting:
        replica.watch_owner()
    assert await leader.hand_over(DEADLINE_SECONDS)
    assert (await cluster.leader())[0] != "node-1"
    await cluster.close()


async def test_owner_that_is_busy_for_less_than_the_limit_leads_on(cluster: Cluster) -> None:
    _, leader = await cluster.leader()
    term = leader.leadership.term
    leader.watch_owner()
    for _ in range(5):
        time.sleep(0.5)
        await asyncio.sleep(0)
        await leader.status()
    assert (leader.leadership.term, leader.leadership.is_ready, leader.stalls) == (term, True, 0)


async def test_new_server_gets_snapshot_and_ledger_then_votes(cluster: Cluster) -> None:
    await cluster.record(200)
    _, leader = await cluster.leader()
    await until(lambda: leader._node.compactions > 0, "a compaction")
    new = await cluster.start("node-4")
    await leader.change_membership(ChangeKind.LEARN, cluster.members["node-4"], timeout=DEADLINE_SECONDS)
    await until(lambda: new._node.core.is_voter, "it votes")
    await cluster.equal("node-4")
    assert cluster.summary("node-4").count == 200
    assert "snapshot.installed" in cluster.log.names()
    assert set((await leader.status()).members) == set(cluster.names)


async def test_second_change_of_membership_at_a_time_is_refused(cluster: Cluster) -> None:
    _, leader = await cluster.leader()
    results = await asyncio.gather(
        *(
            leader.change_membership(ChangeKind.LEARN, Member(name, f"{name}:1", f"{name}:2"), timeout=DEADLINE_SECONDS)
            for name in ("node-8", "node-9")
        ),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), Refused]


async def test_removed_server_is_left_out(cluster: Cluster) -> None:
    _, leader = await cluster.leader()
    name, _ = await cluster.follower()
    await leader.change_membership(ChangeKind.REMOVE, cluster.members[name], timeout=DEADLINE_SECONDS)
    assert name not in (await leader.status()).members
    await cluster.record(5)


async def test_every_server_is_told_that_one_was_removed(cluster: Cluster) -> None:
    _, leader = await cluster.leader()
    name, _ = await cluster.follower()
    others = [replica for other, replica in cluster.running.items() if other != name]
    told = [asyncio.ensure_future(replica.admission_changed.wait()) for replica in others]
    await asyncio.sleep(0)
    await leader.change_membership(ChangeKind.REMOVE, cluster.members[name], timeout=DEADLINE_SECONDS)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(*told)


# -- strangers


async def dial(cluster: Cluster, name: str, context: ssl.SSLContext | None) -> bytes:
    """Send a whole hello and a heartbeat of a far future term to a node; what it answers until it hangs up."""
    host, port = cluster.members[name].raft_address.split(":")
    beat = {"type": "offer_snapshot", "ct": 999, "term": 999, "log_index": None, "epoch": 0}
    data = pack_frame({"type": "hello", "ct": 0, "address": "127.0.0.1:1"}) + pack_frame(beat)
    server_name = f"{name}.server.dc1.consul" if context else None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=server_name)
            writer.write(data)
            answer = await reader.read()
            writer.close()
            return answer
    except (ssl.SSLError, ConnectionError):
        return b""


def client_context(cluster: Cluster, authority: tls_files.Authority | None, dns_name: str) -> ssl.SSLContext:
    """Trusts the cluster's CA; has a certificate of `authority` for the name, or none."""
    context = ssl.create_default_context(cafile=f"{cluster.directory}/ca.pem")
    if authority is not None:
        authority.write_certificate(cluster.directory, "stranger", dns_name)
        context.load_cert_chain(f"{cluster.directory}/stranger.pem", f"{cluster.directory}/stranger.key")
    return context


async def assert_undisturbed(cluster: Cluster, term: int) -> None:
    _, leader = await cluster.leader()
    await cluster.record(3, start=1000)
    await cluster.equal(*cluster.running)
    assert leader.leadership.term == term < 999


async def test_strangers_get_nowhere(cluster: Cluster) -> None:
    name, leader = await cluster.leader()
    term = leader.leadership.term
    own, foreign = cluster.authority, tls_files.Authority()
    old_tls = client_context(cluster, own, "node-2.server.dc1.consul")
    old_tls.maximum_version = ssl.TLSVersion.TLSv1_2
    strangers: dict[str, ssl.SSLContext | None] = {
        "plain TCP": None,
        "no certificate": client_context(cluster, None, ""),
        "foreign CA": client_context(cluster, foreign, "node-2.server.dc1.consul"),
        "agent": client_context(cluster, own, "node-2.client.dc1.consul"),
        "other datacenter": client_context(cluster, own, "node-2.server.dc2.consul"),
        "itself": client_context(cluster, own, f"{name}.server.dc1.consul"),
        "old TLS": old_tls,
    }
    for who, context in strangers.items():
        assert await dial(cluster, name, context) == b"", who
        assert (leader.leadership.is_ready, leader.leadership.term) == (True, term), who
    await assert_undisturbed(cluster, term)


async def test_garbage_from_a_server_of_the_cluster_costs_it_the_connection_only(cluster: Cluster) -> None:
    name, leader = await cluster.leader()
    term = leader.leadership.term
    context = client_context(cluster, cluster.authority, "node-4.server.dc1.consul")
    host, port = cluster.members[name].raft_address.split(":")
    pickled = b"\x80\x04\x95K\x05...."
    for garbage in (
        b"\xff" * 4096,
        b"\xff\xff\xff\xff",  # a frame of 4 GiB
        FRAME_HEADER.pack(len(pickled)) + pickled,
        pack_frame({"type": "append_entries", "ct": 999}),
        pack_frame({"type": "term_notice", "ct": 999, "term": 999}),  # before any hello
        b"GET / HTTP/1.1\r\n\r\n",
        b"",
    ):
        async with asyncio.timeout(DEADLINE_SECONDS):
            reader, writer = await asyncio.open_connection(
                host, int(port), ssl=context, server_hostname=f"{name}.server.dc1.consul"
            )
            writer.write(garbage)
            if garbage:
                assert await reader.read() == b"", garbage  # hung up
            writer.close()
        assert (leader.leadership.is_ready, leader.leadership.term) == (True, term), garbage
    await assert_undisturbed(cluster, term)


async def test_frame_that_contradicts_the_log_costs_a_member_the_connection_and_no_process(cluster: Cluster) -> None:
    """Whoever has one server's key must not be able to end the others."""
    await cluster.record(5)
    name, _ = await cluster.leader()
    _, node = await cluster.leader()
    term = node.leadership.term
    villain = next(other for other in cluster.names[:3] if other != name)
    context = ssl.create_default_context(cafile=f"{cluster.directory}/ca.pem")
    context.load_cert_chain(f"{cluster.directory}/{villain}.pem", f"{cluster.directory}/{villain}.key")
    append = {"commit_index": 1, "prevLogIdx": 1, "prevLogTerm": 1, "entries": (), "epoch": 0}
    for target in [other for other in cluster.names[:3] if other != villain]:
        refused = cluster.running[target].frames_refused
        host, port = cluster.members[target].raft_address.split(":")
        async with asyncio.timeout(DEADLINE_SECONDS):
            reader, writer = await asyncio.open_connection(
                host, int(port), ssl=context, server_hostname=f"{target}.server.dc1.consul"
            )
            writer.write(pack_frame({"type": "hello", "ct": 0, "address": cluster.members[villain].raft_address}))
            writer.write(pack_frame({"type": "append_entries", "ct": term, "term": term, **append}))
            assert await reader.read() == b""  # hung up
            writer.close()
        assert cluster.running[target].frames_refused == refused + 1
        fields = next(fields for event, fields in cluster.log.events[::-1] if event == "raft.frame_refused")
        assert fields["peer"] == villain
        assert fields["reason"].startswith("append_entries.")
    await cluster.record(5, start=5)
    await cluster.equal(*cluster.running)


# -- without a cluster


async def test_damaged_journal_is_refused_at_start(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    await cluster.start("node-1")
    await cluster.stop("node-1")
    path = tmp_path / "data" / "node-1" / "wal" / "0000000000000001.wal"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalDamaged, match=str(path)):
        await cluster.start("node-1")


class StubLoop:
    """An event loop that only notes when it shall call."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def call_later(self, delay: float, _: Callable[[], None]) -> SimpleNamespace:
        self.delays.append(delay)
        return SimpleNamespace(cancel=lambda: self.delays.remove(delay))


def test_tick_that_is_due_sooner_than_planned_is_planned_anew() -> None:
    """Otherwise a lost leader, or a won election, would be acted upon only when the old time-out has passed."""
    replica = Replica.__new__(Replica)
    wake_at = [10.9]
    loop = StubLoop()
    parts: Any = replica
    parts._raft_loop, parts._timer, parts._timer_due = loop, None, 0.0
    parts._node = SimpleNamespace(wake_at=lambda: wake_at[0])
    replica._set_timer(10.0)
    assert loop.delays == pytest.approx([0.9])
    wake_at[0] = 11.5  # a heartbeat came
    replica._set_timer(10.2)
    assert loop.delays == pytest.approx([0.9])
    wake_at[0] = 10.35  # the leader's connection closed
    replica._set_timer(10.3)
    assert loop.delays == pytest.approx([0.05])
    wake_at[0] = 0.0  # passed already: never sooner than a moment from now
    replica._set_timer(10.3)
    assert loop.delays == pytest.approx([replica_module._CAMPAIGN_TICK_SECONDS])


async def propose_with(replica_parts: Any, act: Callable[[Proposal], None]) -> Any:
    """`Replica.propose` on a Raft thread that does only what `act` does."""
    replica = Replica.__new__(Replica)
    parts: Any = replica
    parts._owner_loop = asyncio.get_running_loop()
    parts._to_raft = lambda _, proposal: act(proposal)
    parts._propose = None
    del replica_parts
    return await replica.propose(InitSeal(samples.SEAL), timeout=0.01)


async def test_time_out_of_a_proposal_that_is_in_the_log_has_an_unknown_outcome() -> None:
    with pytest.raises(CommitUnknown):
        await propose_with(None, lambda proposal: setattr(proposal, "is_in_log", True))


async def test_time_out_of_a_proposal_that_waits_cancels_it() -> None:
    seen: list[Proposal] = []
    with pytest.raises(Overloaded):
        await propose_with(None, seen.append)
    assert seen[0].is_cancelled


async def test_proposal_is_cancelled_before_its_mark_is_looked_at() -> None:
    """The other half of `test_proposal_is_marked_before_it_is_asked_whether_it_was_cancelled`."""
    seen: list[bool] = []

    class Watched(Proposal):
        @property
        def is_in_log(self) -> bool:
            seen.append(self.is_cancelled)
            return False

        @is_in_log.setter
        def is_in_log(self, value: bool) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replica_module, "Proposal", Watched)
        with pytest.raises(Overloaded):
            await propose_with(None, lambda _: None)
    assert seen == [True]


async def test_connections_notice_a_host_that_is_gone(cluster: Cluster) -> None:
    """It closes nothing, and those that only receive would stay for ever."""
    _, replica = await cluster.leader()
    links = replica._links
    await until(lambda: len(links._inbound) == len(links._outbound) == 2, "all connections")
    transports = [link.transport for link in links._inbound] + [link.transport for link in links._outbound.values()]
    for transport in transports:
        assert transport is not None
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2000


async def test_compaction_that_ends_while_the_node_stops_is_left_alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal is closed by then: to shorten it would fail, and end an orderly stop as if a disk had failed."""
    name, replica = await cluster.follower()
    await cluster.record(100)
    node = replica._node
    save, close, closed = node._snapshot_file.save, node.close, threading.Event()

    def save_once_closed(snapshot: Snapshot) -> None:
        assert closed.wait(DEADLINE_SECONDS)
        save(snapshot)

    def close_and_let_it_end() -> None:
        close()
        closed.set()
        replica._background.shutdown(wait=True)

    monkeypatch.setattr(node._snapshot_file, "save", save_once_closed)
    monkeypatch.setattr(node, "close", close_and_let_it_end)
    await replica._call(node.compact)
    await cluster.stop(name)
    assert cluster.fatal == []
    monkeypatch.undo()
    await cluster.start(name)
    await cluster.equal(name)
