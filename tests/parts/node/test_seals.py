"""The change of the seal key: asked of all servers, committed as one, and followed by every node to its end."""

import asyncio
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.base.clock import SystemClock
from cluster.base.config import NodeConfig, parse_config
from cluster.base.errors import (
    ChangeUnderWay,
    CommitUnknown,
    InternalError,
    NoLeader,
    NotLeader,
    NotReady,
    Overloaded,
    Refused,
)
from cluster.node.reseal import Resealer, SealChecks, seal_id
from cluster.node.seals import SealWatch
from cluster.raft.membership import Member, learner, voter
from cluster.rpc.messages import SealCheckAnswer, SealCheckRequest
from cluster.rpc.operation import Operation
from cluster.seal.disk_key import MAC_KEY, DiskKeyFile
from cluster.seal.keeper import Keeper
from cluster.seal.node_file import NodeFile
from cluster.seal.node_sealer import NodeSealer
from cluster.seal.sealer import Sealer
from cluster.seal.sources import NEXT_KEY, NEXT_PASSPHRASE, SealError, key_source, next_sources, write_key_file
from cluster.tls.keys import KEY_BYTES
from fsm.ca import InitSeal, Reseal, SealKey, SetConfig
from tests.kit.callers import anybody
from tests.kit.clock import FakeClock
from tests.kit.csrs import serial, service_csr
from tests.kit.fake_cluster import FakeCluster, Fate, Node, bootstrapped, put, running, update
from tests.kit.keeper import Kept, kept
from tests.kit.log import EventLog
from tests.kit.node_config import minimal
from tests.kit.wait import until


class Others:
    """The other servers, each of which has these keys, or fails."""

    def __init__(self) -> None:
        self.sealers: dict[str, NodeSealer] = {}
        self.failures: dict[str, Exception] = {}
        self.asked: list[str] = []

    async def ask(self, member: Member, operation: Operation[Any, Any], request: Any, seconds: float) -> Any:
        assert seconds > 0
        self.asked.append(member.id)
        if member.id in self.failures:
            raise self.failures[member.id]
        assert isinstance(request, SealCheckRequest)
        return await SealChecks(self.sealers[member.id], SystemClock()).answer(request)


@pytest.fixture
def others(cluster: FakeCluster) -> Others:
    others = Others()
    write_key_file(cluster.directory / NEXT_KEY)
    config = config_in(cluster.directory)
    for name in "bc":
        others.sealers[name] = kept(Sealer(key_source(config), *next_sources(config)), cluster.directory, name).sealer
    return others


@pytest.fixture
def node(cluster: FakeCluster, others: Others) -> Node:
    return Node(cluster, "a", peers=others)


def config_in(directory: Path, **changes: Any) -> NodeConfig:
    return parse_config(minimal(data_dir=str(directory), **changes), source="t")


def resealer(node: Node) -> Resealer:
    return Resealer(node.parts, node.peers, node.name)


def base(cluster: FakeCluster) -> str:
    return seal_id(cluster.state.seal)


async def sign(node: Node, number: int) -> None:
    csr_pem = service_csr(node.cluster.state.trust_domain)
    await node.authority.sign(csr_pem, serial(number), "test", anybody)


async def test_everything_is_sealed_again_and_signing_goes_on(cluster: FakeCluster, node: Node, others: Others) -> None:
    async with running(node):
        await bootstrapped(node)
        await sign(node, 1)
        before = cluster.state
        await resealer(node).rotate(base(cluster), keeps_key=False)
        await sign(node, 2)
        assert not node.authority.is_behind(cluster.state)
        after = cluster.state
        assert sorted(others.asked) == ["b", "c"]
        assert (after.roots, after.config, after.roots_index) == (before.roots, before.config, before.roots_index)
        assert after.seal is not None
        assert before.seal is not None
        assert after.seal.kek_id != before.seal.kek_id
        # The key of before opens neither the data key nor what is sealed.
        only_old = Sealer(key_source(config_in(cluster.directory)))
        with pytest.raises(SealError):
            only_old.unlock(after.seal)
        only_old.unlock(before.seal)
        for record in after.providers:
            with pytest.raises(SealError):
                only_old.open(record.sealed, f"provider state {record.provider_id}")
        # And the next leader, with both keys at hand, signs.
        successor = Node(cluster, "b", peers=others)
        async with running(successor):
            await bootstrapped(successor)
            await sign(successor, 3)


