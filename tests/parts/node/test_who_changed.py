"""The log says of each change who has had it made: by whose token, as the leader has looked it up, and from where, as
the node says that was asked.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from cluster.access.first import first_acl
from cluster.access.secret_ids import new_key
from cluster.api.ca import Steering
from cluster.base.config import ConnectSection
from cluster.base.errors import PermissionDenied
from cluster.node.reseal import Resealer, seal_id
from cluster.rpc.messages import (
    ACL_BOOTSTRAP,
    ACL_CLONE,
    ACL_DELETE,
    ACL_PUT,
    ADD_PEER,
    CONFIGURE,
    DISTRUST_ROOT,
    JOIN_TOKEN,
    REMOVE_PEER,
    ROTATE,
    ROTATE_SEAL,
    SET_AGENT_CA,
    STEER_ROTATION,
    TRANSFER,
    AclBootstrapRequest,
    AclCloneRequest,
    AclDeleteRequest,
    AclPutRequest,
    AddPeerRequest,
    AgentCARequest,
    ConfigureRequest,
    DistrustRequest,
    JoinTokenRequest,
    RemovePeerRequest,
    RotateSealRequest,
    RotationRequest,
    SteerRequest,
    TransferRequest,
)
from cluster.rpc.operation import Operation
from cluster.tls.certificates import new_ca
from cluster.tls.keys import KEY_BYTES
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running
from tests.kit.guarded import ROOT, Guard
from tests.kit.wait import until
from tests.kit.whole_nodes import Cluster, put_together

NOW: Final = int(time.time())
ADDRESS: Final = "10.0.0.7"
ALL: Final = 'operator = "write"\nacl = "write"'


class Operator:
    """With a token of its own, at an address."""

    def __init__(self, node: Node, secret_id: str, accessor_id: str) -> None:
        self.node = node
        self._secret_id = secret_id
        self.accessor_id = accessor_id

    async def has(self, operation: Operation[Any, Any], request: Any) -> list[tuple[str, Any]]:
        """What the log has of it, and whom it names."""
        before = len(self.node.log.events)
        await self.node.operations.run(operation, request, self._secret_id, ADDRESS)
        assert self._secret_id not in str(self.node.log.events)
        return [(event, fields["by"]) for event, fields in self.node.log.events[before:] if "by" in fields]


@pytest.fixture
async def operator(cluster: FakeCluster) -> AsyncIterator[Operator]:
    cluster.members = {
        name: replace(known, rpc_address=f"127.0.0.1:10{k}", keys=(name.encode() * KEY_BYTES,))
        for k, (name, known) in enumerate(cluster.members.items())
    }
    node = Node(cluster, "a", clock=FakeClock(float(NOW)))
    async with running(node):
        await bootstrapped(node)
        await until(lambda: cluster.state.acl.key is not None)
        first = (await node.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))).secret_id
        policy = AclPutRequest("policies", "", json.dumps({"Name": "all", "Rules": ALL}))
        await node.operations.run(ACL_PUT, policy, first)
        token = AclPutRequest("tokens", "", '{"Policies": [{"Name": "all"}]}')
        made = await node.operations.run(ACL_PUT, token, first)
        yield Operator(node, made.secret_id, made.key)


def rotation(node: Node, number: int, *, is_staged: bool = False) -> RotationRequest:
    return RotationRequest(None, None, False, is_staged, 600, bytes([number]), node.cluster.state.ca_index, False)


async def test_changes_of_rights(operator: Operator) -> None:
    changed = [("acl.changed", f"{operator.accessor_id}@{ADDRESS}")]
    assert await operator.has(ACL_PUT, AclPutRequest("policies", "", '{"Name": "p"}')) == changed
    assert await operator.has(ACL_CLONE, AclCloneRequest(operator.accessor_id, "")) == changed
    [policy] = [one.policy_id for one in operator.node.cluster.state.acl.policies if one.name == "p"]
    assert await operator.has(ACL_DELETE, AclDeleteRequest("policies", policy)) == changed


async def test_changes_of_servers(operator: Operator) -> None:
    by = f"{operator.accessor_id}@{ADDRESS}"
    added = AddPeerRequest("d", "h:1", "h:2")
    assert await operator.has(ADD_PEER, added) == [("member.added", by)]
    cluster = operator.node.cluster
    cluster.members = {**cluster.members, "d": replace(cluster.members["d"], keys=(b"d" * KEY_BYTES,))}
    cluster.keys = {"d": b"e" * KEY_BYTES}
    assert await operator.has(ADD_PEER, added) == [("member.key_changed", by)]
    assert await operator.has(REMOVE_PEER, RemovePeerRequest("d", None)) == [("member.removed", by)]
    agent_ca = new_ca(datetime.now(UTC), 30)
    agent_ca_request = AgentCARequest(agent_ca.cert_pem, agent_ca.key_pem, 3600)
    assert await operator.has(SET_AGENT_CA, agent_ca_request) == [("join.ca_set", by)]
    join = JoinTokenRequest("e", "h:3", "h:4", 600, False, False)
    assert await operator.has(JOIN_TOKEN, join) == [("join.token_made", by)]
    assert await operator.has(SET_AGENT_CA, AgentCARequest("", "", 0)) == [("join.ca_removed", by)]
    assert await operator.has(TRANSFER, TransferRequest("b")) == [("leader.handed_over", by)]


async def test_changes_of_the_ca(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    node, by = operator.node, f"{operator.accessor_id}@{ADDRESS}"
    configure = ConfigureRequest(
        "consul", json.dumps({"LeafCertTTL": "50h"}), None, False, 0, False, 0, b"c", node.cluster.state.ca_index, False
    )
    assert ("ca.configured", by) in await operator.has(CONFIGURE, configure)
    told = await operator.has(ROTATE, rotation(node, 1))
    # Its steps are the leader's own work, also where they come while the operator waits.
    assert [event for event in told if event[1] != "leader"] == [("rotation.begun", by)]
    old = next(root for root in node.cluster.state.roots if root.is_retired)
    assert ("root.pruned", by) in await operator.has(DISTRUST_ROOT, DistrustRequest(old.root_id))
    await operator.has(ROTATE, rotation(node, 2, is_staged=True))
    assert await operator.has(STEER_ROTATION, SteerRequest(Steering.PAUSE)) == [("rotation.steered", by)]
    assert ("rotation.given_up", by) in await operator.has(STEER_ROTATION, SteerRequest(Steering.ABORT))

    async def nobody_is_asked(*_: object) -> None:
        pass

    monkeypatch.setattr(Resealer, "_require_key_everywhere", nobody_is_asked)
    seal = RotateSealRequest(seal_id(node.cluster.state.seal).encode(), True)
    assert ("seal.rotated", by) in await operator.has(ROTATE_SEAL, seal)


# -- through another node


@pytest.fixture
async def whole(rpc_cluster: FakeCluster, tls_directory: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        found = await put_together(rpc_cluster, tls_directory, stack, ConnectSection())
        await found.lead("a")
        yield found


@pytest.mark.parametrize(
    ("node", "said", "shown"),
    [
        ("a", ADDRESS, ADDRESS),
        ("b", ADDRESS, f"b: {ADDRESS}"),
        # Who has taken a node over cannot speak for another, nor fill the log.
        ("b", f"{ROOT}@a: \n{ADDRESS}", f"b: {ROOT}@a: {ADDRESS}"),
        ("b", "y" * 5000, f"b: {'y' * 64}"),
    ],
)
async def test_address_is_the_word_of_the_node_that_was_asked(
    rpc_cluster: FakeCluster, whole: Cluster, node: str, said: str, shown: str
) -> None:
    guard = Guard(rpc_cluster, *whole.nodes.values())
    accessor = guard.give("secret", ALL)
    service, leader = whole.services[node], whole.nodes["a"]
    caller = replace(await service.access.caller("secret"), asked_from=said)
    await service.acl.put(caller, "policies", "", {"Name": "p"})
    [changed] = [fields for event, fields in leader.log.events if event == "acl.changed"]
    assert changed["by"] == f"{accessor}@{shown}"
    method = {"Name": "m", "Type": "tls", "Config": {}}
    await service.acl.put(caller, "methods", "", method)
    with pytest.raises(PermissionDenied):
        await service.acl.login("m", "a.b.c", {}, said)
    [refused] = [fields for event, fields in leader.log.events if event == "acl.login_refused"]
    assert (refused["method"], refused["by"]) == ("m", shown)


async def test_first_token_has_nobody_but_an_address(rpc_cluster: FakeCluster, whole: Cluster) -> None:
    node = whole.nodes["a"]
    rpc_cluster.commit(first_acl(*new_key(node.sealer), int(node.clock.now())))
    await whole.services["b"].acl.bootstrap("", ADDRESS)
    told = [(event, fields["by"]) for event, fields in whole.nodes["a"].log.events if event.startswith("acl.")]
    assert told == [("acl.changed", f"b: {ADDRESS}"), ("acl.bootstrapped", f"b: {ADDRESS}")]
