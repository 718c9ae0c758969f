"""Access control on three real nodes where nothing is allowed by default: bootstrap, rights, revocation."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.peers import events
from tests.kit import pki
from tests.kit.real_cluster import Answer, LocalCluster, Node, Settings, make_csr
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pki.needs_openssl]

DENY: Settings = {"acl": {"default_policy": "deny"}, "limits": {"signing_workers": 1}}
WEB_RULES = 'service "web" { policy = "write" }'


class Guarded:
    """A cluster, and the token of its operator."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.root = ""

    async def ask(
        self,
        node: Node,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = "",
        query: dict[str, str] | None = None,
    ) -> Answer:
        headers = {"X-Consul-Token": token} if token else {}
        return await self.cluster.ask(node, method, path, body, headers=headers, query=query)

    async def must(self, node: Node, method: str, path: str, body: object = None) -> Any:
        answer = await self.ask(node, method, path, body, token=self.root)
        assert answer.status == 200, (method, path, answer)
        return answer.json()

    async def token(self, node: Node, rules: str, **fields: object) -> dict[str, Any]:
        name = f"p-{time.monotonic_ns()}"
        await self.must(node, "PUT", "/v1/acl/policy", {"Name": name, "Rules": rules})
        made: dict[str, Any] = await self.must(node, "PUT", "/v1/acl/token", {"Policies": [{"Name": name}], **fields})
        return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    async with LocalCluster(tmp_path_factory.mktemp("acl"), settings=DENY) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        made = Guarded(cluster)
        answer = await eventually("access control is set up", lambda: _bootstrapped(made))
        made.root = answer["SecretID"]
        yield made


async def _bootstrapped(guarded: Guarded) -> dict[str, Any] | None:
    answer = await guarded.cluster.ask(guarded.cluster.nodes[0], "PUT", "/v1/acl/bootstrap")
    if answer.status == 503:
        return None
    assert answer.status == 200, answer
    return dict(answer.json())


async def test_first_token_is_given_once(guarded: Guarded) -> None:
    answers = await asyncio.gather(
        *(guarded.cluster.ask(node, "PUT", "/v1/acl/bootstrap") for node in guarded.cluster.nodes * 3)
    )
    assert {answer.status for answer in answers} == {403}
    assert all("ACL bootstrap no longer allowed (reset index: " in answer.text for answer in answers)


async def test_nobody_may_do_what_a_right_is_needed_for(guarded: Guarded) -> None:
    for node in guarded.cluster.nodes:
        for token, said in (("", "Permission denied: anonymous token lacks permission"), ("x" * 36, "ACL not found")):
            for method, path in (
                ("GET", "/v1/connect/ca/configuration"),
                ("GET", "/v1/snapshot"),
                ("GET", "/v1/acl/tokens"),
                ("GET", "/v1/connect/ca/certs"),
                ("GET", "/v1/operator/raft/configuration"),
            ):
                answer = await guarded.ask(node, method, path, token=token)
                if path != "/v1/connect/ca/certs" or token:
                    assert (answer.status, said in answer.text) == (403, True), (path, answer)
        assert (await guarded.ask(node, "GET", "/v1/connect/ca/roots")).status == 200
        assert (await guarded.ask(node, "GET", "/v1/status/leader", token="x" * 36)).status == 200


