"""Nodes put together as `main` does, over a cluster without consensus: whatever node is asked, the leader does it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.api.ca import ConfigUpdate
from cluster.api.reads import ReadLevel, ReadPoint, Watch
from cluster.base.config import ConnectSection
from cluster.base.errors import (
    BadRequest,
    CommitUnknown,
    InternalError,
    NoLeader,
    NotReady,
    RateLimitReached,
    Refused,
    StaleIndex,
)
from fsm.ca import SetConfig
from fsm.commands import Command
from fsm.leaves import RecordLeaves
from fsm.ledger import LedgerQuery
from fsm.state import State
from providers.errors import CSRRejected
from providers.pki.x509 import load_cert
from tests.kit.callers import ANYBODY
from tests.kit.csrs import service_csr
from tests.kit.fake_cluster import FakeCluster, Fate, stored_config
from tests.kit.rpc_nodes import NAMES, node_tls
from tests.kit.wait import until
from tests.kit.whole_nodes import Cluster, put_together


@pytest.fixture
async def whole(rpc_cluster: FakeCluster, tls_directory: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        cluster = await put_together(rpc_cluster, tls_directory, stack, ConnectSection())
        await cluster.lead("a")
        yield cluster


@pytest.fixture
async def broken(rpc_cluster: FakeCluster, tls_directory: Path) -> AsyncIterator[Cluster]:
    """Its CA cannot come up with what the nodes' files say."""
    async with AsyncExitStack() as stack:
        connect = ConnectSection(ca_config={"leaf_cert_ttl": "1m"})
        cluster = await put_together(rpc_cluster, tls_directory, stack, connect)
        rpc_cluster.elect("a")
        await until(lambda: cluster.nodes["a"].health.now.trouble)
        yield cluster


def update(config: dict[str, object], modify_index: int = 0) -> ConfigUpdate:
    return ConfigUpdate("consul", config, None, False, modify_index)


# -- signing


@pytest.mark.parametrize("name", NAMES)
async def test_any_node_signs_and_every_node_has_the_record(whole: Cluster, name: str) -> None:
    cert = await whole.services[name].leaves.sign(ANYBODY, whole.csr(), "me")
    assert load_cert(cert.cert_pem).serial_number == cert.serial
    serial = cert.serial.to_bytes(16, "big")
    for service in whole.services.values():
        row = await service.record.find_cert(serial, ReadLevel.LINEARIZABLE)
        assert row is not None
        assert (row.index, row.record.requested_by) == (cert.index, "me")
    rows = await whole.services["c"].record.search_certs(LedgerQuery(service="web"), ReadLevel.STALE)
    assert [row.record.serial for row in rows] == [serial]


async def test_certificates_of_one_source_are_counted_where_it_asks(
    rpc_cluster: FakeCluster, tls_directory: Path
) -> None:
    """Before a key is made or a CSR is looked at, and at both doors together."""
    async with AsyncExitStack() as stack:
        whole = await put_together(rpc_cluster, tls_directory, stack, ConnectSection(), signing_per_source=0.2)
        await whole.lead("a")
        leaves, calls = whole.services["b"].leaves, whole.nodes["a"].worker.calls
        await leaves.sign(ANYBODY, whole.csr(), "2001:db8::1")
        await leaves.leaf(ANYBODY, "web", "2001:db8::2")
        before, own = [*calls], [*whole.nodes["b"].worker.calls]
        with pytest.raises(RateLimitReached, match=r"at most 0\.2 certificates for one address in a second"):
            await leaves.sign(ANYBODY, "rubbish", "2001:db8::3")
        with pytest.raises(RateLimitReached):
            await leaves.leaf(ANYBODY, "api", "2001:db8::4")
        assert (calls, whole.nodes["b"].worker.calls) == (before, own)
        assert (await leaves.leaf(ANYBODY, "web", "2001:db8::5")).is_hit  # is there, and costs nothing
        await leaves.sign(ANYBODY, whole.csr(), "2001:db8:0:1::1")
        await whole.services["c"].leaves.sign(ANYBODY, whole.csr(), "2001:db8::1")


