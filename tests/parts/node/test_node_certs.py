"""The leader's side of servers' certificates: the agent CA, join tokens, joining, renewal; over a real state."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import structs

from cluster.base.errors import (
    BadRequest,
    CommitUnknown,
    Conflict,
    NotLeader,
    NotReady,
    PermissionDenied,
    Refused,
    TokenUnknown,
)
from cluster.node import membership as membership_module
from cluster.node.reseal import Resealer, seal_id
from cluster.raft.membership import Member
from cluster.rpc.messages import (
    ACL_BOOTSTRAP,
    ACL_PUT,
    JOIN,
    JOIN_TOKEN,
    RENEW_NODE,
    SET_AGENT_CA,
    AclBootstrapRequest,
    AclPutRequest,
    AgentCARequest,
    JoinRequest,
    JoinTokenAnswer,
    JoinTokenRequest,
    RenewNodeRequest,
)
from cluster.rpc.operation import Message, Operation
from cluster.seal.sources import SealError
from cluster.tls.certificates import new_ca
from cluster.tls.join_proof import JoinStatement, prove, public_of
from cluster.tls.keys import KEY_BYTES, hash_of_certificate, public_part
from cluster.tls.node_certs import new_key, node_csr
from fsm.acl import DeleteTokens
from fsm.nodes import TakeJoinToken
from providers.errors import CSRRejected
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster, Fate, Node, bootstrapped, running
from tests.kit.wait import until

NOW: Final = datetime.now(UTC).replace(microsecond=0)
CA: Final = new_ca(NOW, 30)
KEY: Final = new_key()
CSR: Final = node_csr(KEY)


def key_of(name: str) -> bytes:
    return name.encode() * KEY_BYTES


def pinned(cluster: FakeCluster) -> None:
    cluster.members = {
        name: replace(known, rpc_address=f"127.0.0.1:10{k}", keys=(key_of(name),))
        for k, (name, known) in enumerate(cluster.members.items())
    }


@pytest.fixture
async def leader(cluster: FakeCluster) -> AsyncIterator[Node]:
    """Whose clock is right: certificates are judged by the TLS library, too."""
    pinned(cluster)
    node = Node(cluster, "a", clock=FakeClock(float(int(time.time()))))
    async with running(node):
        await bootstrapped(node)
        await until(lambda: cluster.state.acl.key is not None)
        yield node


async def give_ca(node: Node, ttl: int = 3600) -> None:
    await node.operations.run(SET_AGENT_CA, AgentCARequest(CA.cert_pem, CA.key_pem, ttl))


async def token(node: Node, name: str = "d", **changes: Any) -> JoinTokenAnswer:
    asked: dict[str, Any] = {
        "raft_address": "127.0.0.1:9", "rpc_address": "127.0.0.1:8", "ttl_seconds": 600, "is_rejoin": False,
        "is_forced": False, **changes,
    }  # fmt: skip
    return await node.operations.run(JOIN_TOKEN, JoinTokenRequest(name, **asked))


def ask(secret: str, **changes: Any) -> JoinRequest:
    """By a machine that has met the server a, which brings it."""
    values = {
        "name": "d", "raft_address": "127.0.0.1:9", "rpc_address": "127.0.0.1:8", "csr_pem": CSR,
        "server_key": public_part(key_of("a")), "through": "a", **changes,
    }  # fmt: skip
    through = values.pop("through")
    return JoinRequest(**values, proof=prove(secret, JoinStatement(**values)), through=through)


async def join(node: Node, secret: str, **changes: Any) -> x509.Certificate:
    return await bring(node, ask(secret, **changes))


async def bring(node: Node, request: JoinRequest) -> x509.Certificate:
    answer = await node.operations.run(JOIN, request)
    return x509.load_pem_x509_certificate(answer.cert_pem.encode())


# -- the agent CA


async def test_key_is_sealed_and_nowhere_else(leader: Node) -> None:
    await give_ca(leader)
    held = leader.cluster.state.nodes.agent_ca
    assert held is not None
    assert held.cert_pem == CA.cert_pem
    secret = CA.key_pem.splitlines()[1].encode()
    assert secret not in held.sealed
    assert not any(secret in str(event).encode() for event in leader.log.events)
    with pytest.raises(SealError):
        leader.sealer.open_bare("the key of the agent CA", held.sealed)  # not even on this node


async def test_processes_that_have_had_it_end_with_the_leadership(leader: Node) -> None:
    await give_ca(leader)
    await join(leader, (await token(leader)).secret)
    leader.pool._setups.clear()  # as if they had had nothing else
    leader.pool._sent.intersection_update({"the agent CA"})
    generation = leader.worker.generation
    leader.pool.renew()
    assert leader.worker.generation == generation + 1
    with pytest.raises(NotLeader):
        await leader.pool.sign_node({}, "", "", (), (), "", 0, 0)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (AgentCARequest(CA.cert_pem, new_ca(NOW, 30).key_pem, 3600), "does not belong"),
        (AgentCARequest("x", CA.key_pem, 3600), "must be one certificate"),
        (AgentCARequest(CA.cert_pem, "x", 3600), "cannot be used"),
        (AgentCARequest(CA.cert_pem, CA.key_pem, 4), "NodeCertTTL is 4s"),
        (AgentCARequest(CA.cert_pem, CA.key_pem, 1 << 40), "NodeCertTTL is"),
        (AgentCARequest(CA.cert_pem, "", 3600), "cannot be used"),
    ],
)
async def test_ca_that_could_not_sign_is_refused_and_its_key_not_repeated(
    leader: Node, request_: AgentCARequest, text: str
) -> None:
    with pytest.raises(BadRequest, match=text) as refused:
        await leader.operations.run(SET_AGENT_CA, request_)
    assert leader.cluster.state.nodes.agent_ca is None
    assert "PRIVATE" not in str(refused.value)


async def test_ca_that_the_servers_do_not_trust_is_refused(leader: Node) -> None:
    leader.cluster.anchors = frozenset({b"x" * 32})
    with pytest.raises(BadRequest, match=r"tls\.ca_file"):
        await give_ca(leader)
    der = x509.load_pem_x509_certificate(CA.cert_pem.encode()).public_bytes(Encoding.DER)
    leader.cluster.anchors = frozenset({hash_of_certificate(der)})
    await give_ca(leader)


async def test_it_is_sealed_again_with_another_data_key_and_signs_as_before(leader: Node) -> None:
    await give_ca(leader)
    before = leader.cluster.state.nodes.agent_ca
    leader.cluster.members = {"a": leader.cluster.members["a"]}  # nobody else has to have the seal key
    await Resealer(leader.parts, leader.peers, "a").rotate(seal_id(leader.cluster.state.seal), keeps_key=True)
    after = leader.cluster.state.nodes.agent_ca
    assert before is not None
    assert after is not None
    assert (after.cert_pem, after.sealed != before.sealed) == (before.cert_pem, True)
    await join(leader, (await token(leader)).secret)


async def test_without_one_nothing_is_made_and_it_says_what_to_do(leader: Node) -> None:
    with pytest.raises(Refused, match="quorumca operator agent-ca"):
        await token(leader)
    with pytest.raises(Refused, match="quorumca operator agent-ca"):
        await leader.operations.run(RENEW_NODE, RenewNodeRequest(CSR, "", "b"))
    await give_ca(leader)
    secret = (await token(leader)).secret
    await leader.operations.run(SET_AGENT_CA, AgentCARequest("", "", 0))
    with pytest.raises(PermissionDenied):
        await join(leader, secret)


async def test_while_a_server_may_be_of_the_release_before_nothing_of_it_is_written(cluster: FakeCluster) -> None:
    node = Node(cluster, "a", clock=FakeClock(float(int(time.time()))))
    async with running(node):
        await bootstrapped(node)
        assert not node.replica.admission.is_pinned
        with pytest.raises(NotReady):
            await give_ca(node)
        with pytest.raises(NotReady):
            await token(node)
        assert cluster.state.nodes_index == 0


# -- tokens


async def test_only_the_public_half_of_a_token_is_kept(leader: Node) -> None:
    await give_ca(leader)
    made = await token(leader, raft_address="127.0.0.1:9")
    [kept] = leader.cluster.state.nodes.join_tokens
    assert made.secret.encode() not in repr(leader.cluster.state).encode()
    assert not any(made.secret in str(event) for event in leader.log.events)
    assert (kept.name, kept.raft_address, kept.expires_at) == ("d", "127.0.0.1:9", int(leader.clock.now()) + 600)
    assert len(made.secret) == 64
    assert kept.public_key == public_of(made.secret)
    assert kept.made_by is None


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "D"}, BadRequest),
        ({"name": "a.b"}, BadRequest),
        ({"name": ""}, BadRequest),
        ({"ttl_seconds": 59}, BadRequest),
        ({"ttl_seconds": 3601}, BadRequest),
        ({"raft_address": "nowhere"}, BadRequest),
        ({"rpc_address": "a b:1"}, BadRequest),
        ({"raft_address": ""}, BadRequest),
        ({"rpc_address": ""}, BadRequest),
        ({"rpc_address": "127.0.0.1:9"}, BadRequest),
        ({"name": "b"}, Refused),
        ({"is_rejoin": True}, Refused),
    ],
)
async def test_token_that_would_be_of_no_use_is_not_made(
    leader: Node, changes: dict[str, Any], error: type[Exception]
) -> None:
    await give_ca(leader)
    with pytest.raises(error):
        await token(leader, **changes)
    assert leader.cluster.state.nodes.join_tokens == ()


@pytest.mark.parametrize("name", ["a", "b"])
async def test_server_that_is_heard_from_is_not_replaced_unless_that_is_meant(leader: Node, name: str) -> None:
    await give_ca(leader)
    leader.replica.contact_age_seconds = {"c": 5.0}
    with pytest.raises(Refused, match="-force"):
        await token(leader, name, is_rejoin=True)
    await token(leader, name, is_rejoin=True, is_forced=True)
    await token(leader, "c", is_rejoin=True)


# -- joining


async def test_newcomer_is_a_learner_under_the_key_that_it_has_shown(leader: Node) -> None:
    await give_ca(leader, ttl=7200)
    cert = await join(leader, (await token(leader)).secret)
    assert cert.not_valid_after_utc.timestamp() == int(leader.clock.now()) + 7200
    member = leader.cluster.members["d"]
    der = cert.public_bytes(Encoding.DER)
    assert (member.is_voter, member.raft_address, member.rpc_address) == (False, "127.0.0.1:9", "127.0.0.1:8")
    assert [public_part(key) for key in member.keys] == [hash_of_certificate(der)]
    assert leader.cluster.state.nodes.join_tokens == ()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "e"}, PermissionDenied),
        ({"raft_address": "127.0.0.1:7"}, PermissionDenied),
        ({"raft_address": "x"}, BadRequest),
        ({"rpc_address": "127.0.0.1:9"}, PermissionDenied),
        ({"rpc_address": "127.0.0.1:101"}, PermissionDenied),
        ({"csr_pem": "x"}, CSRRejected),
        ({"secret": "0" * 64}, PermissionDenied),
        ({"secret": ""}, PermissionDenied),
    ],
)
async def test_what_is_refused_leaves_the_token_good(
    leader: Node, changes: dict[str, Any], error: type[Exception]
) -> None:
    await give_ca(leader)
    secret = (await token(leader, raft_address="127.0.0.1:9")).secret
    with pytest.raises(error):
        await join(leader, **{"secret": secret, **changes})
    assert set(leader.cluster.members) == {"a", "b", "c"}
    assert not any(isinstance(command, TakeJoinToken) for command in leader.cluster.proposed), "the log hears of it"
    await join(leader, secret)


async def test_what_was_captured_with_a_removed_servers_key_is_of_no_use(leader: Node) -> None:
    """Somebody has had a machine ask at a join port of their own, with the certificate of a server that was removed.
    Now they have what it sent, and bring it to real servers, as it is and with whatever they can change.
    """
    await give_ca(leader)
    secret = (await token(leader)).secret
    captured = ask(secret, server_key=public_part(key_of("removed")), through="a")
    theirs = node_csr(new_key())
    for through in ("a", "b", "c", "removed", ""):
        for changes in (
            {},
            {"csr_pem": theirs},
            {"server_key": public_part(key_of("a"))},
            {"server_key": public_part(key_of("b")), "csr_pem": theirs},
            {"proof": bytes(64)},
            {"raft_address": "127.0.0.1:7"},
        ):
            with pytest.raises(PermissionDenied):
                await bring(leader, structs.replace(captured, **{"through": through, **changes}))
    assert "d" not in leader.cluster.members
    assert not any(isinstance(command, TakeJoinToken) for command in leader.cluster.proposed)
    await join(leader, secret)


async def test_machine_may_have_met_any_server_of_the_cluster_and_it_counts_by_the_key_of_that_one(
    leader: Node,
) -> None:
    await give_ca(leader)
    secret = (await token(leader)).secret
    with pytest.raises(PermissionDenied, match="a key that is not that of b"):
        await join(leader, secret, through="b")  # with the key of a
    leader.cluster.members = {
        **leader.cluster.members,
        "b": replace(leader.cluster.members["b"], keys=(key_of("b"), key_of("next"))),
    }
    await join(leader, secret, through="b", server_key=public_part(key_of("next")))


def test_whoever_brings_a_machines_request_is_the_server_that_it_has_met() -> None:
    told = JOIN.as_told_by(ask("x", through="a"), "b")
    assert told == ask("x", through="b")


async def test_token_that_was_taken_away_makes_no_join_token_any_more(leader: Node) -> None:
    await give_ca(leader)
    made = await leader.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))
    request = JoinTokenRequest("d", "127.0.0.1:9", "127.0.0.1:8", 600, False, False)
    secret = (await leader.operations.run(JOIN_TOKEN, request, secret_id=made.secret_id)).secret
    [kept] = leader.cluster.state.nodes.join_tokens
    assert kept.made_by == made.key
    leader.cluster.commit(DeleteTokens((made.key,)))
    with pytest.raises(PermissionDenied):
        await join(leader, secret)
    assert not any(isinstance(command, TakeJoinToken) for command in leader.cluster.proposed)


async def test_whoever_has_waited_is_judged_again_before_anything_is_written(leader: Node) -> None:
    made = await leader.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))
    leader.worker.held.add("check_agent_ca")
    request = AgentCARequest(CA.cert_pem, CA.key_pem, 3600)
    waiting = asyncio.create_task(leader.operations.run(SET_AGENT_CA, request, secret_id=made.secret_id))
    await until(lambda: "check_agent_ca" in leader.worker.calls)
    leader.cluster.commit(DeleteTokens((made.key,)))
    leader.worker.gate.set()
    with pytest.raises(TokenUnknown):
        await waiting
    assert leader.cluster.state.nodes.agent_ca is None


async def test_leader_may_do_it_for_whoever_manages_rights_and_for_no_operator(leader: Node) -> None:
    made = await leader.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))
    rules = AclPutRequest("policies", "", '{"Name": "p", "Rules": "operator = \\"write\\""}')
    await leader.operations.run(ACL_PUT, rules, secret_id=made.secret_id)
    wanted = AclPutRequest("tokens", "", '{"Policies": [{"Name": "p"}]}')
    operator = await leader.operations.run(ACL_PUT, wanted, secret_id=made.secret_id)
    asked: list[tuple[Operation[Any, Any], Message]] = [
        (SET_AGENT_CA, AgentCARequest(CA.cert_pem, CA.key_pem, 3600)),
        (JOIN_TOKEN, JoinTokenRequest("d", "127.0.0.1:9", "127.0.0.1:8", 600, False, False)),
    ]
    for operation, request in asked:
        with pytest.raises(PermissionDenied, match="acl:write"):
            await leader.operations.run(operation, request, secret_id=operator.secret_id)
        await leader.operations.run(operation, request, secret_id=made.secret_id)


async def test_server_that_has_come_back_by_itself_is_not_replaced_by_a_token_for_its_absence(leader: Node) -> None:
    await give_ca(leader)
    known = leader.cluster.members["b"]
    where = {"name": "b", "raft_address": known.raft_address, "rpc_address": known.rpc_address}
    leader.replica.contact_age_seconds = {"b": 5.0}
    secret = (await token(leader, is_rejoin=True, **where)).secret
    leader.replica.contact_age_seconds = {}
    with pytest.raises(Refused, match="-force"):
        await join(leader, secret, **where)
    assert leader.cluster.members["b"] == known
    forced = (await token(leader, is_rejoin=True, is_forced=True, **where)).secret
    await join(leader, forced, **where)


async def test_address_of_another_server_leaves_the_token_good(leader: Node) -> None:
    await give_ca(leader)
    secret = (await token(leader, rpc_address="127.0.0.1:101")).secret
    with pytest.raises(Refused, match="is an address of the server b"):
        await join(leader, secret, rpc_address="127.0.0.1:101")
    assert not any(isinstance(command, TakeJoinToken) for command in leader.cluster.proposed)


async def test_token_expires(leader: Node) -> None:
    await give_ca(leader)
    secret = (await token(leader)).secret
    leader.clock.advance(600)
    with pytest.raises(PermissionDenied, match="expired"):
        await join(leader, secret)
    assert not any(isinstance(command, TakeJoinToken) for command in leader.cluster.proposed)


@pytest.mark.parametrize("is_rejoin", [False, True])
async def test_of_fifty_at_once_one_gets_a_certificate(leader: Node, is_rejoin: bool) -> None:
    """Where it is for a server that is one already, nothing but the token keeps the others out."""
    await give_ca(leader)
    known = leader.cluster.members["b"]
    where = {"name": "b", "raft_address": known.raft_address, "rpc_address": known.rpc_address} if is_rejoin else {}
    leader.replica.contact_age_seconds = {"b": 5.0}
    secret = (await token(leader, is_rejoin=is_rejoin, **where)).secret
    answers = await asyncio.gather(*(join(leader, secret, **where) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(answer, x509.Certificate) for answer in answers) == 1
    assert all(isinstance(answer, x509.Certificate | PermissionDenied | Conflict) for answer in answers), answers


async def test_token_that_was_used_up_for_nothing_is_said_to_be(leader: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server was added between the look and the log."""
    monkeypatch.setattr(membership_module, "_PATIENCE_SECONDS", 0.0)
    await give_ca(leader)
    secret = (await token(leader)).secret
    leader.replica.membership_refusals = 1
    with pytest.raises(Refused, match="the token is used up"):
        await join(leader, secret)
    assert leader.cluster.state.nodes.join_tokens == ()