async def test_service_gets_its_own_certificates_and_no_others(guarded: Guarded) -> None:
    cluster = guarded.cluster
    made = await guarded.token(cluster.nodes[0], WEB_RULES)
    secret, accessor = made["SecretID"], made["AccessorID"]
    own, other = [make_csr(await cluster.service_uri(name))[0] for name in ("web", "api")]
    for node in cluster.nodes:
        assert (await guarded.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": own}, token=secret)).status == 200
        refused = await guarded.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": other}, token=secret)
        assert (refused.status, refused.text) == (
            403,
            f"Permission denied: token with AccessorID '{accessor}' lacks permission 'service:write' on \"api\"",
        )
        assert (await guarded.ask(node, "GET", "/v1/agent/connect/ca/leaf/web", token=secret)).status == 200
        for token in (secret, ""):
            assert (await guarded.ask(node, "GET", "/v1/agent/connect/ca/leaf/api", token=token)).status == 403
        handed_out = [event for event in events(node, "leaf.handed_out") if event["service"] == "web"]
        assert handed_out[-1]["by"] == f"{accessor}@127.0.0.1"
        # What is in the cache for one is not there for another.
        assert (await guarded.ask(node, "GET", "/v1/agent/connect/ca/leaf/web")).status == 403


async def test_new_token_is_known_on_every_node_at_once_and_a_deleted_one_on_none(guarded: Guarded) -> None:
    cluster = guarded.cluster
    for node in cluster.nodes:
        made = await guarded.token(node, 'operator = "read"')
        for other in cluster.nodes:
            answer = await guarded.ask(other, "GET", "/v1/operator/raft/configuration", token=made["SecretID"])
            assert answer.status == 200, answer
        await guarded.must(node, "DELETE", f"/v1/acl/token/{made['AccessorID']}")
        deleted = time.monotonic()
        for other in cluster.nodes:

            async def is_unknown(other: Node = other, secret: str = made["SecretID"]) -> bool:
                answer = await guarded.ask(other, "GET", "/v1/operator/raft/configuration", token=secret)
                return answer.status == 403 and answer.text == "ACL not found"

            await eventually("the token is unknown", is_unknown)
        assert time.monotonic() - deleted < 1.0


async def test_blocking_query_ends_when_its_token_does(guarded: Guarded) -> None:
    cluster = guarded.cluster
    made = await guarded.token(cluster.nodes[0], 'operator = "write"')
    waiting = []
    for node in cluster.nodes:
        index = (await guarded.ask(node, "GET", "/v1/connect/ca/configuration", token=made["SecretID"])).headers[
            "X-Consul-Index"
        ]
        query = {"index": index, "wait": "30s"}
        path = "/v1/connect/ca/configuration"
        waiting.append(asyncio.ensure_future(guarded.ask(node, "GET", path, token=made["SecretID"], query=query)))
    await asyncio.sleep(0.3)
    assert not [task for task in waiting if task.done()]
    await guarded.must(cluster.nodes[1], "DELETE", f"/v1/acl/token/{made['AccessorID']}")
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*waiting)
    assert {(answer.status, answer.text) for answer in answers} == {(403, "ACL not found")}


async def test_operator_writes_and_rotates_through_any_node(guarded: Guarded) -> None:
    cluster = guarded.cluster
    for node in cluster.nodes:
        seen = await guarded.must(node, "GET", "/v1/connect/ca/configuration")
        config = {**seen["Config"], "LeafCertTTL": "50h"}
        body = {"Provider": seen["Provider"], "Config": config}
        assert (await guarded.ask(node, "PUT", "/v1/connect/ca/configuration", body, token=guarded.root)).status == 200
        assert (await guarded.ask(node, "PUT", "/v1/connect/ca/configuration", body)).status == 403
        assert (await guarded.ask(node, "PUT", "/v1/connect/ca/rotation", {"Action": "plan"})).status == 403


async def test_rights_outlive_the_leader_and_every_process(guarded: Guarded) -> None:
    cluster = guarded.cluster
    made = await guarded.token(cluster.nodes[0], WEB_RULES)
    csr_pem, _ = make_csr(await cluster.service_uri("web"))
    leader = await cluster.leader()
    await cluster.kill(leader)
    cluster.start(leader)
    await cluster.wait_ready()
    for node in cluster.nodes:
        answer = await guarded.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem}, token=made["SecretID"])
        assert answer.status == 200, answer


async def test_secrets_are_in_no_file_and_no_log(guarded: Guarded, tmp_path: Path) -> None:
    cluster = guarded.cluster
    made = await guarded.token(cluster.nodes[0], WEB_RULES)
    for node in cluster.nodes:
        await guarded.ask(node, "GET", "/v1/acl/token/self", token=made["SecretID"])
        await guarded.ask(node, "GET", "/v1/acl/tokens", query={"token": made["SecretID"]})
    secrets = [secret.encode() for secret in (guarded.root, made["SecretID"])]
    read = 0
    for path in [path for node in cluster.nodes for path in node.local.directory.rglob("*") if path.is_file()]:
        data = path.read_bytes()
        read += len(data)
        assert not [secret for secret in secrets if secret in data], path
    assert read > 100_000
    for node in cluster.nodes:
        log = node.local.log.read_bytes()
        assert not [secret for secret in secrets if secret in log], node.name
