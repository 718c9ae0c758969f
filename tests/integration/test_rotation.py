"""The root changes on real nodes: no client that trusts a listed root is left out, whoever is killed or races."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509

from tests.integration.raw_http import request as raw_request
from tests.kit import pki
from tests.kit.real_cluster import Answer, LocalCluster, Node, make_csr
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pki.needs_openssl]

CONFIGURATION = "/v1/connect/ca/configuration"
ROTATION = "/v1/connect/ca/rotation"
ROOTS = "/v1/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf/web"
BUSY = "the CA is being changed already"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    async with LocalCluster(tmp_path_factory.mktemp("rotation")) as made:
        await made.start_all()
        await made.wait_ready()
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(made_cluster: LocalCluster) -> AsyncIterator[LocalCluster]:
    """Behind every test all nodes run, and only the active root is left: chains do not grow from test to test."""
    yield made_cluster
    for node in made_cluster.nodes:
        if not node.is_running:
            made_cluster.start(node)
    await made_cluster.wait_ready()
    node = made_cluster.nodes[0]
    if (await status(made_cluster, node))["Rotation"]:
        await steer(made_cluster, node, "abort")
    for root in (await made_cluster.roots(node))["Roots"]:
        if not root["Active"]:
            assert (await distrust(made_cluster, node, root["ID"])).status == 200


# -- what is asked of a node


def configuration(**config: object) -> dict[str, Any]:
    return {"Provider": "consul", "Config": {"LeafCertTTL": "72h", "CSRMaxPerSecond": 0, **config}}


async def configure(cluster: LocalCluster, node: Node, more: dict[str, Any] | None = None, **config: object) -> Answer:
    return await cluster.ask(node, "PUT", CONFIGURATION, {**configuration(**config), **(more or {})})


async def rotate(cluster: LocalCluster, node: Node, **options: object) -> dict[str, Any]:
    return dict((await cluster.ask(node, "PUT", ROTATION, {"Action": "rotate", **options})).json())


async def steer(cluster: LocalCluster, node: Node, action: str) -> dict[str, Any]:
    return dict((await cluster.ask(node, "PUT", ROTATION, {"Action": action})).json())


async def status(cluster: LocalCluster, node: Node, *, stale: bool = False) -> dict[str, Any]:
    return dict((await cluster.ask(node, "GET", ROTATION, query={"stale": ""} if stale else None)).json())


async def distrust(cluster: LocalCluster, node: Node, root_id: str) -> Answer:
    return await cluster.ask(node, "DELETE", f"{ROOTS}/{root_id}")


async def followers(cluster: LocalCluster) -> list[Node]:
    leader = await cluster.leader()
    return [node for node in cluster.nodes if node is not leader and node.is_running]


async def active_root(cluster: LocalCluster, node: Node) -> dict[str, Any]:
    (active,) = [root for root in (await cluster.roots(node))["Roots"] if root["Active"]]
    return dict(active)


async def rotation_ended(cluster: LocalCluster, node: Node, rotation_id: str, seconds: float = 40.0) -> dict[str, Any]:
    """How it ended."""

    async def last() -> dict[str, Any] | None:
        now = await status(cluster, node)
        return now["Last"] if now["Rotation"] is None and (now["Last"] or {}).get("ID") == rotation_id else None

    return await eventually("the rotation ends", last, seconds)


# -- what is checked


def accepts(directory: Path, chain_pem: str, root: dict[str, Any]) -> bool:
    """Whether OpenSSL, strictly, accepts the chain with this root alone as trust."""
    try:
        pki.openssl_verify(directory, chain_pem, [root["RootCert"]], now=int(time.time()))
    except AssertionError:
        return False
    return True


def issuer_of(chain_pem: str) -> str:
    leaf = x509.load_pem_x509_certificate(chain_pem.encode())
    identifier = pki.value_of(leaf, x509.AuthorityKeyIdentifier).key_identifier
    assert identifier is not None
    return identifier.hex(":")


async def new_leaf(cluster: LocalCluster, node: Node) -> str:
    csr_pem, _ = make_csr(await cluster.service_uri("api"))
    return str((await cluster.sign(node, csr_pem))["CertPEM"])


async def local_leaf(cluster: LocalCluster, node: Node) -> str:
    return str((await cluster.ask(node, "GET", LEAF)).json()["CertPEM"])


# -- tests


async def test_rotation_by_configuration_is_as_in_consul(cluster: LocalCluster, tmp_path: Path) -> None:
    (follower, *_) = await followers(cluster)
    assert (await configure(cluster, follower)).status == 200
    old = await active_root(cluster, follower)
    before = {node.name: await local_leaf(cluster, node) for node in cluster.nodes}
    answer = await configure(cluster, follower, PrivateKeyType="rsa", PrivateKeyBits=2048)
    assert (answer.status, answer.text) == (200, "")
    # At once, on every node: no read is of before.
    after = {node.name: await local_leaf(cluster, node) for node in cluster.nodes}
    listed = [await cluster.roots(node) for node in cluster.nodes]
    assert listed == [listed[0]] * 3
    (new,) = [root for root in listed[0]["Roots"] if root["Active"]]
    (retired,) = [root for root in listed[0]["Roots"] if not root["Active"]]
    assert (retired["ID"], retired["RootCert"], retired["IntermediateCerts"]) == (old["ID"], old["RootCert"], None)
    assert listed[0]["ActiveRootID"] == new["ID"] != old["ID"]
    assert (new["PrivateKeyType"], new["PrivateKeyBits"]) == ("rsa", 2048)
    (cross_pem,) = new["IntermediateCerts"]
    cross, new_cert, old_cert = pki.load(cross_pem), pki.load(new["RootCert"]), pki.load(old["RootCert"])
    assert (cross.subject, cross.issuer) == (new_cert.subject, old_cert.subject)
    assert pki.spki(cross.public_key()) == pki.spki(new_cert.public_key())
    cross.verify_directly_issued_by(old_cert)
    for chain_pem in [*after.values(), *[await new_leaf(cluster, node) for node in cluster.nodes]]:
        assert issuer_of(chain_pem) == new["SigningKeyID"]
        assert accepts(tmp_path, chain_pem, old)
        assert accepts(tmp_path, chain_pem, new)
    for chain_pem in before.values():  # what is in use meanwhile
        assert accepts(tmp_path, chain_pem, retired)
    last = (await status(cluster, follower))["Last"]
    assert (last["RootID"], last["Forced"], last["ClientsMayFailUntil"]) == (new["ID"], False, None)


async def test_the_same_configuration_again_writes_nothing(cluster: LocalCluster) -> None:
    (follower, *_) = await followers(cluster)
    assert (await configure(cluster, follower, PrivateKeyBits=384)).status == 200
    await cluster.wait_same_digest()
    before = await cluster.ask(follower, "GET", CONFIGURATION)
    digest = await cluster.digest(follower)
    assert (await configure(cluster, follower, PrivateKeyBits=384)).status == 200
    assert (await cluster.ask(follower, "PUT", CONFIGURATION, before.text.encode())).status == 200
    after = await cluster.ask(follower, "GET", CONFIGURATION)
    assert (after.text, after.headers["X-Consul-Index"]) == (before.text, before.headers["X-Consul-Index"])
    assert (await cluster.digest(follower))["StateDigest"] == digest["StateDigest"]


async def test_forced_rotation_leaves_out_clients_of_the_old_root_and_says_so(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    node = cluster.nodes[1]
    old = await active_root(cluster, node)
    answer = await configure(cluster, node, {"ForceWithoutCrossSigning": True}, PrivateKeyBits=521)
    assert answer.status == 200, answer.text
    new = await active_root(cluster, node)
    chain_pem = await new_leaf(cluster, node)
    assert new["IntermediateCerts"] is None
    assert (accepts(tmp_path, chain_pem, old), accepts(tmp_path, chain_pem, new)) == (False, True)
    now = await status(cluster, node)
    (retired,) = [root for root in now["Roots"] if root["ID"] == old["ID"]]
    assert now["Last"]["Forced"] is True
    assert now["Last"]["ClientsMayFailUntil"] == retired["PruneAt"] is not None


async def test_distrusted_root_is_gone_from_every_node_and_from_the_chains(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    node = cluster.nodes[2]
    old = await active_root(cluster, node)
    await rotate(cluster, node)
    new = await active_root(cluster, node)
    assert accepts(tmp_path, await new_leaf(cluster, node), old)
    assert (await distrust(cluster, node, new["ID"])).status == 422
    assert (await distrust(cluster, node, "00" + old["ID"][2:])).status == 404
    assert (await distrust(cluster, node, old["ID"].upper())).status == 200
    for other in cluster.nodes:
        assert [root["ID"] for root in (await cluster.roots(other))["Roots"]] == [new["ID"]]
    chain_pem = await new_leaf(cluster, node)
    assert (accepts(tmp_path, chain_pem, old), accepts(tmp_path, chain_pem, new)) == (False, True)
    assert (await distrust(cluster, node, old["ID"])).status == 404


async def test_two_racing_writes_each_have_one_clear_outcome(cluster: LocalCluster) -> None:
    first, second, _ = cluster.nodes
    before = {root["ID"] for root in (await cluster.roots(first))["Roots"]}
    answers = await asyncio.gather(
        configure(cluster, first, PrivateKeyType="rsa", PrivateKeyBits=2048),
        configure(cluster, second, PrivateKeyBits=384),
    )
    for answer in answers:
        assert answer.status == 200 or (answer.status == 503 and answer.text.startswith(BUSY)), answer
    won = [kind for kind, answer in zip([("rsa", 2048), ("ec", 384)], answers, strict=True) if answer.status == 200]
    roots = (await cluster.roots(first))["Roots"]
    made = [(root["PrivateKeyType"], root["PrivateKeyBits"]) for root in roots if root["ID"] not in before]
    assert sorted(made) == sorted(won) != []
    active = await active_root(cluster, first)
    assert (active["PrivateKeyType"], active["PrivateKeyBits"]) in won


async def test_write_of_a_client_that_leaves_is_done_once(cluster: LocalCluster) -> None:
    (follower, *_) = await followers(cluster)
    before = {root["ID"] for root in (await cluster.roots(follower))["Roots"]}
    body = json.dumps(configuration(PrivateKeyBits=521)).encode()
    host, _, port = follower.local.http.partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw_request("PUT", CONFIGURATION, body=body))
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    async def rotated() -> dict[str, Any] | None:
        root = await active_root(cluster, follower)
        return root if root["ID"] not in before else None

    root = await eventually("the root is rotated", rotated, 20.0)
    assert root["PrivateKeyBits"] == 521
    now = await status(cluster, follower)
    assert (now["Rotation"], now["Last"]["RootID"]) == (None, root["ID"])
    assert {listed["ID"] for listed in now["Roots"]} == {*before, root["ID"]}


async def caught_in_the_middle(
    cluster: LocalCluster, node: Node, looker: Node
) -> tuple["asyncio.Task[Answer]", dict[str, Any]]:
    """A rotation to RSA 4096 that `node` was asked for and that `looker` knows to be under way; not one that was over
    before anybody saw it.
    """
    body = {"Action": "rotate", "PrivateKeyType": "rsa", "PrivateKeyBits": 4096}
    for _ in range(5):
        writing = asyncio.create_task(cluster.ask(node, "PUT", ROTATION, body))
        while not writing.done():
            if rotation := (await status(cluster, looker, stale=True))["Rotation"]:
                return writing, rotation
        assert (await writing).status == 200
    raise AssertionError("no rotation was seen under way")


async def test_leader_killed_in_the_middle_is_continued_by_the_next(cluster: LocalCluster, tmp_path: Path) -> None:
    follower, other = await followers(cluster)
    leader = await cluster.leader()
    writing, rotation = await caught_in_the_middle(cluster, follower, other)
    await cluster.kill(leader)
    last = await rotation_ended(cluster, other, rotation["ID"])
    answer = await writing
    # 504: the follower that has waited says that the outcome is not known to it.
    assert answer.status in (200, 504), answer
    new = await active_root(cluster, other)
    assert (last["RootID"], last["Reason"]) == (new["ID"], "")
    assert (new["PrivateKeyType"], new["PrivateKeyBits"]) == ("rsa", 4096)
    chain_pem = await new_leaf(cluster, follower)
    assert issuer_of(chain_pem) == new["SigningKeyID"]
    roots = (await cluster.roots(other))["Roots"]
    assert len(roots) > 1
    assert all(accepts(tmp_path, chain_pem, root) for root in roots)


async def test_write_during_an_election_waits_for_the_new_leader(cluster: LocalCluster) -> None:
    (follower, *_) = await followers(cluster)
    leader = await cluster.leader()
    old = await active_root(cluster, follower)
    cluster.send(leader, signal.SIGSTOP)  # silent: it takes an election to notice
    try:
        answer = await configure(cluster, follower, PrivateKeyBits=384)
    finally:
        await cluster.kill(leader)
    assert answer.status == 200, answer.text
    new = await active_root(cluster, follower)
    assert (new["ID"] != old["ID"], new["PrivateKeyBits"]) == (True, 384)


@asynccontextmanager
async def watching(cluster: LocalCluster, node: Node, path: str = ROOTS) -> AsyncIterator[None]:
    """A client that always wants the value of now, and that waits already."""

    async def watch() -> None:
        index = "0"
        while True:
            with suppress(TimeoutError):  # the client's own; it comes back
                answer = await cluster.ask(node, "GET", path, query={"index": index, "wait": "15s"})
                index = answer.headers["X-Consul-Index"]

    async def waits() -> bool | None:
        metrics = await cluster.ask(node, "GET", "/v1/agent/metrics", query={"format": "prometheus"})
        return "\nquorumca_blocking_queries 1.0\n" in metrics.text or None

    task = asyncio.ensure_future(watch())
    try:
        await eventually("the client waits", waits, 10.0)
        yield
    finally:
        task.cancel()


async def test_staged_rotation_activates_by_itself_when_its_watchers_have_the_root(cluster: LocalCluster) -> None:
    node, watched = cluster.nodes[0], await cluster.leader()
    old = await active_root(cluster, node)
    await local_leaf(cluster, node)  # does not renew, and does not count where somebody watches
    async with watching(cluster, watched):
        begun = await rotate(cluster, node, Staged=True, Wait="1h")
        rotation = begun["Rotation"]
        assert (rotation["Phase"], rotation["Staged"], rotation["Paused"]) == ("wait", True, False)
        assert [root["ID"] for root in begun["Roots"] if root["Active"]] == [old["ID"]]
        assert {root["ID"] for root in begun["Roots"]} == {old["ID"], rotation["NewRootID"]}
        last = await rotation_ended(cluster, node, rotation["ID"])
    assert (last["RootID"], last["Reason"]) == (rotation["NewRootID"], "")
    assert (await active_root(cluster, node))["ID"] == rotation["NewRootID"]


async def test_watchers_of_the_roots_count_on_every_node(cluster: LocalCluster) -> None:
    first, second = await followers(cluster)
    async with watching(cluster, first), watching(cluster, second), watching(cluster, await cluster.leader()):
        await rotate(cluster, first, Staged=True, Wait="1h")
        await steer(cluster, first, "pause")

        async def all_have_it() -> bool | None:
            uptake = (await status(cluster, first))["Rotation"]["Uptake"]
            return (uptake["Watchers"], uptake["WatchersSeen"], uptake["Percent"]) == (3, 3, 100) or None

        await eventually("all three watchers have the new root", all_have_it, 5.0)


async def test_watchers_of_the_configuration_do_not_count(cluster: LocalCluster) -> None:
    leader = await cluster.leader()
    async with watching(cluster, leader, CONFIGURATION):
        await rotate(cluster, leader, Staged=True, Wait="1h")
        uptake = (await status(cluster, leader))["Rotation"]["Uptake"]
        assert (uptake["Watchers"], uptake["WatchersSeen"]) == (0, 0)


async def test_staged_rotation_by_configuration_is_paused_resumed_and_aborted(cluster: LocalCluster) -> None:
    node, other, third = cluster.nodes
    old = await active_root(cluster, node)
    await local_leaf(cluster, node)  # a client that does not renew: nothing activates by itself
    more = {"RotationMode": "staged", "RotationWait": "1h"}
    assert (await configure(cluster, node, more, PrivateKeyBits=521)).status == 200
    waiting = (await status(cluster, other))["Rotation"]
    assert (waiting["Phase"], waiting["Uptake"]["Watchers"]) == ("wait", 0)
    assert waiting["Uptake"]["Percent"] < 100 <= 100 * waiting["Uptake"]["Identities"]
    assert (await steer(cluster, third, "pause"))["Rotation"]["Paused"] is True
    assert (await configure(cluster, node, PrivateKeyBits=384)).text.startswith(BUSY)
    assert (await steer(cluster, other, "resume"))["Rotation"]["Paused"] is False
    aborted = await steer(cluster, node, "abort")
    assert (aborted["Rotation"], aborted["Last"]["ID"], aborted["Last"]["RootID"]) == (None, waiting["ID"], "")
    assert [root["ID"] for root in aborted["Roots"]] == [old["ID"]]
    assert (await active_root(cluster, other))["ID"] == old["ID"]
    refused = await cluster.ask(node, "PUT", ROTATION, {"Action": "resume"})
    assert (refused.status, refused.text) == (422, "no rotation is under way")


async def quorumca(node: Node, *argv: str) -> str:
    command = [sys.executable, "-P", "-m", "cluster", *argv, "--http-addr", node.local.http]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


async def test_commands_plan_and_rotate(cluster: LocalCluster) -> None:
    node = cluster.nodes[1]
    old, digest = await active_root(cluster, node), (await cluster.wait_same_digest())["StateDigest"]
    plan = json.loads(await quorumca(node, "ca", "rotate", "--dry-run", "-key-bits", "384", "-format", "json"))
    assert (plan["ActiveRootID"], plan["PrivateKeyBits"], plan["Links"], plan["TrustedRoots"]) == (old["ID"], 384, 1, 2)
    assert (await cluster.digest(node))["StateDigest"] == digest
    shown = await quorumca(node, "ca", "rotate", "-key-type", "ec", "-key-bits", "384", "--wait")
    new = await active_root(cluster, node)
    assert (new["ID"] != old["ID"], new["PrivateKeyBits"]) == (True, 384)
    assert shown.startswith("Rotated at ")
    assert f"root {new['ID']} signs from now on." in shown
    assert {old["ID"], new["ID"]} <= set(shown.split())
    chain_pem = await new_leaf(cluster, node)
    assert len(chain_pem) <= plan["ChainBytes"]
    assert await quorumca(node, "ca", "distrust", old["ID"]) == f"Root {old['ID']} is no longer trusted.\n"
    assert old["ID"] not in await quorumca(node, "ca", "rotation")