@pytest.mark.parametrize("fate", [Fate.LOST_AFTER, Fate.UNKNOWN, Fate.LOST_BEFORE])
async def test_nobody_has_a_certificate_before_the_token_is_known_to_be_taken(leader: Node, fate: Fate) -> None:
    await give_ca(leader)
    secret = (await token(leader)).secret
    leader.cluster.on_propose = lambda command: fate if isinstance(command, TakeJoinToken) else Fate.COMMITTED
    with pytest.raises(CommitUnknown):
        await join(leader, secret)
    assert "d" not in leader.cluster.members


async def test_only_the_leader_does_it(leader: Node) -> None:
    await give_ca(leader)
    secret = (await token(leader)).secret
    leader.cluster.elect("b")
    with pytest.raises(NotLeader):
        await join(leader, secret)


# -- coming back, and renewal


async def test_server_comes_back_by_a_token_for_that_and_its_former_key_is_nobodys(leader: Node) -> None:
    await give_ca(leader)
    known = leader.cluster.members["b"]
    where = {"name": "b", "raft_address": known.raft_address, "rpc_address": known.rpc_address}
    leader.replica.contact_age_seconds = {"b": 5.0}
    secret = (await token(leader, "b", is_rejoin=True, raft_address="", rpc_address="")).secret
    with pytest.raises(Refused, match="is a server at"):
        await join(leader, secret, **{**where, "rpc_address": "127.0.0.1:8"})
    cert = await join(leader, secret, **where)
    member = leader.cluster.members["b"]
    assert member == replace(known, keys=member.keys)
    assert [public_part(key) for key in member.keys] == [hash_of_certificate(cert.public_bytes(Encoding.DER))]