async def test_key_that_is_lost_is_replaced_while_nodes_run(cluster: FakeCluster, node: Node, others: Others) -> None:
    """They have what they need in memory; without this nothing of it could be opened again."""
    async with running(node):
        await bootstrapped(node)
        (cluster.directory / "seal.key").unlink()
        await resealer(node).rotate(base(cluster), keeps_key=False)
        await sign(node, 1)
        only_new = Sealer(*next_sources(config_in(cluster.directory)))
        assert cluster.state.seal is not None
        only_new.unlock(cluster.state.seal)
        for record in cluster.state.providers:
            only_new.open(record.sealed, f"provider state {record.provider_id}")
        for other in others.sealers.values():
            assert not other.lacks(cluster.state.seal.source, cluster.state.seal.kek_id, cluster.state.seal.salt)


async def test_node_that_has_lost_the_key_settles_on_the_next_one(cluster: FakeCluster, data: Path) -> None:
    watch, node = watch_in(cluster, data, EventLog())
    running = asyncio.ensure_future(watch.run())
    cluster.commit(InitSeal(node.sealer.new_data_key()))
    await settled(watch, cluster)
    (data / "seal.key").unlink()
    next_text = (data / NEXT_KEY).read_text()
    reseal(cluster, node.sealer.next_data_key(keeps_key=False))
    await settled(watch, cluster)
    running.cancel()
    assert (data / "seal.key").read_text() == next_text
    assert watch.status().to_do == ""


async def test_data_key_changes_alone(cluster: FakeCluster, node: Node) -> None:
    (cluster.directory / NEXT_KEY).unlink()
    async with running(node):
        await bootstrapped(node)
        before = cluster.state
        await resealer(node).rotate(base(cluster), keeps_key=True)
        await sign(node, 1)
        assert before.seal is not None
        assert cluster.state.seal is not None
        assert cluster.state.seal.kek_id == before.seal.kek_id
        assert cluster.state.seal.wrapped_key != before.seal.wrapped_key
        assert all(new.sealed != old.sealed for new, old in zip(cluster.state.providers, before.providers, strict=True))


async def test_leader_takes_another_seal_into_use_beside_its_event_loop(
    cluster: FakeCluster, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A passphrase is stretched for a quarter of a second, and whoever waits for an answer does not care why."""
    threads: list[threading.Thread] = []
    unlock = Keeper.unlock

    def watched(keeper: Keeper, seal: SealKey) -> bytes:
        threads.append(threading.current_thread())
        return unlock(keeper, seal)

    async with running(node):
        await bootstrapped(node)
        monkeypatch.setattr(Keeper, "unlock", watched)
        await resealer(node).rotate(base(cluster), keeps_key=True)
        await sign(node, 1)
    assert threads
    assert threading.main_thread() not in threads


async def test_node_that_leads_no_more_takes_no_old_seal_into_use(
    cluster: FakeCluster, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waited to adopt meanwhile has the state of before."""

    def unlock(_keeper: Keeper, _seal: SealKey) -> bytes:
        raise AssertionError("a seal was taken into use")

    async with running(node):
        await bootstrapped(node)
        seal = node.sealer.next_data_key(keeps_key=True)
        await node.authority.drop()
        monkeypatch.setattr(Keeper, "unlock", unlock)
        with pytest.raises(NotLeader):
            await node.authority.adopt(replace(cluster.state, seal=seal))


class SlowSealer:
    """For each question a passphrase is stretched."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: list[float] = []

    def lacks(self, _source: str, _kek_id: str, _salt: bytes) -> str:
        self.asked.append(self.clock.monotonic())
        self.clock.advance(0.25)
        return "not here"


async def test_questions_for_the_key_take_turns_and_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member may ask without end: it must not take this node's threads and cores from what signs."""
    clock = FakeClock()

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    monkeypatch.setattr("cluster.node.reseal.asyncio.sleep", sleep)
    sealer = SlowSealer(clock)
    checks = SealChecks(cast(NodeSealer, sealer), clock)
    request = SealCheckRequest("passphrase", "k", b"salt")
    answers = await asyncio.gather(*(checks.answer(request) for _ in range(50)), return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, SealCheckAnswer)] == [SealCheckAnswer("not here")] * 2
    assert sum(isinstance(answer, Overloaded) for answer in answers) == 48
    for _ in range(3):
        await checks.answer(request)
    pauses = [after - before for before, after in itertools.pairwise(sealer.asked)]
    assert pauses == pytest.approx([0.25 + 1.0] * 4)


