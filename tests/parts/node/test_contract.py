"""What `cluster.api` promises of each resource, held against real nodes and against the fake behind its own tests:
a test of the API that passes over the fake must mean something for a node.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.api.ca import ConfigUpdate, RotateRequest, Steering
from cluster.api.reads import ReadLevel, Watch
from cluster.api.service import Service
from cluster.base.config import ConnectSection
from cluster.base.errors import BadRequest, NotFound, Refused, StaleIndex
from fsm.acl import SetPolicy
from fsm.commands import Applied
from fsm.ledger import LedgerQuery
from fsm.state import State
from providers.errors import CSRRejected
from tests.kit.acl_samples import INIT, policy
from tests.kit.callers import ANYBODY
from tests.kit.csrs import service_csr
from tests.kit.fake_cluster import FakeCluster
from tests.kit.fake_service import FakeService, node_config
from tests.kit.whole_nodes import put_together

_SOON_SECONDS = 0.05
_OF_THE_CA = (Watch.ROOTS, Watch.CONFIGURATION)


@dataclass(frozen=True, slots=True)
class Side:
    service: Service
    #: By no request: it comes in the log.
    change_acl: Callable[[], Awaitable[object]]


@pytest.fixture(params=["fake", "leader", "follower"])
async def side(request: pytest.FixtureRequest, rpc_cluster: FakeCluster, tls_directory: Path) -> AsyncIterator[Side]:
    if request.param == "fake":
        fake = FakeService(node_config())
        yield Side(fake.service, lambda: fake.commit(SetPolicy(policy(7))))
        return
    async with AsyncExitStack() as stack:
        whole = await put_together(rpc_cluster, tls_directory, stack, ConnectSection())
        await whole.lead("a")

        async def change_acl() -> None:
            assert isinstance(rpc_cluster.commit(INIT), Applied)

        yield Side(whole.services["a" if request.param == "leader" else "b"], change_acl)


@pytest.fixture
def service(side: Side) -> Service:
    return side.service


async def state_of(service: Service) -> State:
    return (await service.reads.read(ReadLevel.LINEARIZABLE)).state


def wanted(**changes: object) -> ConfigUpdate:
    values: dict[str, object] = {
        "provider": "consul",
        "config": {"LeafCertTTL": "24h"},
        "state": None,
        "force_without_cross_signing": False,
        "modify_index": 0,
    }
    return ConfigUpdate(**(values | changes))  # type: ignore[arg-type]


# -- reads


@pytest.mark.parametrize("level", ReadLevel)
async def test_read_gives_a_whole_state_and_says_how_current_it_is(service: Service, level: ReadLevel) -> None:
    point = await service.reads.read(level)
    assert point.has_leader
    assert point.last_contact_ms >= 0
    assert point.state.active_root is not None
    assert point.state.config is not None


@pytest.mark.parametrize("what", [*_OF_THE_CA, Watch.POLICIES])
async def test_watch_answers_at_once_where_the_client_has_seen_less(side: Side, what: Watch) -> None:
    if what is Watch.POLICIES:
        await side.change_acl()
    service = side.service
    async with asyncio.timeout(5):
        point = await service.reads.watch(ReadLevel.STALE, 1, what, 60)
    assert point.state == await state_of(service)


@pytest.mark.parametrize("what", Watch)
async def test_watch_ends_with_its_time(service: Service, what: Watch) -> None:
    before = await state_of(service)
    index = max(before.roots_watch_index, before.config_index, before.acl_index)
    assert (await service.reads.watch(ReadLevel.STALE, index, what, _SOON_SECONDS)).state == before


@pytest.mark.parametrize("what", _OF_THE_CA)
async def test_watch_wakes_with_a_change(service: Service, what: Watch) -> None:
    before = await state_of(service)
    index = max(before.roots_watch_index, before.config_index)
    watching = asyncio.ensure_future(service.reads.watch(ReadLevel.STALE, index, what, 60))
    await service.ca.configure(ANYBODY, wanted())
    async with asyncio.timeout(10):
        assert (await watching).state.config_index > before.config_index


async def test_watch_of_access_control_wakes_with_a_change(side: Side) -> None:
    before = await state_of(side.service)
    index = before.acl.policies_index
    watching = asyncio.ensure_future(side.service.reads.watch(ReadLevel.STALE, index, Watch.POLICIES, 60))
    await side.change_acl()
    async with asyncio.timeout(10):
        assert (await watching).state.acl.policies_index > index


# -- the CA


async def test_configuration_is_changed_and_read_back(service: Service) -> None:
    before = (await state_of(service)).config
    assert before is not None
    await service.ca.configure(ANYBODY, wanted(modify_index=before.modify_index))
    after = (await state_of(service)).config
    assert after is not None
    assert "24h" in after.config_json
    assert after.modify_index > before.modify_index


async def test_stale_index_is_a_conflict_and_changes_nothing(service: Service) -> None:
    before = await state_of(service)
    with pytest.raises(StaleIndex):
        await service.ca.configure(ANYBODY, wanted(modify_index=(before.config_index + 1)))
    assert await state_of(service) == before


async def test_state_of_the_provider_is_read_only(service: Service) -> None:
    with pytest.raises(BadRequest, match="Provider State is read-only"):
        await service.ca.configure(ANYBODY, wanted(state={"other": "value"}))


async def test_plan_changes_nothing_and_a_rotation_does_what_it_says(service: Service) -> None:
    before = await state_of(service)
    old = before.active_root
    assert old is not None
    plan = await service.ca.plan_rotation(ANYBODY, RotateRequest())
    assert plan.active_root_id == old.root_id
    assert plan.trusted_roots == 2
    assert await state_of(service) == before
    await service.ca.rotate(ANYBODY, RotateRequest())
    after = await state_of(service)
    assert after.rotation is None
    assert after.last_rotation is not None
    new = after.active_root
    assert new is not None
    assert new.root_id == after.last_rotation.root_id != old.root_id
    assert [root.root_id for root in after.roots if root.is_retired] == [old.root_id]


async def test_staged_rotation_waits_is_measured_and_can_be_given_up(service: Service) -> None:
    await service.ca.rotate(ANYBODY, RotateRequest(is_staged=True, wait_seconds=3600))
    waiting = await state_of(service)
    assert waiting.rotation is not None
    assert await service.ca.rotation_uptake(ANYBODY) is not None
    await service.ca.steer_rotation(ANYBODY, Steering.PAUSE)
    paused = (await state_of(service)).rotation
    assert paused is not None
    assert paused.is_paused
    await service.ca.steer_rotation(ANYBODY, Steering.ABORT)
    after = await state_of(service)
    assert after.rotation is None
    assert len(after.roots) == len(waiting.roots) - 1
    assert after.last_rotation is not None
    assert after.last_rotation.reason == "given up by an operator"


async def test_without_a_rotation_there_is_nothing_to_steer_or_to_measure(service: Service) -> None:
    for steering in Steering:
        with pytest.raises(Refused, match="no rotation is under way"):
            await service.ca.steer_rotation(ANYBODY, steering)
    assert await service.ca.rotation_uptake(ANYBODY) is None


async def test_only_a_retired_root_can_be_distrusted(service: Service) -> None:
    active = (await state_of(service)).active_root
    assert active is not None
    with pytest.raises(NotFound, match="is not listed"):
        await service.ca.distrust_root(ANYBODY, "00:11")
    with pytest.raises(Refused, match="is active"):
        await service.ca.distrust_root(ANYBODY, active.root_id)
    await service.ca.rotate(ANYBODY, RotateRequest())
    await service.ca.distrust_root(ANYBODY, active.root_id.upper())
    assert active.root_id not in [root.root_id for root in (await state_of(service)).roots]


# -- leaves


async def test_csr_becomes_a_certificate(service: Service) -> None:
    trust_domain = (await state_of(service)).trust_domain
    cert = await service.leaves.sign(ANYBODY, service_csr(trust_domain), "me")
    assert (cert.kind, cert.name) == ("service", "web")
    assert cert.spiffe_id == f"spiffe://{trust_domain}/ns/default/dc/dc1/svc/web"
    assert cert.cert_pem.endswith("\n")
    assert cert.not_before < cert.not_after
    assert cert.serial > 0
    assert cert.index > 0


async def test_what_is_no_csr_is_rejected(service: Service) -> None:
    with pytest.raises(CSRRejected):
        await service.leaves.sign(ANYBODY, "rubbish", "me")


async def test_leaf_of_a_local_service_has_its_key(service: Service) -> None:
    leaf = await service.leaves.leaf(ANYBODY, "web", "me")
    assert leaf.cert.name == "web"
    assert leaf.private_key_pem.startswith("-----")
    assert leaf.private_key_pem not in repr(leaf)
    assert leaf.age_seconds >= 0


async def test_name_that_no_service_has_is_rejected(service: Service) -> None:
    with pytest.raises(BadRequest):
        await service.leaves.leaf(ANYBODY, "we\x00b", "me")


# -- the record


@pytest.mark.parametrize("level", ReadLevel)
async def test_unknown_serial_is_none_and_an_empty_search_is_empty(service: Service, level: ReadLevel) -> None:
    assert await service.record.find_cert(b"\x7f" * 16, level) is None
    assert await service.record.search_certs(LedgerQuery(service="nobody"), level) == []


# -- servers


async def test_servers_are_listed_in_the_order_of_their_names(service: Service) -> None:
    info = await service.servers.cluster(ReadLevel.LINEARIZABLE)
    names = [server.name for server in info.servers]
    assert names == sorted(names)
    assert sum(server.is_leader for server in info.servers) == 1
    assert service.servers.leader_address() in service.servers.peer_addresses()
    assert service.servers.peer_addresses() == [server.raft_address for server in info.servers]


async def test_servers_that_are_none_cannot_lead_or_leave(service: Service) -> None:
    with pytest.raises(BadRequest):
        await service.servers.transfer_leader(ANYBODY, "nobody")
    with pytest.raises(NotFound):
        await service.servers.remove_peer(ANYBODY, "nobody", None)


# -- backups


async def test_snapshot_is_saved_and_restored_and_a_damaged_one_refused(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "ca.snapshot"
    meta = await service.backups.save_snapshot(path, ReadLevel.LINEARIZABLE)
    assert meta.trust_domain == (await state_of(service)).trust_domain
    await service.backups.restore_snapshot(ANYBODY, path, is_forced=False)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(Refused):
        await service.backups.restore_snapshot(ANYBODY, path, is_forced=False)


# -- facts


async def test_node_says_what_it_has_applied_and_how_it_is(service: Service) -> None:
    digest = await service.facts.digest()
    assert digest.applied_index > 0
    assert len(bytes.fromhex(digest.state_digest)) == 32
    assert digest.ledger_count >= 0
    stats = service.facts.stats()
    assert stats["raft"]["state"] in ("Leader", "Follower")
    assert all(type(value) is str for group in stats.values() for value in group.values())