async def test_token_for_a_newcomer_does_not_take_the_place_of_a_server(leader: Node) -> None:
    """The name may have become a server's since the token was made."""
    await give_ca(leader)
    secret = (await token(leader)).secret
    keys = (b"k" * KEY_BYTES,)
    leader.cluster.members = {**leader.cluster.members, "d": Member("d", "127.0.0.1:9", "127.0.0.1:8", True, keys)}
    with pytest.raises(Conflict):
        await join(leader, secret)
    assert leader.cluster.members["d"].keys == keys


async def known_by_its_key(leader: Node) -> Member:
    """A fourth, which has joined."""
    await give_ca(leader)
    await join(leader, (await token(leader)).secret)
    return leader.cluster.members["d"]


async def test_server_renews_for_the_key_that_is_pinned(leader: Node) -> None:
    member = await known_by_its_key(leader)
    leader.clock.advance(100)
    answer = await leader.operations.run(RENEW_NODE, RenewNodeRequest(CSR, "", "d"))
    cert = x509.load_pem_x509_certificate(answer.cert_pem.encode())
    assert cert.not_valid_after_utc.timestamp() == int(leader.clock.now()) + 3600
    assert leader.cluster.members["d"] == member, "no pin moves"


@pytest.mark.parametrize("name", ["b", "x", ""])
async def test_nobody_renews_for_another(leader: Node, name: str) -> None:
    await known_by_its_key(leader)
    with pytest.raises((Refused, CSRRejected)):
        await leader.operations.run(RENEW_NODE, RenewNodeRequest(CSR, "", name))


async def test_no_other_key_comes_in_by_a_renewal(leader: Node) -> None:
    await known_by_its_key(leader)
    with pytest.raises(CSRRejected, match="another key than the one that is pinned"):
        await leader.operations.run(RENEW_NODE, RenewNodeRequest(node_csr(new_key()), "", "d"))


def test_whoever_brings_a_renewal_says_nothing_about_whose_it_is() -> None:
    told = RENEW_NODE.as_told_by(RenewNodeRequest(CSR, "present", "a"), "b")
    assert told == RenewNodeRequest(CSR, "present", "b")
