"""Real nodes get over what people fear: lost machines, damaged backups, expired roots and certificates. And `doctor`
names each trouble.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from cluster.tls.certificates import Identity, load_ca, new_cert
from tests.kit import pki
from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.wait import eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pki.needs_openssl]

CONFIGURATION = "/v1/connect/ca/configuration"
ROTATION = "/v1/connect/ca/rotation"
SNAPSHOT = "/v1/snapshot"
LEAVES = 5
UNHEALTHY = 4


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


async def quorumca(*argv: object, cwd: Path | None = None) -> Done:
    own = ("QUORUMCA_", "CONSUL_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-P", "-m", "cluster", *map(str, argv)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


async def doctor(*argv: object) -> tuple[int, dict[str, str]]:
    """Exit code; severity of every finding by its code."""
    done = await quorumca("doctor", "--format", "json", *argv)
    assert done.out, done.err
    return done.code, {finding["Code"]: finding["Severity"] for finding in json.loads(done.out)["Findings"]}


def addresses(cluster: LocalCluster) -> list[str]:
    return [flag for node in cluster.nodes for flag in ("--http-addr", node.local.http)]


def accepts(directory: Path, chain_pem: str, roots: dict[str, Any]) -> bool:
    """Whether OpenSSL, strictly, accepts a chain with the listed roots as trust."""
    try:
        pems = [root["RootCert"] for root in roots["Roots"]]
        pki.openssl_verify(directory, chain_pem, pems, now=int(time.time()))
    except AssertionError:
        return False
    return True


def cluster_with_seal(root: Path, seal_key: Path | None, nodes: int, **settings: Any) -> LocalCluster:
    root.mkdir()
    if seal_key is not None:
        shutil.copy(seal_key, root / "seal.key")
    return LocalCluster(root, nodes=nodes, settings=settings)


# -- snapshots


@dataclass(frozen=True)
class Saved:
    """A cluster that is gone, but for a snapshot that was made in the middle of a rotation, and its seal key."""

    path: Path
    seal_key: Path
    roots: dict[str, Any]
    rotation_id: str
    leaves: tuple[dict[str, Any], ...]  # IssuedCert objects of the root of before


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    directory = tmp_path_factory.mktemp("saved")
    async with cluster_with_seal(directory / "old", None, 1) as old:
        await old.start_all()
        await old.wait_ready()
        (node,) = old.nodes
        leaves = [await old.sign(node, make_csr(await old.service_uri(f"s{k}"))[0]) for k in range(LEAVES)]
        started = await old.ask(node, "PUT", ROTATION, {"Action": "rotate", "Staged": True, "Wait": "1h"})
        rotation = started.json()["Rotation"]
        assert rotation["Phase"] == "wait"
        path = directory / "saved.tgz"
        done = await quorumca("snapshot", "save", path, "-http-addr", node.url)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("Saved and verified snapshot to index ")
        shown = json.loads((await quorumca("snapshot", "inspect", "-format", "json", path)).out)
        assert (shown["certificates"], shown["roots"]) == (LEAVES, 2)
        roots = await old.roots(node)
    return Saved(path, old.root / "seal.key", roots, rotation["ID"], tuple(leaves))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def new_cluster(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalCluster]:
    """Three nodes at other addresses, with a CA of their own and the old seal key."""
    async with cluster_with_seal(tmp_path_factory.mktemp("new") / "new", saved.seal_key, 3) as new:
        await new.start_all()
        await new.wait_ready()
        yield new


async def test_damaged_snapshot_is_refused_and_changes_nothing(saved: Saved, new_cluster: LocalCluster) -> None:
    node = new_cluster.nodes[1]
    data = saved.path.read_bytes()
    before = await new_cluster.wait_settled()
    broken = {
        "a byte changed": data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
        "cut short": data[: len(data) // 2],
        "the end is lost": data[:-8],
        "nothing": b"",
        "something else": b"PK" + bytes(1000),
    }
    for what, body in broken.items():
        answer = await new_cluster.ask(node, "PUT", SNAPSHOT, body)
        assert (what, answer.status) == (what, 422)
        assert "snapshot" in answer.text
    assert await new_cluster.wait_same_digest() == before
    assert not list(node.data_dir.glob("transfer-*"))


async def test_snapshot_of_another_seal_key_is_refused_and_changes_nothing(saved: Saved, tmp_path: Path) -> None:
    async with cluster_with_seal(tmp_path / "other", None, 1) as other:
        await other.start_all()
        await other.wait_ready()
        before = await other.wait_settled()
        done = await quorumca("snapshot", "restore", saved.path, "-http-addr", other.nodes[0].url)
        assert done.code == 1
        assert "Error restoring snapshot: Unexpected response code: 422" in done.err
        assert "seal key" in done.err
        assert await other.wait_same_digest() == before


async def test_ca_that_was_saved_amid_a_rotation_lives_on_elsewhere(
    saved: Saved, new_cluster: LocalCluster, tmp_path: Path
) -> None:
    first = new_cluster.nodes[0]
    [own] = (await new_cluster.roots(first))["Roots"]
    done = await quorumca("snapshot", "restore", saved.path, "-http-addr", first.url)
    assert (done.code, done.err) == (0, "")
    # New machines trust none of its roots yet: they are named, and the one that goes.
    told, *notes, gone, replaced = done.out.splitlines()
    assert told == "Restored snapshot"
    assert replaced.startswith("The trust domain is now ")
    assert gone.startswith(f"Root {own['ID']} ({own['Name']}) is not trusted any more: ")
    assert notes == [f"Root {root['ID']} ({root['Name']}) is trusted from now on" for root in saved.roots["Roots"]]
    # Roots and record are there, on every node, and the nodes agree.
    await new_cluster.wait_same_digest()
    for node in new_cluster.nodes:
        roots = await new_cluster.roots(node)
        for key in ("TrustDomain", "ActiveRootID"):
            assert roots[key] == saved.roots[key]
        for leaf in saved.leaves:
            serial = leaf["SerialNumber"]
            found = await new_cluster.ask(node, "GET", f"/v1/connect/ca/certs/{serial}", query={"stale": ""})
            assert (found.json()["SpiffeID"], found.json()["SerialNumber"]) == (leaf["ServiceURI"], serial)
    # The rotation goes on where it was.
    waiting = (await new_cluster.ask(first, "GET", ROTATION)).json()["Rotation"]
    assert (waiting["ID"], waiting["Phase"]) == (saved.rotation_id, "wait")
    (published,) = [root for root in saved.roots["Roots"] if not root["Active"]]
    assert (await new_cluster.ask(new_cluster.nodes[2], "PUT", ROTATION, {"Action": "activate"})).status == 200

    async def ended() -> dict[str, Any] | None:
        status = (await new_cluster.ask(first, "GET", ROTATION)).json()
        return dict(status["Last"]) if status["Rotation"] is None else None

    last = await eventually("the rotation ends", ended, 30.0)
    assert (last["ID"], last["RootID"], last["Reason"]) == (saved.rotation_id, published["ID"], "")
    # Old leaves are trusted still, new ones are signed by the new root, and good for both.
    roots = await new_cluster.roots(first)
    assert roots["ActiveRootID"] == published["ID"]
    new = await new_cluster.sign(new_cluster.nodes[1], make_csr(await new_cluster.service_uri("s0"))[0])
    for leaf in (*saved.leaves, new):
        assert accepts(tmp_path, leaf["CertPEM"], roots)
    for root in roots["Roots"]:
        assert accepts(tmp_path, new["CertPEM"], {"Roots": [root]})
    await new_cluster.wait_same_digest()
    # It survives what any cluster survives.
    for node in new_cluster.nodes:
        await new_cluster.kill(node)
    for node in new_cluster.nodes:
        new_cluster.start(node)
    await new_cluster.wait_ready()
    assert await new_cluster.roots(first) == roots
    await new_cluster.wait_same_digest()


# -- doctor


async def test_doctor_finds_nothing_then_each_broken_thing(new_cluster: LocalCluster) -> None:
    """Behind the tests above: with a cluster that was restored."""
    first, second, third = new_cluster.nodes
    await new_cluster.leader()
    assert await doctor(*addresses(new_cluster)) == (0, {})
    assert await doctor("--config", first.local.config) == (0, {"node-runs": "note"})

    await new_cluster.kill(third)
    assert await doctor("--config", third.local.config) == (0, {})

    async def noticed() -> bool | None:
        code, found = await doctor(*addresses(new_cluster))
        return True if code == UNHEALTHY and {"node-unreachable", "server-unhealthy"} <= found.keys() else None

    await eventually("doctor misses a server", noticed, 20.0)

    newest = sorted((third.data_dir / "wal").glob("*.wal"))[-1]
    sound = newest.read_bytes()
    newest.write_bytes(sound[:100] + bytes([sound[100] ^ 1]) + sound[101:])
    assert await doctor("--config", third.local.config) == (UNHEALTHY, {"journal-damaged": "critical"})
    newest.write_bytes(sound)

    await new_cluster.kill(second)

    async def no_leader() -> bool | None:
        code, found = await doctor("--http-addr", first.local.http)
        return True if (code, found.get("no-leader")) == (UNHEALTHY, "critical") else None

    await eventually("doctor finds that there is no leader", no_leader, 20.0)
    for node in (second, third):
        new_cluster.start(node)
    await new_cluster.wait_ready()
    await new_cluster.leader()


# -- expired certificates


#: Of a CA that expires while a test looks on.
SHORT = {"root_cert_ttl": "4s", "intermediate_cert_ttl": "3s", "leaf_cert_ttl": "1s", "skip_validate": True}


async def replace_root(cluster: LocalCluster, node: Node, directory: Path) -> str:
    """By one made by hand, as in Consul's documentation; its PEM."""
    roots = await cluster.roots(node)
    made = await quorumca(
        *("tls", "ca", "create", "-cluster-id", roots["TrustDomain"].removesuffix(".consul")),
        *("-common-name", "Consul Agent CA", "-days=365", "-domain", "consul"),
        cwd=directory,
    )
    assert made.out == "==> Saved consul-agent-ca.pem\n==> Saved consul-agent-ca-key.pem\n"
    config = {
        "LeafCertTTL": "72h",
        "PrivateKey": (directory / "consul-agent-ca-key.pem").read_text(),
        "RootCert": (directory / "consul-agent-ca.pem").read_text(),
    }
    answer = await cluster.ask(node, "PUT", CONFIGURATION, {"Provider": "consul", "Config": config})
    assert (answer.status, answer.text) == (200, "")
    return config["RootCert"]


