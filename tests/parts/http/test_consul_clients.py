"""What Consul's clients ask for besides: members, as far as a token may read them; the end of a login; namespaces."""

import asyncio

import pytest

from cluster.access.authorizer import Authorizer
from cluster.access.rules import parse_rules
from cluster.api.access import Caller
from cluster.api.reads import ReadLevel
from cluster.api.servers import ClusterInfo
from tests.kit.acl_samples import uuid
from tests.kit.callers import MANAGER
from tests.parts.http.conftest import Running

MEMBERS = "/v1/agent/members"
FILTERED = "X-Consul-Results-Filtered-By-ACLs"
ALL = ["n1", "n2", "n3"]


def admit(api: Running, rules: str, *, is_anonymous: bool = False) -> dict[str, str]:
    """The headers of a caller who has these rights and no others."""
    secret_id = "" if is_anonymous else uuid(77)
    authorizer = Authorizer(parse_rules(rules), allows_by_default=False)
    api.service.callers[secret_id] = Caller(secret_id, uuid(7), authorizer, is_anonymous=is_anonymous)
    return {} if is_anonymous else {"X-Consul-Token": secret_id}


@pytest.mark.parametrize(
    ("rules", "status"),
    [('operator = "read"', 200), ('service_prefix "" { policy = "write" }', 403), ('acl = "write"', 403)],
)
async def test_what_a_token_was_used_for_is_for_operators(api: Running, rules: str, status: int) -> None:
    reply = await api.get(f"/v1/connect/ca/certs?accessor={uuid(7)}", headers=admit(api, rules))
    assert reply.status == status


async def test_member_is_shown_as_consul_shows_it(api: Running) -> None:
    found = (await api.get(MEMBERS)).json()
    assert [member["Name"] for member in found] == ALL
    address = api.service.config.servers[0].raft
    host, _, port = address.rpartition(":")
    build = found[0]["Tags"].pop("build")
    assert build
    assert found[0] == {
        "Name": "n1",
        "Addr": host,
        "Port": int(port),
        "Tags": {"dc": "dc1", "role": "quorumca"},
        "Status": 1,
        "ProtocolMin": 0,
        "ProtocolMax": 0,
        "ProtocolCur": 0,
        "DelegateMin": 0,
        "DelegateMax": 0,
        "DelegateCur": 0,
    }
    own = (await api.get("/v1/agent/self")).json()["Member"]
    assert own.keys() == found[0].keys()


@pytest.mark.parametrize(
    ("rules", "seen"),
    [
        ("", []),
        ('node "n2" { policy = "read" }', ["n2"]),
        ('node "n2" { policy = "write" }', ["n2"]),
        ('node_prefix "n" { policy = "read" } node "n3" { policy = "deny" }', ["n1", "n2"]),
        ('node_prefix "" { policy = "read" }', ALL),
        ('agent_prefix "" { policy = "write" } operator = "write" acl = "write"', []),
        ('node "n22" { policy = "read" }', []),
    ],
)
@pytest.mark.parametrize("is_anonymous", [False, True])
async def test_only_what_the_token_may_read(api: Running, rules: str, seen: list[str], *, is_anonymous: bool) -> None:
    reply = await api.get(MEMBERS, headers=admit(api, rules, is_anonymous=is_anonymous))
    assert (reply.status, [member["Name"] for member in reply.json()]) == (200, seen)
    # To nobody it is told that there are more.
    told = "true" if seen != ALL and not is_anonymous else None
    assert reply.headers.get(FILTERED) == told


async def test_status_is_what_the_leader_knows(api: Running) -> None:
    api.service.is_healthy = False  # n3, which was never heard of
    assert [member["Status"] for member in (await api.get(MEMBERS)).json()] == [1, 1, 0]
    assert api.service.calls[-1] == ("cluster", (ReadLevel.LINEARIZABLE,))


async def test_without_a_leader_the_node_says_what_it_knows_itself(api: Running) -> None:
    api.service.has_leader = False
    assert [member["Name"] for member in (await api.get(MEMBERS)).json()] == ALL
    assert api.service.calls[-1] == ("cluster", (ReadLevel.STALE,))


async def test_leader_that_hangs_is_not_waited_for(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = type(api.service).cluster

    async def hangs(self: object, level: ReadLevel) -> ClusterInfo:
        if level is ReadLevel.LINEARIZABLE:
            await asyncio.sleep(60)
        return await cluster(api.service, level)

    monkeypatch.setattr("cluster.http.routes.agent._FRESHNESS_SECONDS", 0.01)
    monkeypatch.setattr(type(api.service), "cluster", hangs)
    assert len((await api.get(MEMBERS)).json()) == 3


@pytest.mark.parametrize(
    ("query", "status", "count"),
    [
        ("wan=1", 200, 3),
        ("segment=", 200, 3),
        ("segment=_all", 200, 3),
        ("wan=1&segment=_all", 200, 3),
        ("segment=alpha", 200, 0),
        ("wan=1&segment=alpha", 400, 0),
        ("wan=&segment=alpha", 200, 0),
    ],
)
async def test_segments_and_datacenters(api: Running, query: str, status: int, count: int) -> None:
    reply = await api.get(f"{MEMBERS}?{query}")
    assert reply.status == status
    if status == 200:
        assert len(reply.json()) == count
        assert FILTERED not in reply.headers
    else:
        assert reply.text == "Cannot provide a segment with wan=true"


async def test_replication_is_told_to_everybody_and_is_off(api: Running) -> None:
    for headers in ({}, {"X-Consul-Token": "nobody's"}):
        reply = await api.get("/v1/acl/replication", headers=headers)
        assert (reply.status, reply.json()) == (
            200,
            {
                "Enabled": False,
                "Running": False,
                "SourceDatacenter": "",
                "ReplicationType": "",
                "ReplicatedIndex": 0,
                "ReplicatedRoleIndex": 0,
                "ReplicatedTokenIndex": 0,
                "LastSuccess": "0001-01-01T00:00:00Z",
                "LastError": "0001-01-01T00:00:00Z",
                "LastErrorMessage": "",
            },
        )


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_logout_without_a_token_is_401(api: Running, method: str) -> None:
    reply = await api.ask(method, "/v1/acl/logout")
    assert (reply.status, reply.text) == (401, "Supplied token does not exist")
    assert not [call for call in api.service.calls if call[0] == "logout"]


@pytest.mark.parametrize("path", ["policies", "token/self", "replication", f"policy/{uuid(1)}"])
@pytest.mark.parametrize(("name", "what"), [("ns", "Namespaces"), ("partition", "Partitions")])
async def test_another_namespace_or_partition_is_not_taken_for_this_one(
    api: Running, path: str, name: str, what: str
) -> None:
    headers = {"X-Consul-Token": MANAGER.secret_id}
    reply = await api.get(f"/v1/acl/{path}?{name}=team", headers=headers)
    assert (reply.status, reply.text) == (
        400,
        f'Invalid query parameter: "{name}" - {what} are a Consul Enterprise feature',
    )
    for allowed in ("", "default"):
        assert (await api.get(f"/v1/acl/{path}?{name}={allowed}", headers=headers)).status == 200
    for way, where in (("PUT", "token"), ("DELETE", f"token/{uuid(1)}"), ("POST", "login"), ("PUT", "bootstrap")):
        reply = await api.ask(way, f"/v1/acl/{where}?{name}=team", headers=headers, json={})
        assert (reply.status, what in reply.text) == (400, True), where
    assert {name for name, _ in api.service.calls} <= {"read"}