async def test_tokens_and_identities_are_counted_on_the_leader_whatever_node_is_asked(
    rpc_cluster: FakeCluster, tls_directory: Path
) -> None:
    async with AsyncExitStack() as stack:
        whole = await put_together(rpc_cluster, tls_directory, stack, ConnectSection(), signing_per_identity=0.2)
        await whole.lead("a")
        for name in ("a", "b"):
            await whole.services[name].leaves.sign(ANYBODY, whole.csr(), name)
        for name in NAMES:
            with pytest.raises(RateLimitReached) as refused:
                await whole.services[name].leaves.sign(ANYBODY, whole.csr(), name)
            assert refused.value.retry_after_seconds == pytest.approx(5)
        await whole.services["c"].leaves.sign(ANYBODY, whole.csr("api"), "c")


async def test_unknown_serial_is_nothing(whole: Cluster) -> None:
    assert await whole.services["b"].record.find_cert(b"\x01", ReadLevel.LINEARIZABLE) is None


async def test_serials_are_random_of_128_bits(whole: Cluster) -> None:
    certs = await asyncio.gather(*(whole.services["b"].leaves.sign(ANYBODY, whole.csr(), "me") for _ in range(20)))
    assert len({cert.serial for cert in certs}) == 20
    assert {cert.serial.bit_length() for cert in certs} == {128}


async def test_bad_csr_is_refused_from_any_node(whole: Cluster) -> None:
    for service in whole.services.values():
        with pytest.raises(CSRRejected):
            await service.leaves.sign(ANYBODY, "rubbish", "me")


async def test_long_requester_is_cut(whole: Cluster) -> None:
    cert = await whole.services["b"].leaves.sign(ANYBODY, whole.csr(), "x" * 500)
    row = await whole.services["b"].record.find_cert(cert.serial.to_bytes(16, "big"), ReadLevel.STALE)
    assert row is not None
    assert row.record.requested_by == "x" * 128


async def test_who_asked_another_server_is_recorded_as_its_word(whole: Cluster, tls_directory: Path) -> None:
    whole.raft.members = {
        name: replace(known, keys=(node_tls(tls_directory, name).key,)) for name, known in whole.raft.members.items()
    }
    for name, recorded in (("a", "me"), ("b", "b: me")):
        cert = await whole.services[name].leaves.sign(ANYBODY, whole.csr(), "me")
        row = await whole.services["c"].record.find_cert(cert.serial.to_bytes(16, "big"), ReadLevel.LINEARIZABLE)
        assert row is not None
        assert row.record.requested_by == recorded


@pytest.mark.parametrize("fate", [Fate.LOST_BEFORE, Fate.LOST_AFTER])
@pytest.mark.parametrize("name", ["a", "c"])
async def test_leader_lost_while_it_signs_costs_the_client_nothing(whole: Cluster, name: str, fate: Fate) -> None:
    """The next leader makes, or finds on record, the one certificate of this request."""
    fates = [fate]

    def decide(command: Command) -> Fate:
        return fates.pop() if isinstance(command, RecordLeaves) and fates else Fate.COMMITTED

    whole.raft.on_propose = decide
    cert = await whole.services[name].leaves.sign(ANYBODY, whole.csr(), "me")
    assert whole.raft.leader == "b"
    assert whole.raft.machine.ledger_summary.count == 1
    row = await whole.services[name].record.find_cert(cert.serial.to_bytes(16, "big"), ReadLevel.LINEARIZABLE)
    assert row is not None
    assert row.index == cert.index


async def test_new_leader_that_cannot_sign_yet_is_waited_for(whole: Cluster) -> None:
    whole.nodes["b"].worker.held.add("configure")
    whole.raft.elect("b")
    request = asyncio.ensure_future(whole.services["c"].leaves.sign(ANYBODY, whole.csr(), "me"))
    await until(lambda: "configure" in whole.nodes["b"].worker.calls)
    assert not request.done()
    whole.nodes["b"].worker.gate.set()
    assert (await request).name == "web"


async def test_without_a_ca_the_reason_is_given(broken: Cluster) -> None:
    for service in broken.services.values():
        with pytest.raises(NotReady, match="leaf cert TTL must be greater or equal than 1h0m0s"):
            await service.leaves.sign(ANYBODY, service_csr("x.consul"), "me")
    assert broken.nodes["a"].health.now.trouble != ""
    assert broken.nodes["b"].health.now.trouble == ""


# -- configuration