async def test_expired_root_is_replaced_by_one_made_by_hand(tmp_path: Path) -> None:
    """While nothing is trusted any more."""
    async with cluster_with_seal(tmp_path / "cluster", None, 1, connect={"ca_config": SHORT}) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        (node,) = cluster.nodes

        async def expired() -> dict[str, str] | None:
            code, found = await doctor("--http-addr", node.local.http)
            return found if code == UNHEALTHY and "root-expired" in found else None

        await eventually("the root expires", expired, 20.0)
        root_pem = await replace_root(cluster, node, tmp_path)
        leaf = await cluster.sign(node, make_csr(await cluster.service_uri())[0])
        roots = await cluster.roots(node)
        (active,) = [root for root in roots["Roots"] if root["Active"]]
        assert active["RootCert"] == root_pem
        assert accepts(tmp_path, leaf["CertPEM"], {"Roots": [active]})
        _, found = await doctor("--http-addr", node.local.http)
        assert "root-expired" not in found


#: Time enough for the servers to tell each other of their new keys.
_SHORT_LIFE: Final = timedelta(seconds=8)


def write_certificate(cluster: LocalCluster, node: Node, ends_in: timedelta) -> None:
    """In place of the node's, each file at once, as `mv` does."""
    directory = cluster.root / "tls"
    now = datetime.now(UTC).replace(microsecond=0)
    ca_pem, key_pem = ((directory / f"consul-agent-ca{end}.pem").read_text() for end in ("", "-key"))
    day = timedelta(days=1)
    identity = Identity("server", node=node.name)
    # What is made begins a minute before, and so ends a minute before, too.
    made_at = now - day + ends_in + timedelta(minutes=1)
    pair = new_cert(load_ca(ca_pem, key_pem, now), identity, made_at, 1)
    for name, content in (("cert.pem", pair.cert_pem), ("key.pem", pair.key_pem)):
        draft = node.local.directory / f"{name}.new"
        draft.write_text(content)
        draft.chmod(0o600)
        os.replace(draft, node.local.directory / name)


