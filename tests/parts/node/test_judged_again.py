"""The leader judges whoever asks when it acts, and again after everything that it has waited for: a token that is
deleted meanwhile, or a policy that is changed, leaves nothing done and nothing handed out.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from cluster.access.first import first_acl
from cluster.access.method_writers import MethodWriter
from cluster.access.secret_ids import new_key
from cluster.api.ca import Steering
from cluster.base.errors import PermissionDenied, TokenUnknown
from cluster.node.reseal import Resealer, seal_id
from cluster.rpc.messages import (
    ACL_BOOTSTRAP,
    ACL_DELETE,
    ACL_PUT,
    CONFIGURE,
    DISTRUST_ROOT,
    ROTATE,
    ROTATE_SEAL,
    SIGN,
    STEER_ROTATION,
    AclBootstrapRequest,
    AclDeleteRequest,
    AclPutRequest,
    ConfigureRequest,
    DistrustRequest,
    RotateSealRequest,
    RotationRequest,
    SignAnswer,
    SignRequest,
    SteerRequest,
)
from cluster.rpc.operation import Operation
from fsm.leaves import RecordLeaves
from tests.kit.csrs import serial, service_csr
from tests.kit.fake_cluster import Node
from tests.kit.wait import until


@dataclass
class Token:
    secret_id: str
    accessor_id: str
    policy_id: str


class Operator:
    """Has bootstrapped access control, and gives and takes rights."""

    def __init__(self, node: Node, secret_id: str) -> None:
        self.node = node
        self._secret_id = secret_id
        self._names = iter(range(1000))

    async def put(self, table: str, key: str, body: Mapping[str, object]) -> Any:
        request = AclPutRequest(table, key, json.dumps(body))
        return await self.node.operations.run(ACL_PUT, request, self._secret_id)

    async def token(self, rules: str) -> Token:
        name = f"policy-{next(self._names)}"
        policy = await self.put("policies", "", {"Name": name, "Rules": rules})
        made = await self.put("tokens", "", {"Policies": [{"ID": policy.key}]})
        return Token(made.secret_id, made.key, policy.key)

    async def delete(self, token: Token) -> None:
        request = AclDeleteRequest("tokens", token.accessor_id)
        await self.node.operations.run(ACL_DELETE, request, self._secret_id)

    async def deny(self, token: Token) -> None:
        await self.rules(token, 'service "web" { policy = "deny" }\noperator = "deny"\nacl = "deny"\n')

    async def rules(self, token: Token, rules: str) -> None:
        name = next(one.name for one in self.node.cluster.state.acl.policies if one.policy_id == token.policy_id)
        await self.put("policies", token.policy_id, {"ID": token.policy_id, "Name": name, "Rules": rules})


Ending = Callable[[Operator, Token], Awaitable[None]]
ENDINGS: Mapping[str, Ending] = {"deleted": Operator.delete, "denied": Operator.deny}
WEB = 'service "web" { policy = "write" }'


@pytest.fixture
async def operator(node: Node) -> Operator:
    key, bare = new_key(node.sealer)
    node.cluster.commit(first_acl(key, bare, int(node.clock.now())))
    made = await node.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))
    return Operator(node, made.secret_id)


def sign(node: Node, token: Token, number: int = 1) -> "asyncio.Task[SignAnswer]":
    request = SignRequest(service_csr(node.cluster.state.trust_domain), serial(number), "token:web")
    return asyncio.create_task(node.operations.run(SIGN, request, token.secret_id))


def records(node: Node) -> int:
    return sum(len(command.records) for command in node.cluster.committed if isinstance(command, RecordLeaves))


@pytest.mark.parametrize("ending", ENDINGS)
async def test_what_was_signed_meanwhile_is_not_recorded(operator: Operator, ending: str) -> None:
    """And what was signed beside it is."""
    node = operator.node
    token, other = await operator.token(WEB), await operator.token(WEB)
    node.worker.held.add("sign_leaves")
    calls = len(node.worker.calls)
    asked = [sign(node, token, 1), sign(node, other, 2)]
    await until(lambda: node.worker.calls[calls:].count("sign_leaves") >= 1)
    await ENDINGS[ending](operator, token)
    node.worker.gate.set()
    with pytest.raises(PermissionDenied):
        await asked[0]
    assert (await asked[1]).name == "web"
    assert records(node) == 1


@pytest.mark.parametrize("ending", ENDINGS)
async def test_what_was_recorded_meanwhile_is_not_handed_out(operator: Operator, ending: str) -> None:
    node = operator.node
    token, other = await operator.token(WEB), await operator.token(WEB)
    node.cluster.held.add(RecordLeaves)
    proposed = len(node.cluster.proposed)
    asked = [sign(node, token, 1), sign(node, other, 2)]
    await until(lambda: any(isinstance(one, RecordLeaves) for one in node.cluster.proposed[proposed:]))
    await ENDINGS[ending](operator, token)
    node.cluster.gate.set()
    with pytest.raises(PermissionDenied):
        await asked[0]
    assert (await asked[1]).name == "web"


async def test_change_that_takes_nothing_away_stops_no_signature(operator: Operator) -> None:
    node = operator.node
    token, other = await operator.token(WEB), await operator.token(WEB)
    node.worker.held.add("sign_leaves")
    calls = len(node.worker.calls)
    asked = sign(node, token)
    await until(lambda: "sign_leaves" in node.worker.calls[calls:])
    await operator.delete(other)
    await operator.rules(token, WEB + '\nservice "api" { policy = "write" }\n')
    node.worker.gate.set()
    assert (await asked).name == "web"
    assert records(node) == 1


OPERATIONS: Mapping[str, tuple[Operation[Any, Any], Callable[[Node], Any]]] = {
    "configure": (
        CONFIGURE,
        lambda node: ConfigureRequest(
            "consul",
            json.dumps({"LeafCertTTL": "50h"}),
            state=None,
            force_without_cross_signing=False,
            modify_index=0,
            is_staged=False,
            wait_seconds=0,
            request_id=b"1",
            ca_index=node.cluster.state.ca_index,
            is_repeat=False,
        ),
    ),
    "rotate": (
        ROTATE,
        lambda node: RotationRequest(None, None, False, False, 0, b"1", node.cluster.state.ca_index, False),
    ),
    "steer_rotation": (STEER_ROTATION, lambda _node: SteerRequest(Steering.ABORT)),
    "distrust_root": (DISTRUST_ROOT, lambda node: DistrustRequest(node.cluster.state.roots[0].root_id)),
    "rotate_seal": (ROTATE_SEAL, lambda node: RotateSealRequest(seal_id(node.cluster.state.seal).encode(), True)),
}


async def _nobody_is_asked(*_: object) -> None:
    pass


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_change_of_the_ca_is_judged_once_its_turn_has_come(
    operator: Operator, name: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Resealer, "_require_key_everywhere", _nobody_is_asked)
    node = operator.node
    token = await operator.token('operator = "write"')
    operation, request_of = OPERATIONS[name]
    async with node.changes.turn("RECONFIGURING", is_duty=True):
        asked = asyncio.create_task(node.operations.run(operation, request_of(node), token.secret_id))
        await until(lambda: node.changes._waiting == 1 or asked.done())
        await ENDINGS[ending](operator, token)
        before = node.cluster.state.ca_index
    with pytest.raises(PermissionDenied):
        await asked
    assert node.cluster.state.ca_index == before


@pytest.mark.parametrize("ending", ENDINGS)
async def test_auth_method_whose_keys_are_slow_is_not_written(
    operator: Operator, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come from wherever the method says: whoever writes it decides how long that takes."""
    token = await operator.token('acl = "write"')
    gate, began = asyncio.Event(), asyncio.Event()

    def set_method(*_: object) -> object:
        raise AssertionError("nothing is made of it")

    async def prepared(*_: object) -> object:
        began.set()
        await gate.wait()
        return None

    monkeypatch.setattr(MethodWriter, "prepared", prepared)
    monkeypatch.setattr(MethodWriter, "set_method", set_method)
    request = AclPutRequest("methods", "", json.dumps({"Name": "m", "Type": "jwt"}))
    asked = asyncio.create_task(operator.node.operations.run(ACL_PUT, request, token.secret_id))
    await began.wait()
    await ENDINGS[ending](operator, token)
    gate.set()
    with pytest.raises(PermissionDenied):
        await asked


@pytest.mark.parametrize("ending", ENDINGS)
async def test_write_that_another_one_overtakes_is_judged_again(operator: Operator, ending: str) -> None:
    """A write of access control is made anew when another came first, which may have been about whoever writes."""
    node = operator.node
    token = await operator.token('acl = "write"')
    role = await operator.put("roles", "", {"Name": "role"})
    kind = type(node.cluster.committed[-1])
    node.cluster.held.add(kind)
    proposed = len(node.cluster.proposed)
    change = AclPutRequest("roles", role.key, json.dumps({"ID": role.key, "Name": "second"}))
    asked = asyncio.create_task(node.operations.run(ACL_PUT, change, token.secret_id))
    await until(lambda: len(node.cluster.proposed) > proposed)
    await ENDINGS[ending](operator, token)
    node.cluster.held.clear()
    # What comes first.
    await operator.put("roles", role.key, {"ID": role.key, "Name": "first"})
    node.cluster.gate.set()
    with pytest.raises((PermissionDenied, TokenUnknown)):
        await asked
    assert [found.name for found in node.cluster.state.acl.roles] == ["first"]