@pytest.mark.parametrize("name", NAMES)
async def test_change_is_seen_at_once_on_the_node_that_made_it(whole: Cluster, name: str) -> None:
    whole.nodes["b"].replica.fall_behind()
    whole.nodes["c"].replica.fall_behind()
    await whole.services[name].ca.configure(ANYBODY, update({"LeafCertTTL": "24h", "Big": 1 << 80}))
    state = whole.nodes[name].replica.state
    assert stored_config(state)["LeafCertTTL"] == "24h"
    assert stored_config(state)["Big"] == 1 << 80


@pytest.mark.parametrize("fate", [Fate.LOST_BEFORE, Fate.LOST_AFTER])
@pytest.mark.parametrize("name", ["a", "c"])
async def test_leader_lost_while_it_changes_takes_effect_once(whole: Cluster, name: str, fate: Fate) -> None:
    config = whole.raft.state.config
    assert config is not None
    fates = [fate]

    def decide(command: Command) -> Fate:
        return fates.pop() if isinstance(command, SetConfig) and fates else Fate.COMMITTED

    whole.raft.on_propose = decide
    await whole.services[name].ca.configure(ANYBODY, update({"LeafCertTTL": "24h"}, config.modify_index))
    assert stored_config(whole.raft.state)["LeafCertTTL"] == "24h"
    assert sum(isinstance(command, SetConfig) for command in whole.raft.committed) == 1


async def test_answer_lost_behind_another_writers_change_is_unknown(whole: Cluster) -> None:
    def decide(command: Command) -> Fate:
        if not isinstance(command, SetConfig) or "24h" not in command.config.config_json:
            return Fate.COMMITTED
        whole.raft.on_propose = lambda _: Fate.COMMITTED
        state = whole.raft.state
        assert state.config is not None
        sealed = state.provider_state(state.config.provider_id)
        assert sealed is not None
        whole.raft.commit(SetConfig(state.ca_index, state.config, sealed))
        return Fate.LOST_BEFORE

    whole.raft.on_propose = decide
    with pytest.raises(CommitUnknown, match="read it"):
        await whole.services["c"].ca.configure(ANYBODY, update({"LeafCertTTL": "24h"}))
    assert stored_config(whole.raft.state)["LeafCertTTL"] == "72h"


async def test_change_is_done_even_if_the_leader_is_lost_behind_it(whole: Cluster) -> None:
    """It must not be called refused because nobody can say any more how fresh this node is."""

    def decide(command: Command) -> Fate:
        if isinstance(command, SetConfig):
            asyncio.get_running_loop().call_soon(whole.raft.elect, None)
        return Fate.COMMITTED

    whole.raft.on_propose = decide
    await whole.services["a"].ca.configure(ANYBODY, update({"LeafCertTTL": "24h"}))
    assert whole.raft.leader is None
    assert stored_config(whole.raft.state)["LeafCertTTL"] == "24h"


async def test_stale_index_names_the_current_one_from_any_node(whole: Cluster) -> None:
    config = whole.raft.state.config
    assert config is not None
    for service in whole.services.values():
        with pytest.raises(StaleIndex, match=rf"\b{config.modify_index}$"):
            await service.ca.configure(ANYBODY, update({"LeafCertTTL": "24h"}, 10_000))


