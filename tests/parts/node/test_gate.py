"""Who may have what done on whole nodes: every operation with every kind of token, as a member sends it; and leaves
that are there already.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, cast

import msgpack
import pytest
from aiohttp import web

from cluster.base.config import ConnectSection
from cluster.base.errors import InternalError, NoLeader, PermissionDenied, TokenUnknown
from cluster.rpc import messages
from cluster.rpc.operation import VERSION, Operation
from cluster.rpc.server import RpcServer
from cluster.rpc.tokens import TOKENS_HEADER, pack_tokens
from cluster.signing.serials import new_serial
from providers.pki.serials import serial_bytes
from tests.kit.acl_samples import uuid
from tests.kit.csrs import service_csr
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running
from tests.kit.gate_table import (
    ANONYMOUS,
    EXPIRED,
    MANAGEMENT,
    NONE,
    OPERATIONS,
    REVOKED,
    Bearer,
    Kind,
    Who,
    bearers,
    refusal,
)
from tests.kit.guarded import ROOT, Guard
from tests.kit.seats import roomy_seats
from tests.kit.whole_nodes import Cluster, put_together
from tests.kit.wild_requests import REQUESTS, AnyTls, WildRequest

WEB: Final = 'service "web" { policy = "write" }'


def test_every_operation_is_in_the_table() -> None:
    operations = {value.name for value in vars(messages).values() if isinstance(value, Operation)}
    assert operations == set(OPERATIONS)


@pytest.mark.parametrize("operation", [name for name, need in OPERATIONS.items() if need and need.kind is Kind.RIGHT])
async def test_operation_is_done_for_nobody_who_lacks_its_right(cluster: FakeCluster, operation: str) -> None:
    node = Node(cluster, "a")
    need = OPERATIONS[operation]
    assert need is not None
    tls = cast(Any, AnyTls())
    server = RpcServer(node.replica.real, node.operations, tls, node.log, node.metrics, roomy_seats("rpc"))
    async with running(node):
        await bootstrapped(node)
        guard = Guard(cluster, node)
        request = REQUESTS[operation]
        if operation == "sign":
            request = [service_csr(cluster.state.trust_domain), serial_bytes(new_serial()), "me"]
        given = [(bearer, *_token(guard, node, bearer, number)) for number, bearer in enumerate(bearers(need))]
        refused = [(bearer, secret, accessor) for bearer, secret, accessor in given if not bearer.is_granted]
        before, certificates = cluster.log_index, cluster.machine.ledger_summary
        outcomes = await _asked(server, operation, [request] * len(refused), [secret for _, secret, _ in refused])
        assert (cluster.log_index, cluster.machine.ledger_summary) == (before, certificates)
        assert cluster.leader == "a"
        for (bearer, _, accessor), (error, result) in zip(refused, outcomes, strict=True):
            kind = "TokenUnknown" if bearer.who is Who.UNKNOWN else "PermissionDenied"
            assert (error[:2], result) == ([kind, refusal(bearer, need, accessor)], None), bearer
        for bearer, secret, _ in given:
            if bearer.is_granted and operation not in ("transfer", "rotate"):
                [(error, _)] = await _asked(server, operation, [request], [secret])
                assert error is None or "lacks permission" not in error[1], bearer
                assert error is None or error[1] != "ACL not found", bearer


def _token(guard: Guard, node: Node, bearer: Bearer, number: int) -> tuple[str, str]:
    """SecretID and AccessorID."""
    match bearer:
        case _ if bearer == NONE:
            return "", ""
        case _ if bearer == ANONYMOUS:
            return "anonymous", ""
        case _ if bearer == MANAGEMENT:
            return ROOT, ""
    secret = bearer.secret_id[:64] or uuid(9000 + number)
    if bearer in (EXPIRED, REVOKED):
        expires_at = int(node.clock.now()) - 1 if bearer == EXPIRED else 0
        accessor = guard.give(secret, 'operator = "write"\nacl = "write"', WEB, expires_at=expires_at)
        if bearer == REVOKED:
            guard.revoke(accessor)
    elif bearer.rules is not None:
        return secret, guard.give(secret, *bearer.rules)
    return secret, ""


async def _asked(server: RpcServer, operation: str, requests: list[Any], secrets: list[str]) -> list[Any]:
    asked = WildRequest(operation, msgpack.packb([2000, requests]), VERSION)
    asked.headers[TOKENS_HEADER] = pack_tokens([(secret, "10.0.0.7") for secret in secrets])
    response = await server._handle(cast(web.Request, asked))
    assert response.status == 200
    assert isinstance(response.body, bytes)
    return list(msgpack.unpackb(response.body))


# -- leaves


class Guarded:
    def __init__(self, whole: Cluster, guard: Guard) -> None:
        self.whole = whole
        self.guard = guard

    async def leaf(self, node: str, secret_id: str, index: int = 0) -> str:
        """The key of the service web."""
        offered = self.whole.services[node]
        caller = await offered.access.caller(secret_id)
        return (await offered.leaves.leaf(caller, "web", "t", index=index)).private_key_pem


@pytest.fixture
async def guarded(rpc_cluster: FakeCluster, tls_directory: Path) -> AsyncIterator[Guarded]:
    async with AsyncExitStack() as stack:
        whole = await put_together(rpc_cluster, tls_directory, stack, ConnectSection())
        await whole.lead("a")
        yield Guarded(whole, Guard(rpc_cluster, *whole.nodes.values()))


@pytest.mark.parametrize("node", ["a", "b"])
async def test_leaf_in_the_cache_is_for_nobody_who_might_not_have_asked_for_it(guarded: Guarded, node: str) -> None:
    guarded.guard.give("strong", WEB)
    weaker = {
        "another": 'service "api" { policy = "write" }',
        "reads": 'service "web" { policy = "read" }',
        "longer": 'service_prefix "web-" { policy = "write" }',
        "denied": 'service_prefix "" { policy = "write" }\nservice "web" { policy = "deny" }',
        "operator": 'operator = "write"\nacl = "write"\nnode_prefix "" { policy = "write" }',
    }
    for secret, rules in weaker.items():
        guarded.guard.give(secret, rules)
    key = await guarded.leaf(node, "strong")
    assert await guarded.leaf(node, "strong") == key  # it is in the cache
    before = guarded.whole.raft.log_index
    for secret in (*weaker, ""):
        for index in (0, 1):
            with pytest.raises(PermissionDenied, match="lacks permission 'service:write' on \"web\""):
                await guarded.leaf(node, secret, index)
    with pytest.raises(TokenUnknown):
        await guarded.leaf(node, "nobody's")
    assert guarded.whole.raft.log_index == before
    assert await guarded.leaf(node, "strong") == key


@pytest.mark.parametrize("node", ["a", "b"])
async def test_leaf_in_the_cache_ends_with_the_right_to_it(guarded: Guarded, node: str) -> None:
    guard, offered = guarded.guard, guarded.whole.services[node]
    accessor = guard.give("mine", WEB)
    other = guard.give("too", WEB)
    await guarded.leaf(node, "mine")
    # Somebody was let in, and meanwhile the rules are others.
    caller = await offered.access.caller("mine")
    [policy] = guard.policies_of(accessor)
    guard.policy('service "web" { policy = "read" }', policy)
    with pytest.raises(PermissionDenied):
        await offered.leaves.leaf(caller, "web", "t")
    with pytest.raises(PermissionDenied):
        await guarded.leaf(node, "mine")
    guard.policy(WEB, policy)
    assert await guarded.leaf(node, "mine") == await guarded.leaf(node, "too")
    caller = await offered.access.caller("too")
    guard.revoke(other)
    with pytest.raises(TokenUnknown):
        await offered.leaves.leaf(caller, "web", "t")
    with pytest.raises(TokenUnknown):
        await guarded.leaf(node, "too")
    assert await guarded.leaf(node, "mine")


@pytest.mark.parametrize("node", ["a", "b"])
async def test_leaf_in_the_cache_is_for_nobody_while_the_node_is_cut_off(guarded: Guarded, node: str) -> None:
    guarded.guard.give("mine", WEB)
    key = await guarded.leaf(node, "mine")
    offered, replica = guarded.whole.services[node], guarded.whole.raft.replicas[node]
    caller = await offered.access.caller("mine")
    replica.outdated_seconds = 31.0
    with pytest.raises(NoLeader, match="has not heard from a leader for 31 s"):
        await guarded.leaf(node, "mine")
    with pytest.raises(NoLeader, match="has not heard from a leader for 31 s"):
        await offered.leaves.leaf(caller, "web", "t")  # who was let in a moment before
    replica.outdated_seconds = 30.0
    assert await guarded.leaf(node, "mine") == key


async def test_leaf_is_for_nobody_who_may_not_have_it_for_so_long(guarded: Guarded) -> None:
    """Of two whose certificates may last an hour, one may have any by now: what that one gets is not the other's."""
    guard, raft = guarded.guard, guarded.whole.raft
    hour = 'service "web" { policy = "write" ttl_max = "1h" }'
    one = guard.give("one", hour)
    guard.give("other", hour)
    offered = guarded.whole.services["b"]

    async def seconds(secret_id: str) -> int:
        cert = (await offered.leaves.leaf(await offered.access.caller(secret_id), "web", "t")).cert
        return cert.not_after - cert.not_before

    assert [await seconds(name) for name in ("one", "other")] == [3600, 3600]
    before = await offered.access.caller("one")
    [policy] = guard.policies_of(one)
    guard.policy(WEB, policy)
    cache = offered.leaves._leaves  # type: ignore[attr-defined]
    cache._entries.clear()
    longer = await cache.get(before, "web", "t", 0, 0)  # let in before, and signed for afterwards
    assert longer.cert.not_after - longer.cert.not_before == 72 * 3600
    assert [await seconds(name) for name in ("other", "one", "other")] == [3600, 72 * 3600, 3600]
    assert raft.leader == "a"


async def test_leaf_that_the_rules_of_now_do_not_give_is_asked_for_anew_or_refused(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, offered = guarded.guard, guarded.whole.services["b"]
    guard.give("mine", WEB)
    mine = await offered.access.caller("mine")
    long = await offered.leaves.leaf(mine, "web", "t")
    guard.give("short", 'service "web" { policy = "write" ttl_max = "1h" }')
    short = await offered.access.caller("short")
    cache = offered.leaves._leaves  # type: ignore[attr-defined]
    get, answers = cache.get, [long]

    async def late(*asked: Any) -> Any:
        return answers.pop() if answers else await get(*asked)

    monkeypatch.setattr(cache, "get", late)
    cert = (await offered.leaves.leaf(short, "web", "t")).cert
    assert (cert.not_after - cert.not_before, answers) == (3600, [])
    answers += [long] * 100
    with pytest.raises(InternalError, match="last longer than this token may have them"):
        await offered.leaves.leaf(short, "web", "t")
    assert len(answers) > 90
