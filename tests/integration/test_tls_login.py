"""A workload logs in with its certificate on real nodes where nothing is allowed by default."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cluster.access.methods.tls_proof import login_proof
from providers.pki.x509 import load_bundle
from tests.integration.test_acl import DENY, WEB_RULES, Guarded
from tests.kit import pki
from tests.kit.login_proofs import proof_of
from tests.kit.real_cluster import Answer, LocalCluster, Node, make_csr
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pki.needs_openssl]

LOGIN = "/v1/acl/login"
LEAF = "/v1/agent/connect/ca/leaf/web"
METHOD = "mesh"
MESH_RULES = 'service_prefix "" { policy = "write" } node_prefix "" { policy = "write" } mesh = "write"'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    """With two methods that take certificates of services, each of which makes a token for the service of its name."""
    async with LocalCluster(tmp_path_factory.mktemp("tls-login"), settings=DENY) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        made, node = Guarded(cluster), cluster.nodes[0]

        async def bootstrapped() -> dict[str, Any] | None:
            answer = await cluster.ask(node, "PUT", "/v1/acl/bootstrap")
            return dict(answer.json()) if answer.status == 200 else None

        made.root = (await eventually("access control is set up", bootstrapped))["SecretID"]
        for name in (METHOD, "other"):
            await made.must(node, "PUT", "/v1/acl/auth-method", {"Name": name, "Type": "tls"})
            rule = {"AuthMethod": name, "BindType": "service", "BindName": "${name}", "Selector": 'kind == "service"'}
            await made.must(node, "PUT", "/v1/acl/binding-rule", rule)
        yield made


async def leaf_of_web(guarded: Guarded, node: Node) -> tuple[str, str]:
    """Chain and key, PEM, as the service's own token gets them."""
    token = await guarded.token(node, WEB_RULES)
    answer = await guarded.ask(node, "GET", LEAF, token=token["SecretID"])
    assert answer.status == 200, answer
    return answer.json()["CertPEM"], answer.json()["PrivateKeyPEM"]


async def signed(guarded: Guarded, uri: str) -> tuple[str, str]:
    """Chain and key for any identity."""
    token = await guarded.token(guarded.cluster.nodes[0], MESH_RULES)
    csr_pem, key_pem = make_csr(uri)
    answer = await guarded.ask(
        guarded.cluster.nodes[0], "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem}, token=token["SecretID"]
    )
    assert answer.status == 200, answer
    return answer.json()["CertPEM"], key_pem


def proof(pair: tuple[str, str], method: str = METHOD, now: float | None = None) -> str:
    chain_pem, key_pem = pair
    key = load_pem_private_key(key_pem.encode(), None)
    return login_proof(load_bundle(chain_pem), key, method, time.time() if now is None else now)


async def log_in(guarded: Guarded, node: Node, bearer: str, method: str = METHOD) -> Answer:
    return await guarded.ask(node, "POST", LOGIN, {"AuthMethod": method, "BearerToken": bearer})