async def test_whoever_stops_waiting_for_an_answer_asks_no_sooner_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline is the asker's choice, and no thread ends with it."""
    monkeypatch.setattr("cluster.node.reseal._REST", 0.0)
    running, most, begun = 0, 0, 0
    goes_on = threading.Event()

    class Slow:
        def lacks(self, *_: object) -> str:
            nonlocal running, most, begun
            running, begun = running + 1, begun + 1
            most = max(most, running)
            goes_on.wait(10)
            running -= 1
            return ""

    checks = SealChecks(cast(NodeSealer, Slow()), SystemClock())
    for _ in range(5):  # not as many as there are threads
        asking = asyncio.ensure_future(checks.answer(SealCheckRequest("passphrase", "k", b"salt")))
        await until(lambda: begun > 0)
        for _ in range(10):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    goes_on.set()
    await until(lambda: not checks._present)
    assert (most, begun) == (1, 1)
    assert (await checks.answer(SealCheckRequest("passphrase", "k", b"salt"))).problem == ""
    assert begun == 2  # those that nobody waited for any more have begun nothing


async def test_server_that_is_asked_too_often_is_asked_again(
    cluster: FakeCluster, node: Node, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.node.reseal._PAUSE_SECONDS", 0.01)
    others.failures["c"] = Overloaded("asked too often")
    async with running(node):
        await bootstrapped(node)
        before = cluster.state
        rotating = asyncio.ensure_future(resealer(node).rotate(base(cluster), keeps_key=False))
        await until(lambda: others.asked.count("c") > 1, "c is asked again")
        del others.failures["c"]
        await rotating
        assert cluster.state.seal != before.seal


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (NoLeader("no answer from c"), "c: no answer from c"),
        (InternalError("operation 'seal_check' is not known to this node: is it of an older version?"), "c: operation"),
        (None, "c: The seal key with ID [0-9a-f]+ is needed, and is not here"),
    ],
    ids=["silent", "older release", "without the key"],
)
async def test_server_that_could_not_open_it_holds_it_up_and_is_named(
    cluster: FakeCluster,
    node: Node,
    others: Others,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception | None,
    text: str,
) -> None:
    monkeypatch.setattr("cluster.node.reseal._PATIENCE_SECONDS", 0.0)
    if failure is not None:
        others.failures["c"] = failure
    others.sealers["c"] = kept(Sealer(key_source(config_in(cluster.directory))), cluster.directory, "c").sealer
    async with running(node):
        await bootstrapped(node)
        before = cluster.state
        with pytest.raises(Refused, match=f"nothing was changed: not every server has the seal key.*{text}"):
            await resealer(node).rotate(base(cluster), keeps_key=False)
        assert cluster.state is before
        await sign(node, 1)


async def test_server_that_starts_again_meanwhile_is_asked_again(
    cluster: FakeCluster, node: Node, others: Others
) -> None:
    others.failures["c"] = NoLeader("no answer from c")
    async with running(node):
        await bootstrapped(node)
        wanted = base(cluster)
        changing = asyncio.ensure_future(resealer(node).rotate(wanted, keeps_key=False))
        await until(lambda: others.asked.count("c") >= 2)
        del others.failures["c"]
        await changing
        assert base(cluster) != wanted