async def test_write_that_is_overtaken_on_its_way_is_made_anew(whole: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a write that the leader had done before this one arrived there."""
    reads = whole.services["b"].reads
    read = reads.read
    overtaken: list[ReadPoint] = []

    async def slow(level: ReadLevel) -> ReadPoint:
        point = await read(level)
        if not overtaken:
            overtaken.append(point)
            await whole.services["a"].ca.configure(ANYBODY, update({"LeafCertTTL": "24h"}))
        return point

    monkeypatch.setattr(reads, "read", slow)
    await whole.services["b"].ca.configure(ANYBODY, update({"LeafCertTTL": "48h"}))
    assert overtaken
    assert stored_config(whole.raft.state)["LeafCertTTL"] == "48h"


@pytest.mark.parametrize("has_index", [False, True])
@pytest.mark.parametrize("kind", ["same root", "another root"])
async def test_eight_writers_on_all_nodes_are_done_in_turn_or_told_the_current_index(
    whole: Cluster, kind: str, *, has_index: bool
) -> None:
    config = whole.raft.state.config
    assert config is not None
    index = config.modify_index if has_index else 0

    async def write(number: int) -> Exception | None:
        wanted: dict[str, object] = {"LeafCertTTL": f"{number + 2}h"}
        if kind == "another root":
            wanted["PrivateKeyBits"] = (384, 521)[number % 2]
        try:
            await whole.services[NAMES[number % len(NAMES)]].ca.configure(ANYBODY, update(wanted, index))
        except (StaleIndex, InternalError, Refused) as error:
            return error
        return None

    outcomes = await asyncio.gather(*map(write, range(8)))
    if has_index:
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", *["StaleIndex"] * 7]
    else:
        # The chain has room for so many links; who comes behind that is told from when on there is more.
        refused = [str(outcome) for outcome in outcomes if outcome is not None]
        assert len(refused) <= 2 * (kind == "another root")
        assert all("possible from" in text for text in refused)


@pytest.mark.parametrize("name", ["a", "c"])
async def test_repair_is_answered_once_the_ca_is_up(broken: Cluster, name: str) -> None:
    await broken.services[name].ca.configure(ANYBODY, update({"LeafCertTTL": "24h"}))
    assert broken.nodes[name].replica.state.active_root is not None
    assert (await broken.services[name].leaves.sign(ANYBODY, broken.csr(), "me")).name == "web"


async def test_repair_that_repairs_nothing_is_told_why(broken: Cluster) -> None:
    with pytest.raises(InternalError, match="leaf cert TTL must be greater or equal than 1h0m0s"):
        await broken.services["c"].ca.configure(ANYBODY, update({"LeafCertTTL": "2m"}))


# -- reading


async def test_linearizable_read_catches_up_and_a_stale_one_does_not(whole: Cluster) -> None:
    follower = whole.services["c"]
    whole.nodes["c"].replica.fall_behind()
    await whole.services["a"].leaves.sign(ANYBODY, whole.csr(), "me")
    stale, current = await follower.reads.read(ReadLevel.STALE), await follower.reads.read(ReadLevel.LINEARIZABLE)
    assert stale.state.index < current.state.index == whole.raft.state.index
    assert current.has_leader
    assert current.last_contact_ms == 10
    assert (await whole.services["a"].reads.read(ReadLevel.STALE)).last_contact_ms == 0


async def test_without_a_leader_only_stale_reads_are_answered(whole: Cluster) -> None:
    whole.raft.elect(None)
    with pytest.raises(NoLeader):
        await whole.services["b"].reads.read(ReadLevel.LINEARIZABLE)
    assert not (await whole.services["b"].reads.read(ReadLevel.STALE)).has_leader
    assert whole.services["b"].servers.leader_address() == ""


async def test_watch_ends_with_a_change_or_with_its_time(whole: Cluster) -> None:
    service, index = whole.services["c"], whole.raft.state.roots_watch_index
    point = await service.reads.watch(ReadLevel.STALE, index, Watch.ROOTS, 0.01)
    assert point.state.roots_watch_index == index
    watching = asyncio.ensure_future(service.reads.watch(ReadLevel.STALE, index, Watch.ROOTS, 30))
    await asyncio.sleep(0)
    await whole.services["a"].ca.configure(ANYBODY, update({"LeafCertTTL": "24h"}))
    async with asyncio.timeout(10):
        assert (await watching).state.roots_watch_index > index


@pytest.mark.parametrize(("what", "counted"), [(Watch.ROOTS, (1, 1)), (Watch.CONFIGURATION, (0, 0))])
async def test_only_who_waits_for_the_roots_is_counted_and_only_while_it_waits(
    whole: Cluster, monkeypatch: pytest.MonkeyPatch, what: Watch, counted: tuple[int, int]
) -> None:
    """A published root is activated when those who are counted have seen it."""
    node, index = whole.nodes["c"], whole.raft.state.index
    found: list[tuple[int, int]] = []
    wait = node.replica.wait_for_index

    async def counting(*arguments: Any, **options: Any) -> State:
        found.append(node.watchers.count(index))
        return await wait(*arguments, **options)

    monkeypatch.setattr(node.replica, "wait_for_index", counting)
    watching = asyncio.ensure_future(whole.services["c"].reads.watch(ReadLevel.STALE, index, what, 30))
    await until(lambda: found)
    await whole.services["a"].ca.configure(ANYBODY, update({"LeafCertTTL": "24h"}))
    async with asyncio.timeout(10):
        assert (await watching).state.config_index > index
    assert found == [counted]
    assert node.watchers.count(0) == (0, 0)


# -- local services


async def test_leaf_for_a_local_service_comes_with_its_key_and_from_the_cache(whole: Cluster) -> None:
    service = whole.services["c"]
    leaf = await service.leaves.leaf(ANYBODY, "web", "me")
    assert leaf.cert.name == "web"
    assert "PRIVATE KEY" in leaf.private_key_pem
    assert (await service.leaves.leaf(ANYBODY, "web", "other")).cert == leaf.cert
    assert whole.raft.machine.ledger_summary.count == 1


async def test_leaf_is_served_from_the_cache_while_there_is_no_leader(whole: Cluster) -> None:
    leaf = await whole.services["c"].leaves.leaf(ANYBODY, "web", "me")
    whole.raft.elect(None)
    assert (await whole.services["c"].leaves.leaf(ANYBODY, "web", "me")).cert == leaf.cert


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 129, "~", "a b", "web/../admin", "wéb", "a%20b", "web\n"])
async def test_name_that_no_service_can_have_is_refused(whole: Cluster, name: str) -> None:
    with pytest.raises(
        BadRequest, match=r"service name '.*': must be 1 to 128 of the characters A-Z a-z 0-9 \. _ -, and"
    ):
        await whole.services["c"].leaves.leaf(ANYBODY, name, "me")
    assert whole.raft.machine.ledger_summary.count == 0


async def test_leaf_without_a_ca_is_not_ready(broken: Cluster) -> None:
    with pytest.raises(NotReady, match="no root certificate: error configuring provider"):
        await broken.services["a"].leaves.leaf(ANYBODY, "web", "me")


# -- the cluster


async def test_cluster_is_as_the_leader_sees_it_from_any_node(whole: Cluster) -> None:
    whole.nodes["a"].replica.contact_age_seconds = {"b": 0.02, "c": 5.0}
    for service in whole.services.values():
        info = await service.servers.cluster(ReadLevel.LINEARIZABLE)
        assert [(server.name, server.is_leader, server.is_healthy) for server in info.servers] == [
            ("a", True, True),
            ("b", False, True),
            ("c", False, False),
        ]
        assert info.failure_tolerance == 0
        assert not info.is_healthy


async def test_leadership_is_transferred_from_any_node(whole: Cluster) -> None:
    await whole.services["c"].servers.transfer_leader(ANYBODY, "b")
    assert whole.raft.leader == "b"
    await whole.services["c"].servers.transfer_leader(ANYBODY, None)
    assert whole.raft.leader == "a"
    assert whole.services["c"].servers.leader_address() == whole.raft.members["a"].raft_address


async def test_servers_are_added_and_removed_from_any_node_and_the_leader_too(whole: Cluster) -> None:
    await whole.services["c"].servers.add_peer(ANYBODY, "d", "127.0.0.1:4", "127.0.0.1:5")
    assert not whole.raft.members["d"].is_voter
    await whole.services["b"].servers.remove_peer(ANYBODY, None, "127.0.0.1:4")
    await whole.services["c"].servers.remove_peer(ANYBODY, "a", None)
    assert sorted(whole.raft.members) == ["b", "c"]
    assert whole.raft.leader == "b"
    assert whole.services["c"].servers.peer_addresses() == [whole.raft.members[name].raft_address for name in "bc"]


async def test_digests_of_all_nodes_agree(whole: Cluster) -> None:
    await whole.services["b"].leaves.sign(ANYBODY, whole.csr(), "me")
    digests = [await service.facts.digest() for service in whole.services.values()]
    assert digests[0] == digests[1] == digests[2]
    assert digests[0].ledger_count == 1


async def test_facts_are_all_text(whole: Cluster) -> None:
    facts = whole.services["a"].facts.stats()
    assert facts["ca"] == {
        "initialized": "true",
        "provider": "consul",
        "ready": "true",
        "trouble": "",
        "warnings": "",
    }
    assert facts["raft"]["state"] == "Leader"
    assert facts["raft"]["num_peers"] == "2"
    assert json.loads(json.dumps(facts)) == facts
    assert all(isinstance(value, str) for group in facts.values() for value in group.values())