async def quorumca(*arguments: str) -> tuple[int, str]:
    """The command, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cluster", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_workload_logs_in_through_any_node_and_renews_its_certificate(guarded: Guarded, tmp_path: Path) -> None:
    cluster = guarded.cluster
    for number, node in enumerate(cluster.nodes):
        cert, key = await leaf_of_web(guarded, node)
        (tmp_path / "web.pem").write_text(cert)
        (tmp_path / "web.key").write_text(key)
        sink = tmp_path / f"token-{number}"
        code, said = await quorumca(
            *("login", "-method", METHOD, "-token-sink-file", str(sink), "-http-addr", node.local.http),
            *("-client-cert", str(tmp_path / "web.pem"), "-client-key", str(tmp_path / "web.key"), "-format", "json"),
        )
        assert code == 0, said
        shown = json.loads(said)
        assert (shown["AuthMethod"], shown["ServiceIdentities"]) == (METHOD, [{"ServiceName": "web"}])
        secret = sink.read_text()
        for other in cluster.nodes:
            own = await guarded.ask(other, "GET", LEAF, token=secret)
            assert own.status == 200, own
            other_leaf = await guarded.ask(other, "GET", LEAF.replace("web", "api"), token=secret)
            assert other_leaf.status == 403, other_leaf
        # The renewed certificate, of a key of its own, logs in as the first did.
        csr_pem, new_key = make_csr(await cluster.service_uri("web"))
        renewed = await guarded.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem}, token=secret)
        assert renewed.status == 200, renewed
        again = await log_in(guarded, node, proof((renewed.json()["CertPEM"], new_key)))
        assert again.status == 200, again
        gone = await guarded.ask(node, "POST", "/v1/acl/logout", token=secret)
        assert gone.status == 200, gone
        unknown = await guarded.ask(node, "GET", "/v1/acl/token/self", token=secret)
        assert unknown.status == 403, unknown


async def test_proof_logs_in_once_whichever_node_is_asked(guarded: Guarded) -> None:
    pair = await leaf_of_web(guarded, guarded.cluster.nodes[0])
    bearer = proof(pair)
    answers = await asyncio.gather(*(log_in(guarded, node, bearer) for node in guarded.cluster.nodes * 3))
    assert sorted(answer.status for answer in answers) == [200] + [403] * 8


async def test_whatever_proves_nothing_is_refused_with_the_same_words(guarded: Guarded) -> None:
    cluster = guarded.cluster
    web = await leaf_of_web(guarded, cluster.nodes[0])
    uri = await cluster.service_uri("web")
    domain = uri.split("/")[2]
    agent = await signed(guarded, f"spiffe://{domain}/agent/client/dc/dc1/id/web")
    gateway = await signed(guarded, f"spiffe://{domain}/gateway/mesh/dc/dc1")
    _, thief = make_csr(uri)
    hand_made = pki.key("ec", 256, 600)
    now = int(time.time())
    root = pki.root_certificate(hand_made, not_before=now - 60)
    extensions = pki.leaf_extensions(hand_made.public_key(), pki.ski(root), uri)
    theirs = pki.certificate(hand_made.public_key(), hand_made, extensions, not_before=now - 60, not_after=now + 3600)
    server_pem, server_key = ((cluster.nodes[0].local.directory / name).read_text() for name in ("cert.pem", "key.pem"))
    claims = {"aud": f"spiffe://{domain}", "mth": METHOD, "iat": now, "exp": now + 60}

    def forged(chain_pem: str, key_pem: str, jti: str) -> str:
        """Of what the command makes no proof for."""
        key = load_pem_private_key(key_pem.encode(), None)
        assert isinstance(key, pki.PrivateKey)
        return proof_of(load_bundle(chain_pem), key=key, claims={**claims, "jti": jti * 22})

    one, another = (proof(web).split(".") for _ in range(2))
    bearers = {
        "nothing": "",
        "no token": "a.b.c",
        "the certificate itself": web[0],
        "of an agent": proof(agent),
        "of a gateway": proof(gateway),
        "of another CA": proof((pki.pem(theirs), pki.key_pem(hand_made))),
        "of another CA, with it": proof((pki.pem(theirs) + pki.pem(root), pki.key_pem(hand_made))),
        "of a server of the cluster": forged(server_pem, server_key, "A"),
        "of somebody else, with another key": forged(web[0], thief, "B"),
        "for another method": proof(web, "other"),
        "made two minutes ago": proof(web, now=time.time() - 121),
        "made in a clock that is ahead": proof(web, now=time.time() + 90),
        "two proofs in one": ".".join((*one[:2], another[2])),
        "without a signature": ".".join((*one[:2], "")),
    }
    for node in cluster.nodes:
        began = time.monotonic()
        answers = await asyncio.gather(*(log_in(guarded, node, bearer) for bearer in bearers.values()))
        assert time.monotonic() - began >= 0.25
        said = {what: (answer.status, answer.text) for what, answer in zip(bearers, answers, strict=True)}
        assert said == dict.fromkeys(bearers, (403, "Permission denied"))
    leader = await cluster.leader()
    log = leader.local.log.read_text()
    assert log.count("acl.login_refused") >= len(bearers)
    for part in filter(None, (part for bearer in bearers.values() for part in bearer.split(".")[1:])):
        assert len(part) < 3 or part not in log


async def test_certificate_of_a_revoked_token_logs_in_no_more_once_its_name_has_a_moment(guarded: Guarded) -> None:
    cluster = guarded.cluster
    node = cluster.nodes[0]
    web = await leaf_of_web(guarded, node)
    api = await signed(guarded, (await cluster.service_uri("api")))
    before = await guarded.must(node, "GET", f"/v1/acl/auth-method/{METHOD}")

    async def write(moments: dict[str, str]) -> None:
        body = {"Name": METHOD, "Type": "tls", "Config": {"NotBefore": moments}}
        await guarded.must(node, "PUT", f"/v1/acl/auth-method/{METHOD}", body)

    assert before["Config"].get("NotBefore") is None
    assert (await log_in(guarded, node, proof(web))).status == 200
    await write({"web": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))})
    for each in cluster.nodes:
        assert (await log_in(guarded, each, proof(web))).status == 403
        assert (await log_in(guarded, each, proof(await leaf_of_web(guarded, each)))).status == 403
        assert (await log_in(guarded, each, proof(api))).status == 200
    # As when ten minutes have passed: certificates that begin after the moment log in.
    await write({"web": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 600))})
    assert (await log_in(guarded, node, proof(await leaf_of_web(guarded, node)))).status == 200
    await write({})


async def test_certificate_below_a_removed_root_logs_in_no_more(guarded: Guarded) -> None:
    cluster = guarded.cluster
    node = cluster.nodes[0]
    old = await leaf_of_web(guarded, node)
    before = {root["ID"] for root in (await cluster.roots(node))["Roots"]}
    await guarded.must(node, "PUT", "/v1/connect/ca/rotation", {"Action": "rotate"})

    async def rotated() -> bool:
        status = await guarded.must(node, "GET", "/v1/connect/ca/rotation")
        roots = (await cluster.roots(node))["Roots"]
        return status["Rotation"] is None and any(root["Active"] and root["ID"] not in before for root in roots)

    await eventually("another root is active", rotated, 40)
    new = await leaf_of_web(guarded, node)
    for each in cluster.nodes:
        for pair in (old, new):
            answer = await log_in(guarded, each, proof(pair))
            assert answer.status == 200, answer
    for root in (await cluster.roots(node))["Roots"]:
        if not root["Active"]:
            gone = await guarded.ask(node, "DELETE", f"/v1/connect/ca/roots/{root['ID']}", token=guarded.root)
            assert gone.status == 200, gone
    for each in cluster.nodes:
        assert (await log_in(guarded, each, proof(old))).status == 403
        assert (await log_in(guarded, each, proof(new))).status == 200


async def test_certificates_log_in_after_a_change_of_leader(guarded: Guarded) -> None:
    cluster = guarded.cluster
    pair = await leaf_of_web(guarded, cluster.nodes[0])
    leader = await cluster.leader()
    await cluster.kill(leader)
    cluster.start(leader)
    await cluster.wait_ready()
    for node in cluster.nodes:
        answer = await log_in(guarded, node, proof(pair))
        assert answer.status == 200, answer