async def test_expired_certificates_of_nodes_are_replaced_while_they_run_and_then_the_root(tmp_path: Path) -> None:
    """Which has expired too: nodes that refuse each other cannot take a new one."""
    async with cluster_with_seal(tmp_path / "cluster", None, 3, connect={"ca_config": SHORT}) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        leader = await cluster.leader()
        lost = next(node for node in cluster.nodes if node is not leader)
        for node in cluster.nodes:
            write_certificate(cluster, node, _SHORT_LIFE)
            cluster.send(node, signal.SIGHUP)

        async def is_in_use() -> bool | None:
            """The others know the new keys, so these certificates are those that expire."""
            changed = ['"event":"tls.key_changed"' in node.local.log.read_text() for node in cluster.nodes]
            return True if all(changed) else None

        await eventually("the certificates are in use", is_in_use, _SHORT_LIFE.total_seconds())

        async def expired() -> bool | None:
            code, found = await doctor("--config", lost.local.config)
            return True if (code, found.get("tls-expired")) == (UNHEALTHY, "critical") else None

        await eventually("doctor finds the certificate expired", expired, 20.0 + _SHORT_LIFE.total_seconds())

        async def seen_from_outside() -> bool | None:
            code, found = await doctor(*addresses(cluster))
            return True if code == UNHEALTHY and "node-certificate-expired" in found else None

        await eventually("so it does from outside", seen_from_outside, 20.0)
        # Connections that are open stay; a node that comes back gets none.
        await cluster.restart(lost, signal.SIGKILL)

        async def refused() -> bool | None:
            code, found = await doctor("--http-addr", lost.local.http)
            return True if (code, found.get("no-leader")) == (UNHEALTHY, "critical") else None

        await eventually("the node is refused by the others", refused, 20.0)
        pids = [node.pid for node in cluster.nodes]
        for node in cluster.nodes:
            write_certificate(cluster, node, timedelta(hours=20))
            cluster.send(node, signal.SIGHUP)
        await cluster.wait_ready()
        await cluster.wait_same_digest()
        assert [node.pid for node in cluster.nodes if node.is_running] == pids
        csr_pem, _ = make_csr(await cluster.service_uri())
        answer = await cluster.ask(lost, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem})
        assert (answer.status, "root expired" in answer.text) == (500, True)
        root_pem = await replace_root(cluster, lost, tmp_path)
        leaf = await cluster.sign(lost, csr_pem)
        assert accepts(tmp_path, leaf["CertPEM"], {"Roots": [{"RootCert": root_pem}]})
