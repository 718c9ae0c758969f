"""What a node is asked when it is visited: everything that it answers with the help of another one, which may be of
another release. Each answer is held against what the leader itself answers, or against its effect on every node.
"""

import asyncio
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization

from cluster.backup import file as backup
from providers.config.durations import SECOND, parse_duration
from tests.integration.peers import PEER, voters
from tests.integration.test_chains import KINDS, assert_is_issued, issue, verify
from tests.integration.test_rotation import (
    CONFIGURATION,
    ROOTS,
    ROTATION,
    active_root,
    distrust,
    rotate,
    rotation_ended,
    status,
    steer,
    watching,
)
from tests.kit import pki
from tests.kit.ports import free_ports
from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.wait import eventually

SNAPSHOT: Final = "/v1/snapshot"
SERVERS: Final = "/v1/operator/raft/configuration"
HEALTH: Final = "/v1/operator/autopilot/health"
CERTS: Final = "/v1/connect/ca/certs"
_FIRST_TTL: Final = 72 * 3600
_FIRST_RATE: Final = 10_000
_SECONDS: Final = 20.0
_PLAN: Final = {"Action": "plan", "PrivateKeyType": "ec", "PrivateKeyBits": 384, "Staged": True, "Wait": "1h"}
_STRANGER: Final = "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web"


