"""The leader's own work: a CA comes up once, whatever happens to its leaders on the way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.api.ca import ConfigUpdate
from cluster.base.config import ConnectSection
from cluster.ca.attempts import Attempt
from fsm.ca import InitConfig, InitSeal, SetProviderState, SetRootsConfig
from fsm.commands import Command
from fsm.duties import DutyPolicy
from fsm.leaves import LeafRecord, RecordLeaves, TidyLedger
from providers.builtin import state as builtin_state
from providers.errors import ProviderUnavailable
from providers.pki.x509 import load_cert
from tests.kit.fake_cluster import FakeCluster, Fate, Node, bootstrapped, running, stored_config
from tests.kit.keeper import record_in
from tests.kit.wait import until

BOOTSTRAP = [InitSeal, InitConfig, SetProviderState, SetRootsConfig]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)


def kinds(commands: list[Command]) -> list[type]:
    return [type(command) for command in commands]


def losing(kind: type, fate: Fate) -> Callable[[Command], Fate]:
    """`fate` for the first command of this kind, then all is well."""
    left = [kind]

    def decide(command: Command) -> Fate:
        if left and type(command) is left[0]:
            left.clear()
            return fate
        return Fate.COMMITTED

    return decide


async def test_new_cluster_gets_seal_configuration_and_one_verified_root(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
    state = cluster.state
    assert kinds(cluster.committed) == BOOTSTRAP
    assert state.active_root is not None
    assert [root.is_active for root in state.roots] == [True]
    assert state.config is not None
    assert state.active_root.external_trust_domain == state.config.cluster_id
    assert stored_config(state) == {
        "IntermediateCertTTL": "8760h",
        "LeafCertTTL": "72h",
        "RootCertTTL": "87600h",
    }
    assert node.health.now.trouble == ""
    assert [fields["duty"] for event, fields in node.log.events if event == "duty.done"] == [
        "init_seal",
        "init_config",
        "prepare_root",
        "generate_root",
    ]


async def test_nothing_secret_of_the_root_is_in_the_log_in_plain(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    async with running(node):
        await bootstrapped(node)
    [sealed] = cluster.state.providers
    record = record_in(node.cluster.directory, node.cluster.state, sealed)
    state = builtin_state.decode(record.state)
    assert isinstance(state, builtin_state.PrimaryState)
    assert state.key_der not in sealed.sealed


@pytest.mark.parametrize("fate", [Fate.LOST_BEFORE, Fate.LOST_AFTER, Fate.UNKNOWN])
@pytest.mark.parametrize("kind", BOOTSTRAP)
async def test_leader_lost_at_a_commit_is_continued_by_the_next(cluster: FakeCluster, kind: type, fate: Fate) -> None:
    cluster.on_propose = losing(kind, fate)
    nodes = [Node(cluster, name) for name in "abc"]
    async with running(*nodes):
        cluster.elect("a")
        await until(lambda: any(node.authority.is_ready and node.name == cluster.leader for node in nodes))
        assert cluster.leader == ("a" if fate is Fate.UNKNOWN else "b")
        await until(lambda: [node.name for node in nodes if node.authority.is_ready] == [cluster.leader])
    assert kinds(cluster.committed) == BOOTSTRAP
    assert len(cluster.state.roots) == 1


async def test_leader_lost_at_every_commit_in_turn_still_makes_one_root(cluster: FakeCluster) -> None:
    fates: dict[type, list[Fate]] = {kind: [Fate.LOST_BEFORE, Fate.LOST_BEFORE, Fate.LOST_AFTER] for kind in BOOTSTRAP}
    cluster.on_propose = lambda command: fates[type(command)].pop(0)
    nodes = [Node(cluster, name) for name in "abc"]
    async with running(*nodes):
        cluster.elect("a")
        await until(lambda: any(node.authority.is_ready and node.name == cluster.leader for node in nodes))
    assert kinds(cluster.committed) == BOOTSTRAP
    assert len(cluster.state.roots) == 1


@pytest.mark.parametrize("fate", [Fate.LOST_BEFORE, Fate.UNKNOWN])
async def test_root_made_again_from_the_committed_intent_is_the_same(cluster: FakeCluster, fate: Fate) -> None:
    cluster.on_propose = losing(SetRootsConfig, fate)
    nodes = [Node(cluster, name) for name in "ab"]
    async with running(*nodes):
        cluster.elect("a")
        await until(lambda: any(node.authority.is_ready for node in nodes))
    first, second = [command for command in cluster.proposed if isinstance(command, SetRootsConfig)]
    assert first.roots == second.roots
    intended = [command for command in cluster.committed if isinstance(command, SetProviderState)]
    assert len(intended) == 1
    record = builtin_state.decode(record_in(cluster.directory, cluster.state, intended[0].state).state)
    assert isinstance(record, builtin_state.PrimaryState)
    assert load_cert(second.roots[0].root_pem).serial_number == record.intent.serial


async def test_leader_of_a_ready_ca_writes_nothing(cluster: FakeCluster) -> None:
    first, second = Node(cluster, "a"), Node(cluster, "b")
    async with running(first, second):
        await bootstrapped(first)
        before = cluster.state
        await bootstrapped(second)
        await until(lambda: "leader.lost" in first.log.names())
        assert first.worker.keys == set()
        assert not first.authority.is_ready
        assert cluster.state is before


async def test_old_leaders_root_is_refused_when_the_next_one_was_faster(cluster: FakeCluster) -> None:
    first, second = Node(cluster, "a"), Node(cluster, "b")
    first.worker.held.add("generate_root")
    async with running(first, second):
        cluster.elect("a")
        await until(lambda: "generate_root" in first.worker.calls)
        await bootstrapped(second)
        root = cluster.state.active_root
        cluster.elect("a")  # its work of long ago goes on, and finds another state
        first.worker.gate.set()
        await until(lambda: first.authority.is_ready)
        assert cluster.state.active_root == root
    assert kinds(cluster.committed) == BOOTSTRAP


async def test_node_file_is_ignored_once_the_ca_is_initialised_and_the_log_says_so(cluster: FakeCluster) -> None:
    first = Node(cluster, "a", connect=ConnectSection(ca_config={"leaf_cert_ttl": "24h"}))
    second = Node(cluster, "b", connect=ConnectSection(ca_config={"leaf_cert_ttl": "48h"}))
    async with running(first, second):
        await bootstrapped(first)
        await bootstrapped(second)
    assert stored_config(cluster.state)["LeafCertTTL"] == "24h"
    assert "ca.config_ignored" in second.log.names()
    assert "ca.config_ignored" not in first.log.names()


async def test_disabled_connect_makes_no_ca(cluster: FakeCluster) -> None:
    node = Node(cluster, "a", connect=ConnectSection(enabled=False))
    async with running(node):
        cluster.elect("a")
        await until(lambda: "leader.elected" in node.log.names())
        cluster.elect("b")
        await until(lambda: "leader.lost" in node.log.names())
    assert cluster.proposed == []


@pytest.mark.parametrize(
    ("connect", "reason"),
    [
        (ConnectSection(ca_provider="nope"), 'error configuring provider: unknown CA provider "nope"'),
        (
            ConnectSection(ca_config={"leaf_cert_ttl": "1m"}),
            "error configuring provider: leaf cert TTL must be greater or equal than 1h0m0s",
        ),
        (ConnectSection(ca_config={"x": {1, 2}}), "error decoding config: Object of type set is not JSON serializable"),
    ],
)
async def test_bootstrap_that_fails_is_reported_and_tried_again_and_the_leader_stays(
    cluster: FakeCluster, connect: ConnectSection, reason: str
) -> None:
    node = Node(cluster, "a", connect=connect)
    async with running(node):
        cluster.elect("a")
        await until(lambda: len([event for event in node.log.names() if event == "duty.failed"]) >= 4)
        assert node.health.now.trouble == reason
        assert cluster.leader == "a"
    pauses = [fields["again_in_seconds"] for event, fields in node.log.events if event == "duty.failed"]
    assert pauses[:4] == [0.001, 0.002, 0.004, 0.008]
    assert cluster.state.active_root is None


async def test_pauses_stop_growing(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._LONGEST_PAUSE_SECONDS", 0.002)
    node = Node(cluster, "a", connect=ConnectSection(ca_provider="nope"))
    async with running(node):
        cluster.elect("a")
        await until(lambda: len([event for event in node.log.names() if event == "duty.failed"]) >= 4)
    pauses = [fields["again_in_seconds"] for event, fields in node.log.events if event == "duty.failed"]
    assert pauses[:4] == [0.001, 0.002, 0.002, 0.002]


async def test_trouble_is_gone_once_the_provider_answers_again(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    node.worker.failures["prepare_root"] = ProviderUnavailable("backend is down")
    async with running(node):
        cluster.elect("a")
        await until(lambda: node.health.now.trouble == "backend is down")
        assert not node.authority.is_ready
        node.worker.failures.clear()
        await until(lambda: node.authority.is_ready)
        await until(lambda: node.health.now.trouble == "")


async def test_lost_leader_takes_its_trouble_along(cluster: FakeCluster) -> None:
    node = Node(cluster, "a")
    node.worker.failures["configure"] = ProviderUnavailable("backend is down")
    async with running(node):
        cluster.elect("a")
        await until(lambda: node.health.now.trouble)
        cluster.elect("b")
        await until(lambda: "leader.lost" in node.log.names())
        assert node.health.now.trouble == ""


async def test_another_root_than_the_agreed_one_is_never_signed_with(tmp_path: Path, cluster: FakeCluster) -> None:
    (tmp_path / "other").mkdir()
    other = FakeCluster(tmp_path / "other")
    node, stranger = Node(cluster, "a"), Node(other, "a")
    async with running(node), running(stranger):
        await bootstrapped(node)
        await bootstrapped(stranger)
        chain = await stranger.worker.call("generate_root", next(iter(stranger.worker.keys)))
        real = node.worker.host.operations["configure"]

        def configure(*arguments: object) -> list[object]:
            real(*arguments)
            return [chain[0], {}, False]

        node.worker.host.operations["configure"] = configure
        cluster.elect("b")
        await until(lambda: not node.authority.is_ready)
        cluster.elect("a")
        await until(lambda: "is not the active root" in node.health.now.trouble)
        assert not node.authority.is_ready
    other.close()


async def test_expired_records_are_tidied_a_few_at_a_time(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.ca.leader._TIDY_AT_MOST", 1)
    for number in range(1, 4):
        cluster.commit(
            RecordLeaves(
                b"k" * 20,
                (LeafRecord(bytes([number]), 1, "web", "spiffe://x/y", b"h" * 32, 1000, 2000 + number, "t"),),
            )
        )
    node = Node(cluster, "a", policy=DutyPolicy(keep_expired_seconds=3600))
    async with running(node):
        cluster.elect("a")
        await until(lambda: cluster.state.tidied_before == int(node.clock.now()) - 3600)
    assert cluster.machine.ledger_summary.count == 0
    assert kinds(cluster.committed).count(TidyLedger) == 2


async def test_configuration_can_be_changed_while_the_ledger_is_tidied(cluster: FakeCluster) -> None:
    node = Node(cluster, "a", policy=DutyPolicy(keep_expired_seconds=3600))
    cluster.held.add(TidyLedger)
    async with running(node):
        await bootstrapped(node)
        await until(lambda: TidyLedger in kinds(cluster.proposed))
        update = ConfigUpdate("consul", {"LeafCertTTL": "24h"}, None, False, 0)
        await node.reconfigurer.apply(update, Attempt(b"1", cluster.state.ca_index, is_repeat=False))
        cluster.gate.set()
    assert stored_config(cluster.state)["LeafCertTTL"] == "24h"