async def test_other_changes_do_not_wait_for_a_server_that_does_not_answer(
    cluster: FakeCluster, node: Node, others: Others
) -> None:
    """It may be dead, and is waited for all the same; nor may whoever asks over and over fill the queue of changes."""
    others.failures["c"] = NoLeader("no answer from c")
    async with running(node):
        await bootstrapped(node)
        changing = [asyncio.ensure_future(resealer(node).rotate(base(cluster), keeps_key=False)) for _ in range(3)]
        await until(lambda: others.asked.count("c") >= 6)
        before = cluster.state
        await put(node, update({"LeafCertTTL": "48h"}))
        assert cluster.state.config != before.config
        assert cluster.state.seal == before.seal
        node.clock.advance(3600)
        for refused in await asyncio.gather(*changing, return_exceptions=True):
            assert isinstance(refused, Refused)
            assert "c: no answer from c" in str(refused)
        assert cluster.state.seal == before.seal


async def test_change_waits_its_turn_as_long_as_an_operators_and_seals_what_is_there_then(
    cluster: FakeCluster, node: Node, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ca.changes._PATIENCE_SECONDS", 0.05)
    async with running(node):
        await bootstrapped(node)
        before = cluster.state
        async with node.changes.turn("ROTATING", is_duty=True):
            with pytest.raises(ChangeUnderWay, match="ROTATING"):
                await asyncio.wait_for(resealer(node).rotate(base(cluster), keeps_key=False), 5)
        assert cluster.state is before
        monkeypatch.setattr("cluster.ca.changes._PATIENCE_SECONDS", 30.0)
        cluster.held = {SetConfig}
        putting = asyncio.ensure_future(put(node, update({"LeafCertTTL": "48h"})))
        await until(lambda: any(isinstance(command, SetConfig) for command in cluster.proposed))
        changing = asyncio.ensure_future(resealer(node).rotate(base(cluster), keeps_key=False))
        await until(lambda: len(others.asked) == 4)
        cluster.gate.set()
        await asyncio.gather(putting, changing)
        assert cluster.state.seal != before.seal
        await sign(node, 1)


async def test_server_that_joins_while_the_others_are_asked_is_not_left_without_the_key(
    cluster: FakeCluster, node: Node, others: Others
) -> None:
    others.failures["c"] = NoLeader("no answer from c")
    async with running(node):
        await bootstrapped(node)
        before = cluster.state
        changing = asyncio.ensure_future(resealer(node).rotate(base(cluster), keeps_key=False))
        await until(lambda: others.asked.count("c") >= 1)
        cluster.members = {**cluster.members, "d": Member("d", "127.0.0.1:8", "127.0.0.1:9", is_voter=False)}
        del others.failures["c"]
        with pytest.raises(Refused, match="nothing was changed: d joined"):
            await changing
        assert cluster.state is before


EXCHANGES: dict[str, Callable[[Member], Member]] = {
    "another key": lambda member: replace(member, keys=(b"k" * KEY_BYTES,)),
    "one more key": lambda member: replace(member, keys=(*member.keys, b"k" * KEY_BYTES)),
    "another address": lambda member: replace(member, raft_address="127.0.0.1:8"),
    "another address for requests": lambda member: replace(member, rpc_address="127.0.0.1:9"),
    "removed and added": learner,
}


@pytest.mark.parametrize("how", EXCHANGES)
async def test_server_that_is_exchanged_after_it_was_asked_is_not_left_without_the_key(
    cluster: FakeCluster, node: Node, others: Others, how: str
) -> None:
    """It has the name of one that has the key, and may be another machine."""
    others.failures["c"] = NoLeader("no answer from c")
    async with running(node):
        await bootstrapped(node)
        before = cluster.state
        changing = asyncio.ensure_future(resealer(node).rotate(base(cluster), keeps_key=False))
        await until(lambda: "b" in others.asked and "c" in others.asked)
        cluster.members = {**cluster.members, "b": EXCHANGES[how](cluster.members["b"])}
        del others.failures["c"]
        with pytest.raises(Refused, match="nothing was changed: b joined, or has another key"):
            await changing
        assert cluster.state is before
        wanted = base(cluster)
        await resealer(node).rotate(wanted, keeps_key=False)
        assert others.asked.count("b") == 2
        assert base(cluster) != wanted


@pytest.mark.parametrize("change", ["promoted", "removed"])
async def test_other_news_of_a_server_that_was_asked_does_not_matter(
    cluster: FakeCluster, node: Node, others: Others, change: str
) -> None:
    cluster.members = {**cluster.members, "b": learner(cluster.members["b"])}
    others.failures["c"] = NoLeader("no answer from c")
    async with running(node):
        await bootstrapped(node)
        wanted = base(cluster)
        changing = asyncio.ensure_future(resealer(node).rotate(wanted, keeps_key=False))
        await until(lambda: "b" in others.asked and "c" in others.asked)
        now = dict(cluster.members)
        b = now.pop("b")
        cluster.members = now if change == "removed" else {**now, "b": voter(b)}
        del others.failures["c"]
        await changing
        assert base(cluster) != wanted


async def test_change_without_a_next_key_is_refused_before_anybody_is_asked(
    cluster: FakeCluster, node: Node, others: Others
) -> None:
    with pytest.raises(NotReady):
        await resealer(node).rotate("", keeps_key=False)
    (cluster.directory / NEXT_KEY).unlink()
    async with running(node):
        await bootstrapped(node)
        before = cluster.state
        with pytest.raises(Refused, match="no next seal key"):
            await resealer(node).rotate(base(cluster), keeps_key=False)
        assert cluster.state is before
        assert others.asked == []


@pytest.mark.parametrize("fate", [Fate.LOST_BEFORE, Fate.LOST_AFTER, Fate.UNKNOWN])
async def test_change_that_is_sent_again_is_made_once(
    cluster: FakeCluster, node: Node, others: Others, fate: Fate
) -> None:
    successor = Node(cluster, "b", peers=others)
    others.sealers["a"] = others.sealers["b"]
    async with running(node, successor):
        await bootstrapped(node)
        wanted = base(cluster)
        cluster.on_propose = lambda command: fate if isinstance(command, Reseal) else Fate.COMMITTED
        with pytest.raises(CommitUnknown):
            await resealer(node).rotate(wanted, keeps_key=False)
        cluster.on_propose = lambda _command: Fate.COMMITTED
        await bootstrapped(successor)
        await resealer(successor).rotate(wanted, keeps_key=False)
        assert [type(command) for command in cluster.committed].count(Reseal) == 1
        assert base(cluster) != wanted
        await sign(successor, 1)


# -- what each node does about it


def watch_in(cluster: FakeCluster, directory: Path, log: EventLog, **changes: Any) -> tuple[SealWatch, Kept]:
    config = config_in(directory, **changes)
    node = kept(Sealer(key_source(config), *next_sources(config)), directory)
    node.keeper.open_disk_key(accepts_without=False, always_requires=False)
    return SealWatch(cluster.replicas["a"].real, node.sealer, NodeFile(directory), node.keeper, config, log), node


def reseal(cluster: FakeCluster, seal: SealKey) -> None:
    cluster.commit(Reseal(cluster.state.ca_index, seal, cluster.state.providers))


async def settled(watch: SealWatch, cluster: FakeCluster) -> None:
    await until(lambda: watch.status().is_settled and watch.status().seal_id == seal_id(cluster.state.seal))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A node's directory, with the key in force and the next one."""
    directory = tmp_path / "data"
    directory.mkdir()
    write_key_file(directory / "seal.key")
    write_key_file(directory / NEXT_KEY)
    return directory


async def test_node_drops_what_the_key_of_before_opens_and_then_the_key(cluster: FakeCluster, data: Path) -> None:
    log = EventLog()
    watch, node = watch_in(cluster, data, log)
    replica = cluster.replicas["a"]
    running = asyncio.ensure_future(watch.run())
    cluster.commit(InitSeal(node.sealer.new_data_key()))
    await settled(watch, cluster)
    assert replica.purges == 0
    before, next_text = watch.status(), (data / NEXT_KEY).read_text()
    macs = DiskKeyFile(data, "a", node.inside).open()
    reseal(cluster, node.sealer.next_data_key(keeps_key=False))
    await settled(watch, cluster)
    running.cancel()
    after = watch.status()
    assert replica.purges == 1
    assert after.key_id != before.key_id
    assert after.to_do == ""
    assert not (data / NEXT_KEY).exists()
    assert (data / "seal.key").read_text() == next_text
    assert json.loads((data / "node.json").read_text())["seal"]["kek_id"] == after.key_id
    assert json.loads((data / MAC_KEY).read_text())["kek_id"] == after.key_id
    assert DiskKeyFile(data, "a", watch_in(cluster, data, EventLog())[1].inside).open() == macs
    assert log.names() == ["seal.history_dropped", "seal.key_moved"]


@pytest.mark.parametrize("becomes", ["another", "gone"])
async def test_next_key_that_changes_right_after_its_use_ends_no_node(
    cluster: FakeCluster, data: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    """A script may prepare the next change at once. The key in force is in the keeper's hands, and what is now in its
    place is nothing to put in the place of the first.
    """
    log = EventLog()
    watch, node = watch_in(cluster, data, log)
    running = asyncio.ensure_future(watch.run())
    cluster.commit(InitSeal(node.sealer.new_data_key()))
    await settled(watch, cluster)
    key, next_key = (data / "seal.key").read_text(), (data / NEXT_KEY).read_text()

    async def purge() -> bool:
        (data / NEXT_KEY).unlink()
        if becomes == "another":
            write_key_file(data / NEXT_KEY)
        return True

    monkeypatch.setattr(cluster.replicas["a"], "purge", purge)
    seal = node.sealer.next_data_key(keeps_key=False)
    reseal(cluster, seal)
    await settled(watch, cluster)
    running.cancel()
    assert (data / "seal.key").read_text() == key
    assert json.loads((data / "node.json").read_text())["seal"]["kek_id"] == seal.kek_id
    assert json.loads((data / MAC_KEY).read_text())["kek_id"] == seal.kek_id
    assert f"is not on its disk any more, or cannot be read: The seal key with ID {seal.kek_id}" in watch.status().to_do
    # It is put back as an operator would who has a copy: in either place.
    for name in (NEXT_KEY, "seal.key"):
        (data / name).write_text(next_key)
        (data / name).chmod(0o644)
        with pytest.raises(SealError, match="mode 0644"):
            watch_in(cluster, data, log)
        (data / name).chmod(0o600)
        _, kept_again = watch_in(cluster, data, log)
        kept_again.keeper.check_node((NodeFile(data).read() or {})["seal"])
        (data / name).write_text(key)


async def test_next_key_of_another_source_is_moved_by_nobody(cluster: FakeCluster, data: Path) -> None:
    (data / NEXT_KEY).unlink()
    watch, node = watch_in(cluster, data, EventLog())
    running = asyncio.ensure_future(watch.run())
    cluster.commit(InitSeal(node.sealer.new_data_key()))
    await settled(watch, cluster)
    key = (data / "seal.key").read_text()
    (data / NEXT_PASSPHRASE).write_text("a passphrase that is long enough\n")
    (data / NEXT_PASSPHRASE).chmod(0o600)
    reseal(cluster, node.sealer.next_data_key(keeps_key=False))
    await settled(watch, cluster)
    running.cancel()
    write_key_file(data / NEXT_KEY)  # of no cluster
    watch, node = watch_in(cluster, data, EventLog())
    running = asyncio.ensure_future(watch.run())
    await settled(watch, cluster)
    running.cancel()
    assert (data / "seal.key").read_text() == key
    assert 'set seal.source = "passphrase" and seal.passphrase_file to where it is to stay' in watch.status().to_do


class Stop(Exception):
    """The process ends here."""


@pytest.mark.parametrize("step", ["purge", "mac.key", "node.json", "key"])
async def test_node_that_ends_at_any_step_goes_on_at_its_next_start(
    cluster: FakeCluster, data: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    watch, node = watch_in(cluster, data, EventLog())
    running = asyncio.ensure_future(watch.run())
    cluster.commit(InitSeal(node.sealer.new_data_key()))
    await settled(watch, cluster)

    def stop(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        match step:
            case "purge":
                patch.setattr(cluster.replicas["a"], "purge", stop)
            case "mac.key":
                patch.setattr("cluster.seal.keeper.DiskKeyFile.follow", stop)
            case "node.json":
                patch.setattr("cluster.node.seals.NodeFile.write", stop)
            case "key":
                patch.setattr("cluster.node.seals.move_next_key", stop)
        next_text = (data / NEXT_KEY).read_text()
        reseal(cluster, node.sealer.next_data_key(keeps_key=False))
        with pytest.raises(Stop):
            await running
    # Both keys are there, or the first is the one in force: it starts, and opens what it finds.
    watch, node = watch_in(cluster, data, EventLog())
    node.keeper.check_node((NodeFile(data).read() or {})["seal"])
    running = asyncio.ensure_future(watch.run())
    await settled(watch, cluster)
    running.cancel()
    assert cluster.replicas["a"].purges >= 1
    assert (data / "seal.key").read_text() == next_text
    assert not (data / NEXT_KEY).exists()


async def test_node_that_catches_up_with_a_change_waits_for_it(
    cluster: FakeCluster, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the new key alone, and its log begins with the old one."""
    both = watch_in(cluster, data, EventLog())[1].sealer
    first = both.new_data_key()
    cluster.commit(InitSeal(first))
    both.unlock(first)
    second = both.next_data_key(keeps_key=False)
    (data / NEXT_KEY).rename(data / "seal.key")
    (data / MAC_KEY).unlink()
    watch, _ = watch_in(cluster, data, EventLog())
    running = asyncio.ensure_future(watch.run())
    await asyncio.sleep(0)
    reseal(cluster, second)
    await settled(watch, cluster)
    running.cancel()
    # One for which no other key comes does not run.
    monkeypatch.setattr("cluster.node.seals._CATCH_UP_SECONDS", 0.05)
    (data / "seal.key").unlink()
    (data / MAC_KEY).unlink()
    write_key_file(data / "seal.key")
    with pytest.raises(SealError, match="is needed, and is not here"):
        await watch_in(cluster, data, EventLog())[0].run()


async def test_files_that_the_configuration_names_are_the_operators(cluster: FakeCluster, data: Path) -> None:
    (data / "seal.key").rename(data / "named.key")
    changes = {"seal": {"key_file": str(data / "named.key")}}
    log = EventLog()
    watch, node = watch_in(cluster, data, log, **changes)
    running = asyncio.ensure_future(watch.run())
    cluster.commit(InitSeal(node.sealer.new_data_key()))
    await settled(watch, cluster)
    before = {path.name: path.read_text() for path in data.iterdir()}
    reseal(cluster, node.sealer.next_data_key(keeps_key=False))
    await settled(watch, cluster)
    running.cancel()
    own = {"node.json", MAC_KEY}
    assert f"put it in the place of {data / 'named.key'}" in watch.status().to_do
    assert {path.name: path.read_text() for path in data.iterdir() if path.name not in own} == {
        name: text for name, text in before.items() if name not in own
    }
    # It starts as it is, and once the operator has moved the key nothing is left to do.
    again, _ = watch_in(cluster, data, log, **changes)
    node.keeper.check_node((NodeFile(data).read() or {})["seal"])
    (data / NEXT_KEY).rename(data / "named.key")
    running = asyncio.ensure_future(again.run())
    await settled(again, cluster)
    running.cancel()
    assert again.status().to_do == ""