class Visitor:
    """Values that it sets and names that it signs for are never the same twice."""

    def __init__(self, cluster: LocalCluster, directory: Path) -> None:
        self._cluster = cluster
        self._directory = directory
        self._number = 0
        self._bits = 256
        self.visits = 0

    def _next(self) -> int:
        self._number += 1
        return self._number

    # -- what every node is asked, whoever leads

    async def visit(self, node: Node, leader: Node) -> None:
        await self.sign(node)
        await self.get_leaf(node)
        await self.configure(node)
        await self.plan(node, leader)
        await self.list_servers(node, leader)
        await self.meet_refusals(node, leader)
        await self.save(node)
        self.visits += 1

    async def sign(self, node: Node) -> None:
        number = self._next()
        kind, path = list(KINDS.items())[number % len(KINDS)]
        roots = await self._cluster.roots(node)
        uri, key = f"spiffe://{roots['TrustDomain']}{path}", pki.key()
        issued = await issue(self._cluster, node, kind, key, uri)
        leaf = assert_is_issued(issued, kind, uri, key)
        await self._verify(issued, roots)
        on_record = {
            "SerialNumber": issued["SerialNumber"],
            "Kind": kind,
            "SpiffeID": uri,
            "ValidAfter": issued["ValidAfter"],
            "ValidBefore": issued["ValidBefore"],
            "PublicKeySHA256": pki.key_id(leaf.public_key()).hex(":"),
            "RequestedBy": "127.0.0.1",
            "CreateIndex": issued["CreateIndex"],
        }
        for other in self._cluster.nodes:
            found = (await self._cluster.ask(other, "GET", f"{CERTS}/{issued['SerialNumber']}")).json()
            assert found == {**found, **on_record}

    async def get_leaf(self, node: Node) -> None:
        service = f"web-{self._next()}"
        issued = (await self._cluster.ask(node, "GET", f"/v1/agent/connect/ca/leaf/{service}")).json()
        roots = await self._cluster.roots(node)
        key = serialization.load_pem_private_key(issued["PrivateKeyPEM"].encode(), password=None)
        leaf = pki.load(issued["CertPEM"])
        assert pki.uris(leaf) == [issued["ServiceURI"]] == [await self._cluster.service_uri(service)]
        assert pki.spki(leaf.public_key()) == pki.spki(key.public_key())
        await self._verify(issued, roots)

    async def configure(self, node: Node, **more: object) -> None:
        """Check-and-set, and seen by every node at once."""
        number = self._next()
        seen = (await self._cluster.ask(node, "GET", CONFIGURATION)).json()
        limits = {"LeafCertTTL": f"{_FIRST_TTL + number}s", "CSRMaxPerSecond": _FIRST_RATE + number}
        config = {**seen["Config"], **limits, **more}
        body = {"Provider": "consul", "Config": config, "ModifyIndex": seen["ModifyIndex"]}
        answer = await self._cluster.ask(node, "PUT", CONFIGURATION, body)
        assert (answer.status, answer.text) == (200, "")
        for other in self._cluster.nodes:
            now = (await self._cluster.ask(other, "GET", CONFIGURATION)).json()
            assert now["ModifyIndex"] > seen["ModifyIndex"]
            assert _limits(now) == (_FIRST_TTL + number, _FIRST_RATE + number)

    async def plan(self, node: Node, leader: Node) -> None:
        through, own = [dict((await self._cluster.ask(each, "PUT", ROTATION, _PLAN)).json()) for each in (node, leader)]
        # They count up while others sign.
        assert 0 < through.pop("AffectedLeaves") <= own.pop("AffectedLeaves")
        assert through.pop("RetiredUntil") <= own.pop("RetiredUntil")
        _assert_agree(through, own)
        assert (own["ActiveRootID"], own["Provider"]) == ((await active_root(self._cluster, node))["ID"], "consul")
        assert (own["PrivateKeyType"], own["PrivateKeyBits"]) == ("ec", 384)
        assert (own["Staged"], own["Forced"], own["TrustedRoots"]) == (True, False, 2)

    async def list_servers(self, node: Node, leader: Node) -> None:
        async def seen(by: Node) -> tuple[dict[str, Any], dict[str, Any]]:
            servers, health = [
                (await self._cluster.ask(by, "GET", path)).json()["Servers"] for path in (SERVERS, HEALTH)
            ]
            for server in (*servers, *health):
                assert server.pop("LastIndex") > 0
            for server in health:
                assert parse_duration(server.pop("LastContact")) >= 0
                assert server["Healthy"]
                server.pop("Version")  # of the node that answers
            return {server["ID"]: server for server in servers}, {server["ID"]: server for server in health}

        async def agreed() -> dict[str, Any] | None:
            through, own = await seen(node), await seen(leader)
            for one, other in zip(through, own, strict=True):
                assert one.keys() == other.keys()
                for name, server in one.items():
                    _assert_agree(server, other[name])
            return own[0]

        servers = await eventually(f"{node.name} sees the servers as the leader does", agreed, _SECONDS)
        assert [name for name, server in servers.items() if server["Leader"]] == [leader.name]
        assert {name: (server["Address"], server["RPC"]) for name, server in servers.items()} == {
            each.name: (each.local.raft, each.local.rpc) for each in self._cluster.nodes
        }

    async def meet_refusals(self, node: Node, leader: Node) -> None:
        """What the leader refuses is refused with the same words through every node."""
        active = (await active_root(self._cluster, leader))["ID"]
        csr_pem, _ = make_csr(_STRANGER)
        config = {"LeafCertTTL": "72h"}
        stranger = {"ID": "node-1", "Address": "127.0.0.1:1", "RPC": "127.0.0.1:2"}
        requests: list[tuple[int, str, str, object]] = [
            (400, "PUT", "/v1/connect/ca/sign", {"CSR": csr_pem}),
            (400, "PUT", "/v1/connect/ca/sign", {"CSR": "none"}),
            (409, "PUT", CONFIGURATION, {"Provider": "consul", "Config": config, "ModifyIndex": 1}),
            (500, "PUT", CONFIGURATION, {"Provider": "none", "Config": config}),
            (400, "PUT", CONFIGURATION, {"Provider": "consul", "Config": config, "State": {"is": "none"}}),
            (422, "PUT", ROTATION, {"Action": "resume"}),
            (422, "DELETE", f"{ROOTS}/{active}", None),
            (404, "DELETE", f"{ROOTS}/00", None),
            (400, "POST", "/v1/operator/raft/transfer-leader?id=nobody", None),
            (422, "PUT", PEER, stranger),
            (404, "DELETE", f"{PEER}?id=nobody", None),
        ]
        for wanted, method, path, body in requests:
            through, own = [await self._cluster.ask(each, method, path, body) for each in (node, leader)]
            assert (through.status, through.text) == (own.status, own.text), (method, path)
            assert through.status == wanted, (method, path, through)
            assert through.text

    async def save(self, node: Node) -> Path:
        """A file of the CA, which this release reads, whatever release has written it."""
        path = self._directory / f"{self._next()}-{node.name}.snapshot"
        await asyncio.to_thread(_download, f"{node.url}{SNAPSHOT}", path)
        digest = await self._cluster.digest(node)
        roots = await self._cluster.roots(node)
        saved = await asyncio.to_thread(backup.read, path)
        await asyncio.to_thread(saved.check_rows)
        meta = saved.meta
        assert (meta.node, meta.active_root_id) == (node.name, roots["ActiveRootID"])
        assert meta.certificates == sum(len(page) for page in saved.pages())
        assert 0 < meta.certificates <= digest["LedgerCount"]
        return path

    # -- what only a follower of another release than the leader's is asked: it takes longer

    async def rotate(self, node: Node) -> None:
        """And no longer trust the root before, so chains do not grow."""
        await self._change_root(node, lambda bits: self._rotate_now(node, bits))

    async def rotate_by_configuration(self, node: Node) -> None:
        await self._change_root(node, lambda bits: self.configure(node, PrivateKeyType="ec", PrivateKeyBits=bits))

    async def rotate_in_stages(self, node: Node) -> None:
        """The other way: what is published to clients on every node is activated before they all have it."""
        await self._change_root(node, lambda bits: self._publish_and_activate(node, bits))

    async def abort_rotation(self, node: Node) -> None:
        """Of one that a configuration has begun."""
        before = await self._cluster.roots(node)
        seen = (await self._cluster.ask(node, "GET", CONFIGURATION)).json()
        config = {**seen["Config"], "PrivateKeyType": "ec", "PrivateKeyBits": self._other_bits()}
        body = {"Provider": "consul", "Config": config, "RotationMode": "staged", "RotationWait": "1h"}
        answer = await self._cluster.ask(node, "PUT", CONFIGURATION, body)
        assert (answer.status, answer.text) == (200, "")
        begun = await status(self._cluster, node)
        _assert_waits(begun)
        assert (await steer(self._cluster, node, "pause"))["Rotation"]["Paused"]
        assert not (await steer(self._cluster, node, "resume"))["Rotation"]["Paused"]
        aborted = await steer(self._cluster, node, "abort")
        last = aborted["Last"]
        assert (last["ID"], last["RootID"], bool(last["Reason"])) == (begun["Rotation"]["ID"], "", True)
        for other in self._cluster.nodes:
            roots = await self._cluster.roots(other)
            assert [root["ID"] for root in roots["Roots"]] == [before["ActiveRootID"]]

    async def _rotate_now(self, node: Node, bits: int) -> None:
        ended = await rotate(self._cluster, node, PrivateKeyType="ec", PrivateKeyBits=bits)
        assert ended["Rotation"] is None
        assert (ended["Last"]["Forced"], ended["Last"]["Reason"]) == (False, "")

    async def _publish_and_activate(self, node: Node, bits: int) -> None:
        options = {"PrivateKeyType": "ec", "PrivateKeyBits": bits, "Staged": True, "Wait": "1h"}
        begun = await rotate(self._cluster, node, **options)
        _assert_waits(begun)
        assert (await steer(self._cluster, node, "pause"))["Rotation"]["Paused"]
        async with AsyncExitStack() as stack:
            for other in self._cluster.nodes:
                await stack.enter_async_context(watching(self._cluster, other))

            async def all_have_it() -> bool | None:
                uptake = (await status(self._cluster, node))["Rotation"]["Uptake"]
                assert 0 < uptake["IdentitiesRenewed"] < uptake["Identities"], "the load renews, visitors do not"
                return (uptake["Watchers"], uptake["WatchersSeen"], uptake["Percent"]) == (3, 3, 100) or None

            await eventually("watchers on all nodes have the new root", all_have_it, _SECONDS)
            await steer(self._cluster, node, "activate")
            last = await rotation_ended(self._cluster, node, begun["Rotation"]["ID"])
        assert (last["RootID"], last["Reason"]) == (begun["Rotation"]["NewRootID"], "")

    async def _change_root(self, node: Node, change: Callable[[int], Awaitable[None]]) -> None:
        old = await active_root(self._cluster, node)
        bits = self._bits = self._other_bits()
        await change(bits)
        new = await active_root(self._cluster, node)
        assert new["ID"] != old["ID"]
        assert (new["PrivateKeyType"], new["PrivateKeyBits"]) == ("ec", bits)
        for other in self._cluster.nodes:
            listed = (await self._cluster.roots(other))["Roots"]
            assert {root["ID"]: root["Active"] for root in listed} == {old["ID"]: False, new["ID"]: True}
            _assert_agree(new, await active_root(self._cluster, other))
            await self.sign(other)  # for who trusts either of the two
        assert (await distrust(self._cluster, node, old["ID"])).status == 200
        for other in self._cluster.nodes:
            assert [root["ID"] for root in (await self._cluster.roots(other))["Roots"]] == [new["ID"]]
            await self.sign(other)

    def _other_bits(self) -> int:
        return {256: 384, 384: 256}[self._bits]

    async def change_peers(self, node: Node) -> None:
        """A server that nobody ever starts: it does not vote, and is in nobody's way."""
        before = await voters(self._cluster, node)
        raft, rpc = (f"127.0.0.1:{port}" for port in free_ports(2))
        name = f"node-{100 + self._next()}"
        for _ in range(2):  # the second time it is there, just so
            answer = await self._cluster.ask(node, "PUT", PEER, {"ID": name, "Address": raft, "RPC": rpc})
            assert answer.status == 200, answer
        for by in self._cluster.nodes:
            servers = {
                server["ID"]: server for server in (await self._cluster.ask(by, "GET", SERVERS)).json()["Servers"]
            }
            assert {each: server["Voter"] for each, server in servers.items()} == {**before, name: False}
            assert (servers[name]["Address"], servers[name]["RPC"]) == (raft, rpc)
        query = {"address": raft} if self._number % 2 else {"id": name}
        assert (await self._cluster.ask(node, "DELETE", PEER, query=query)).status == 200
        for by in self._cluster.nodes:
            assert await voters(self._cluster, by) == before

    async def is_refused_a_restore(self, node: Node) -> None:
        """Which a leader of the other release cannot judge as this one does; the CA stays as it is."""
        before = await self._cluster.roots(node)
        path = await self.save(node)
        answer = await self._cluster.ask(node, "PUT", SNAPSHOT, await asyncio.to_thread(path.read_bytes))
        assert answer.status in (422, 500), answer
        assert "through a node of this release" in answer.text or "is not known to this node" in answer.text, answer
        assert (await self._cluster.roots(node))["Roots"] == before["Roots"]

    async def restore(self, node: Node, saved_by: Node) -> None:
        """What a node has saved takes the place of what there is, through another one. A file of the release before
        has no MAC, which a node of this one takes only when it is told to.
        """
        wanted = (await self._cluster.ask(node, "GET", CONFIGURATION)).json()
        roots = await self._cluster.roots(node)
        path = await self.save(saved_by)
        await self.configure(node)
        data = await asyncio.to_thread(path.read_bytes)
        answer = await self._cluster.ask(node, "PUT", SNAPSHOT, data)
        if answer.status == 422 and not (await asyncio.to_thread(backup.read, path)).has_mac:
            assert "the snapshot is not authenticated" in answer.text
            answer = await self._cluster.ask(node, "PUT", f"{SNAPSHOT}?force", data)
            wanted_text = "The snapshot is not authenticated: it has no MAC\n"
        else:
            wanted_text = ""
        assert answer.status == 200, answer
        # The release before says nothing of what it leaves as it is.
        assert answer.text in (wanted_text, f"{wanted_text}{_still(roots['TrustDomain'])}")
        for other in self._cluster.nodes:
            now = (await self._cluster.ask(other, "GET", CONFIGURATION)).json()
            assert _limits(now) == _limits(wanted)
            restored = await self._cluster.roots(other)
            assert [root["RootCert"] for root in restored["Roots"]] == [root["RootCert"] for root in roots["Roots"]]
            await self.sign(other)

    # -- judging

    async def _verify(self, issued: dict[str, Any], roots: dict[str, Any]) -> None:
        """By who trusts one of the listed roots and nothing else."""
        for root in roots["Roots"]:
            await asyncio.to_thread(verify, self._directory, issued["CertPEM"], root["RootCert"])


def _limits(configuration: dict[str, Any]) -> tuple[int, int]:
    config = configuration["Config"]
    return parse_duration(config["LeafCertTTL"]) // SECOND, config["CSRMaxPerSecond"]


def _still(trust_domain: str) -> str:
    """What is said of a restore into the cluster that was saved."""
    return f"The trust domain is still {trust_domain}: tokens, policies, roles and auth methods stay as they are here\n"


def _assert_agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    """In all that both say: a release may say more than the one before."""
    assert {key: value for key, value in one.items() if key in other} == {
        key: value for key, value in other.items() if key in one
    }


def _assert_waits(begun: dict[str, Any]) -> None:
    rotation = begun["Rotation"]
    assert (rotation["Phase"], rotation["Staged"], rotation["Forced"], rotation["Paused"]) == (
        "wait",
        True,
        False,
        False,
    )
    since, until = (datetime.fromisoformat(rotation[name]) for name in ("PhaseSince", "WaitUntil"))
    assert until - since == timedelta(hours=1)
    assert rotation["Uptake"]["Identities"] > 0


def _download(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=_SECONDS) as answer, path.open("wb") as file:
        while data := answer.read(1 << 16):
            file.write(data)
