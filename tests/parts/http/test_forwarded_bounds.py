"""What HTTP takes, the leader understands: no field is longer than what it may be between servers.

Else the same request is a mistake of the client on the leader, and an error of the cluster on every other node.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from cluster.access.inputs import MAX_BEARER_TOKEN
from cluster.access.methods.tls import MAX_PROOF
from cluster.api.service import Service
from cluster.base.errors import ClusterError, InternalError, NoLeader
from cluster.base.requester import recorded
from cluster.http import join as join_module
from cluster.http.body import MAX_BODY_BYTES
from cluster.node.acl import NodeAcl
from cluster.node.ca import NodeCA
from cluster.node.joining import NodeJoining
from cluster.node.servers import NodeServers
from cluster.rpc import messages
from cluster.rpc.envelope import MAX_RPC_BYTES, Asked, pack_requests
from cluster.rpc.operation import VERSION, Judged, NotUnderstood, Operation
from providers.pki.csr import MAX_CSR_BYTES
from tests.kit.acl_samples import uuid
from tests.kit.callers import MANAGER
from tests.kit.clock import FakeClock
from tests.kit.fake_service import FakeService
from tests.parts.http import conftest
from tests.parts.http.conftest import Running, Start

LENGTHS: Final = (1, 63, 64, 128, 129, 256, 257, 512, 513, 4096, 4097, 49_152, 49_153, 65_536, 65_537, 262_144, 500_000)
ENTRIES: Final = (64, 65, 1024, 1025, 20_000)
#: In a body of half a megabyte, and several times as long when they are written out.
NUMBERS: Final = "[" + ",".join(["1e15"] * 100_000) + "]"
MARK: Final = "1e15-many"


class Leader:
    """A forwarder whose leader understands a request or not, and does none."""

    def __init__(self) -> None:
        self.understood: set[str] = set()

    async def call(self, operation: Operation[Any, Any], request: Any, *_: Any, **__: Any) -> Any:
        packed = operation.request.pack(request, VERSION)
        try:
            operation.request.unpack(packed, VERSION)
        except NotUnderstood as error:
            raise InternalError(f"the request for operation {operation.name!r} is not understood: {error}") from None
        if len(pack_requests(operation, [Asked(request)], 1, VERSION)) > MAX_RPC_BYTES:
            raise InternalError(f"the request for operation {operation.name!r} is too large")
        self.understood.add(operation.name)
        raise NoLeader("No cluster leader")


LEADER: Final = Leader()


class Following(FakeService):
    """Forwards by itself what clients write."""

    @property
    def service(self) -> Service:
        forwarder: Any = LEADER
        reads: Any = self
        nothing: Any = None
        return replace(
            super().service,
            acl=NodeAcl(reads, forwarder, FakeClock()),
            ca=NodeCA(reads, forwarder),
            servers=NodeServers(nothing, forwarder, nothing),
            joining=NodeJoining(self.config, nothing, reads, forwarder),
        )


@dataclass(frozen=True)
class Asking:
    """A good request. In its path each `{}` is a text, in its body each text, object and list."""

    path: str
    body: dict[str, Any] = field(default_factory=dict)
    method: str = "PUT"


ASKED: Final = {
    "configure": Asking(
        "/v1/connect/ca/configuration", {"Provider": "consul", "Config": {"a": "x"}, "State": {"a": "x"}}
    ),
    "plan_rotation": Asking("/v1/connect/ca/rotation", {"Action": "plan", "PrivateKeyType": "ec"}),
    "rotate": Asking("/v1/connect/ca/rotation", {"Action": "rotate", "PrivateKeyType": "ec", "Staged": True}),
    "steer_rotation": Asking("/v1/connect/ca/rotation", {"Action": "activate"}),
    "distrust_root": Asking("/v1/connect/ca/roots/{}", method="DELETE"),
    "transfer": Asking("/v1/operator/raft/transfer-leader?id={}"),
    "add_peer": Asking("/v1/operator/raft/peer", {"ID": "n4", "Address": "h:1", "RPC": "h:2"}),
    "remove_peer": Asking("/v1/operator/raft/peer?id={}", method="DELETE"),
    "remove_peer ": Asking("/v1/operator/raft/peer?address={}", method="DELETE"),
    "acl_put": Asking("/v1/acl/policy", {"Name": "p", "Rules": "", "Datacenters": ["dc1"]}),
    "acl_put ": Asking("/v1/acl/auth-method/{}", {"Type": "jwt", "Config": {"JWKSURL": "https://a"}}),
    "acl_delete": Asking("/v1/acl/auth-method/{}", method="DELETE"),
    "acl_clone": Asking(f"/v1/acl/token/{uuid(1)}/clone", {"Description": "d"}),
    "acl_bootstrap": Asking("/v1/acl/bootstrap", {"BootstrapSecret": "s"}),
    "acl_login": Asking("/v1/acl/login", {"AuthMethod": "m", "BearerToken": "t", "Meta": {"a": "x"}}),
    "set_agent_ca": Asking("/v1/operator/agent-ca", {"Certificate": "c", "PrivateKey": "k"}),
    "join_token": Asking("/v1/operator/join-token", {"Name": "n4", "Address": "h:1", "RPC": "h:2"}),
}
#: Whose requests no client writes, or which have a test of their own below.
OTHERS: Final = {
    "sign": "below",
    "join": "below",
    "rotate_seal": "of what the node knows",
    "rotation_uptake": "asks nothing",
    "acl_logout": "asks nothing",
    "restore_rows": "of a snapshot",
    "restore_proven_rows": "of a snapshot",
    "restore_ca": "of a snapshot",
    "restore_checked": "of a snapshot",
    "restore_judged": "of a snapshot",
}


def of_client() -> set[str]:
    found = [value for value in vars(messages).values() if isinstance(value, Operation)]
    return {operation.name for operation in found if operation.needs is not Judged.BETWEEN_SERVERS}


def test_operations_that_are_tried_are_all_that_clients_ask_for() -> None:
    assert {name.strip() for name in ASKED} | set(OTHERS) == of_client()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is a text, an object or a list."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if path and isinstance(value, str | dict | list):
        yield path
    for key, member in members:
        yield from places(member, (*path, key))


def wild(value: Any) -> Iterator[Any]:
    if isinstance(value, str):
        for length in LENGTHS:
            yield "x" * length
        yield "\u00e9" * 250_000
    else:
        yield MARK
        for count in ENTRIES:
            if isinstance(value, dict):
                yield {str(number): "x" for number in range(count)}
            else:
                yield ["x"] * count
    if isinstance(value, dict):
        for length in LENGTHS:
            yield {"k" * length: "x"}
            yield {"k": "x" * length}
        yield {"k": MARK}


def changed(body: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found = deepcopy(body)
    place: Any = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return found


def bodies(body: dict[str, Any]) -> Iterator[bytes]:
    for path in places(body):
        place: Any = body
        for key in path:
            place = place[key]
        for value in wild(place):
            text = json.dumps(changed(body, path, value), ensure_ascii=False).replace(json.dumps(MARK), NUMBERS)
            if len(text.encode()) <= MAX_BODY_BYTES:
                yield text.encode()


@pytest.fixture
async def following(start: Start, monkeypatch: pytest.MonkeyPatch) -> Running:
    monkeypatch.setattr(conftest, "FakeService", Following)
    LEADER.understood.clear()
    running: Running = await start(limits={"refused_per_source": 0})
    return running


@pytest.mark.parametrize("name", ASKED)
async def test_what_http_takes_the_leader_understands(following: Running, name: str) -> None:
    asking = ASKED[name]
    requests = [(asking.path.format("x"), json.dumps(asking.body).encode())]
    if "{}" in asking.path:
        requests += [(asking.path.format("x" * length), requests[0][1]) for length in LENGTHS if length < 8000]
        requests += [(asking.path.format("x" * 8000), requests[0][1])]
    requests += [(asking.path.format("x"), body) for body in bodies(asking.body)]
    headers = {"X-Consul-Token": MANAGER.secret_id}
    statuses = []
    for path, body in requests:
        reply = await following.ask(asking.method, path, data=body, headers=headers)
        assert reply.status in (400, 503), (path[:80], body[:200], len(body), reply.status, reply.text[:300])
        statuses.append(reply.status)
        if reply.status == 400:
            assert "is not understood" not in reply.text
    assert statuses[0] == 503
    assert LEADER.understood == {name.strip()}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"BearerToken": "x" * 70_000}, "BearerToken has 70000 characters: at most 49152 are allowed"),
        ({"Meta": {str(k): "x" for k in range(1100)}}, "Meta has 1100 entries: at most 64 are allowed"),
        ({"Meta": {"k" * 129: "x"}}, "at most 128 characters are allowed in a key, and 512 in a value"),
        ({"Meta": {"k": "x" * 513}}, "Meta 'k': at most 128 characters are allowed in a key, and 512 in a value"),
        ({"Meta": {str(k): "x" * 512 for k in range(64)}}, "characters: at most"),
    ],
)
async def test_login_that_no_leader_would_understand_is_refused_where_it_is_asked_and_counts(
    start: Start, monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(conftest, "FakeService", Following)
    LEADER.understood.clear()
    following: Running = await start(limits={"refused_per_source": 0.2})
    for _ in range(2):
        reply = await following.put("/v1/acl/login", {"AuthMethod": "m", "BearerToken": "t", **body})
        assert (reply.status, reply.text.startswith("Failed to decode request body: ")) == (400, True)
        assert said in reply.text
        assert "xxx" not in reply.text
    assert (await following.put("/v1/acl/login", {"AuthMethod": "m", **body})).status == 429
    assert LEADER.understood == set()


def test_longest_proof_of_any_method_is_taken() -> None:
    assert MAX_BEARER_TOKEN == MAX_PROOF


def joining(tmp_path: Path) -> tuple[dict[str, Any], Any]:
    (tmp_path / "ca.pem").write_text("a CA")
    config: Any = SimpleNamespace(tls=SimpleNamespace(ca_file=str(tmp_path / "ca.pem")), node_name="a")
    nothing: Any = None
    forwarder: Any = LEADER
    asked = {"Name": "d", "Address": "h:9", "RPC": "h:8", "CSR": "c", "ServerKey": "ab" * 32, "Proof": "cd" * 64}
    return asked, NodeJoining(config, nothing, nothing, forwarder)


async def test_what_the_join_port_takes_the_leader_understands(tmp_path: Path) -> None:
    asked, node = joining(tmp_path)
    statuses = set()
    for body in (json.dumps(asked).encode(), *bodies(asked)):
        with pytest.raises(ClusterError) as caught:
            await node.join(join_module._ask(body))
        statuses.add(caught.value.http_status)
        assert caught.value.http_status in (400, 503), (body[:200], len(body), str(caught.value))
    assert statuses == {400, 503}


@pytest.mark.parametrize("name", ["Name", "Address", "RPC", "CSR"])
def test_join_port_says_which_field_is_too_long(tmp_path: Path, name: str) -> None:
    asked, _ = joining(tmp_path)
    with pytest.raises(ClusterError, match=rf"^{name} has 200000 characters: at most \d+ are allowed$"):
        join_module._ask(json.dumps({**asked, name: "x" * 200_000}).encode())


def test_longest_csr_that_is_to_be_signed_is_understood() -> None:
    request = messages.SignRequest("x" * MAX_CSR_BYTES, bytes(16), recorded("x" * 10_000))
    packed = messages.SIGN.request.pack(request, VERSION)
    assert messages.SIGN.request.unpack(packed, VERSION) == request
