"""A cluster whose keys are in a real OpenBao: it comes up, migrates, renews and repairs itself, whatever goes away."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from providers.pki import verify
from tests.kit import pki
from tests.kit.real_cluster import Answer, LocalCluster, Node, make_csr
from tests.kit.vault_server import Refused, VaultServer, running_vault
from tests.kit.wait import eventually, until

pytestmark = [pytest.mark.slow, pki.needs_openssl]

CONFIGURATION = "/v1/connect/ca/configuration"
ROTATION = "/v1/connect/ca/rotation"
SIGN = "/v1/connect/ca/sign"
TRANSFER = "/v1/operator/raft/transfer-leader"
_ALL = 'path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }'
COMMON = {"LeafCertTTL": "1h", "IntermediateCertTTL": "72h", "CSRMaxPerSecond": 0}
#: So short that renewals come every few seconds: a certificate and its leaves are still valid when they arrive.
QUICK = {"LeafCertTTL": "12s", "IntermediateCertTTL": "12s", "CSRMaxPerSecond": 0, "SkipValidate": True}


@pytest.fixture(scope="module")
def shared_vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    with running_vault(tmp_path_factory.mktemp("vault")) as server:
        yield server


@pytest.fixture
def own_vault(tmp_path: Path) -> Iterator[VaultServer]:
    """One that a test may hurt."""
    directory = tmp_path / "vault"
    directory.mkdir()
    with running_vault(directory) as server:
        yield server


@asynccontextmanager
async def cluster_of(directory: Path, config: dict[str, object], workers: int = 1) -> AsyncIterator[LocalCluster]:
    """Three nodes whose first CA is in Vault."""
    settings: dict[str, dict[str, Any]] = {
        "connect": {"ca_provider": "vault", "ca_config": config},
        "limits": {"signing_workers": workers},
    }
    (directory / "nodes").mkdir()
    async with LocalCluster(directory / "nodes", settings=settings) as made:
        await made.start_all()
        await made.wait_ready()
        yield made


def mount(config: dict[str, object], which: str = "IntermediatePKIPath") -> str:
    return str(config[which]).strip("/")


async def configure(cluster: LocalCluster, node: Node, provider: str, config: dict[str, object]) -> Answer:
    return await cluster.ask(node, "PUT", CONFIGURATION, {"Provider": provider, "Config": config})


async def some_follower(cluster: LocalCluster) -> Node:
    leader = await cluster.leader()
    return next(node for node in cluster.nodes if node is not leader and node.is_running)


async def try_sign(cluster: LocalCluster, node: Node) -> Answer:
    csr_pem, _ = make_csr(await cluster.service_uri())
    return await cluster.ask(node, "PUT", SIGN, {"CSR": csr_pem})


async def new_leaf(cluster: LocalCluster, node: Node) -> str:
    return str((await try_sign(cluster, node)).json()["CertPEM"])


async def signs(cluster: LocalCluster, node: Node, seconds: float = 30.0) -> str:
    """Until it does; the chain. A leaf may need more than one try while a Vault, or a leader, is on its way back."""

    async def look() -> str | None:
        answer = await try_sign(cluster, node)
        return str(answer.json()["CertPEM"]) if answer.status == 200 else None

    return await eventually(f"{node.name} signs", look, seconds)


async def active_root(cluster: LocalCluster, node: Node) -> dict[str, Any]:
    (active,) = [root for root in (await cluster.roots(node))["Roots"] if root["Active"]]
    return dict(active)


async def trusted_everywhere(cluster: LocalCluster, directory: Path) -> int:
    """A leaf from each node is accepted by clients that trust any one listed root alone; how many are listed."""
    roots: list[dict[str, Any]] = []
    for node in cluster.nodes:
        chain_pem = await new_leaf(cluster, node)
        roots = (await cluster.roots(node))["Roots"]
        now = int(time.time())
        verify.verify_leaf(chain_pem, {root["ID"]: [root["RootCert"]] for root in roots}, now=now)
        for root in roots:
            pki.openssl_verify(directory, chain_pem, [root["RootCert"]], now=now)
    return len(roots)


async def renewed(cluster: LocalCluster, node: Node, before: str, seconds: float = 40.0) -> dict[str, Any]:
    """The active root, once another key than `before` signs below it."""

    async def look() -> dict[str, Any] | None:
        root = await active_root(cluster, node)
        return root if root["SigningKeyID"] != before else None

    return await eventually("the signing certificate is renewed", look, seconds)


async def term(cluster: LocalCluster, node: Node) -> str:
    facts = (await cluster.ask(node, "GET", "/v1/agent/self")).json()["Stats"]
    return str(facts["raft"]["term"])


# --- a CA in Vault, and elsewhere -----------------------------------------------------------------------------------


async def test_ca_comes_up_in_vault_and_moves_to_and_fro(shared_vault: VaultServer, tmp_path: Path) -> None:
    first, second = (shared_vault.config(**COMMON) for _ in range(2))
    async with cluster_of(tmp_path, first, workers=2) as cluster:
        assert await trusted_everywhere(cluster, tmp_path) == 1
        before = await active_root(cluster, cluster.nodes[0])
        assert len(shared_vault.issuers(mount(first))) == len(shared_vault.keys(mount(first))) == 1
        steps = (("consul", COMMON), ("vault", second), ("consul", {**COMMON, "PrivateKeyBits": 384}))
        for count, (provider, config) in enumerate(steps, start=2):
            answer = await configure(cluster, await some_follower(cluster), provider, dict(config))
            assert (answer.status, answer.text) == (200, "")
            assert await trusted_everywhere(cluster, tmp_path) == count
        shown = (await cluster.ask(cluster.nodes[0], "GET", CONFIGURATION)).text
        assert shared_vault.token not in shown
        assert (await active_root(cluster, cluster.nodes[0]))["ID"] != before["ID"]
        # What has taken over for good takes the other's intermediates along; the root mount stays.
        for root in (await cluster.roots(cluster.nodes[0]))["Roots"]:
            if not root["Active"]:
                gone = await cluster.ask(cluster.nodes[0], "DELETE", f"/v1/connect/ca/roots/{root['ID']}")
                assert gone.status == 200, gone.text
        mounts = shared_vault.call("GET", "sys/mounts")["data"]
        for config in (first, second):
            assert f"{mount(config)}/" not in mounts
            assert f"{mount(config, 'RootPKIPath')}/" in mounts


async def test_other_path_for_intermediates_and_other_token_keep_the_root(
    shared_vault: VaultServer, tmp_path: Path
) -> None:
    config = shared_vault.config(**COMMON)
    async with cluster_of(tmp_path, config) as cluster:
        node = await some_follower(cluster)
        before = await active_root(cluster, node)
        moved = {**config, "IntermediatePKIPath": mount(config) + "-b"}
        assert (await configure(cluster, node, "vault", moved)).status == 200
        after = await renewed(cluster, node, before["SigningKeyID"])
        assert after["ID"] == before["ID"]
        assert len(shared_vault.issuers(mount(moved))) == 1
        await trusted_everywhere(cluster, tmp_path)
        shared_vault.call("POST", "sys/auth/approle-c", {"type": "approle"})
        shared_vault.call(
            "PUT",
            "sys/policies/acl/all",
            {"policy": 'path "*" {capabilities=["create","read","update","delete","list","sudo"]}'},
        )
        shared_vault.call("POST", "auth/approle-c/role/ca", {"token_policies": ["all"]})
        role_id = shared_vault.call("GET", "auth/approle-c/role/ca/role-id")["data"]["role_id"]
        secret_id = shared_vault.call("POST", "auth/approle-c/role/ca/secret-id", {})["data"]["secret_id"]
        method = {"Type": "approle", "MountPath": "approle-c", "Params": {"role_id": role_id, "secret_id": secret_id}}
        by_login = {key: value for key, value in moved.items() if key != "Token"}
        for login in ({"AuthMethod": method}, {"Token": shared_vault.token}):
            answer = await configure(cluster, node, "vault", {**by_login, **login})
            assert (answer.status, answer.text) == (200, "")
            await trusted_everywhere(cluster, tmp_path)
        assert (await active_root(cluster, node))["SigningKeyID"] == after["SigningKeyID"]


async def test_plan_and_rotation_to_the_same_mount_are_refused(shared_vault: VaultServer, tmp_path: Path) -> None:
    async with cluster_of(tmp_path, shared_vault.config(**COMMON)) as cluster:
        before = await cluster.wait_settled()
        for body in ({"Action": "plan"}, {"Action": "rotate"}):
            answer = await cluster.ask(await some_follower(cluster), "PUT", ROTATION, body)
            assert answer.status == 422, answer.text
            assert "keeps its root where this configuration points" in answer.text
        assert (await cluster.digest(await cluster.leader()))["StateDigest"] == before["StateDigest"]


# --- renewal --------------------------------------------------------------------------------------------------------


async def test_elections_and_renewals_leave_nothing_behind(
    shared_vault: VaultServer, tmp_path: Path, record_property: Any
) -> None:
    """Twenty renewals under a leader that changes fifty times, while clients have leaves signed."""
    config = shared_vault.config(**QUICK)
    async with cluster_of(tmp_path, config) as cluster:
        root = await active_root(cluster, cluster.nodes[0])
        keys, elections, leaves, most = {root["SigningKeyID"]}, 0, 0, 0
        deadline = time.monotonic() + 280
        while (len(keys) <= 20 or elections < 50) and time.monotonic() < deadline:
            if elections < 2.5 * len(keys) and elections < 50:
                leader = await cluster.leader()
                elections += (await cluster.ask(leader, "PUT", TRANSFER)).status == 200
            else:
                await asyncio.sleep(0.3)
            chain_pem = await signs(cluster, random.choice(cluster.nodes))  # which node is asked
            now = await active_root(cluster, cluster.nodes[0])
            assert now["ID"] == root["ID"]
            verify.verify_leaf(chain_pem, {"root": [now["RootCert"]]}, now=int(time.time()))
            keys.add(now["SigningKeyID"])
            leaves += 1
            with suppress(Refused):  # OpenBao does not list issuers while one of them is being removed
                most = max(most, len(shared_vault.issuers(mount(config))), len(shared_vault.keys(mount(config))))
        record_property("signing keys, elections, leaves, most issuers", (len(keys), elections, leaves, most))
        assert len(keys) > 20
        assert elections >= 50
        # The one in use, the one before, and one that is just being made.
        assert most <= 3
        assert len(shared_vault.issuers(mount(config, "RootPKIPath"))) == 1
        # Of what was signed only the intermediates themselves are stored, and no leaf.
        assert len(shared_vault.certificates(mount(config))) <= len(keys)


async def test_lost_mount_and_lost_issuer_are_repaired_without_anybody(own_vault: VaultServer, tmp_path: Path) -> None:
    config = own_vault.config(**COMMON)
    async with cluster_of(tmp_path, config, workers=2) as cluster:
        node = await some_follower(cluster)
        first = await active_root(cluster, node)
        started = await term(cluster, node)
        own_vault.call("DELETE", f"sys/mounts/{mount(config)}")
        answer = await try_sign(cluster, node)
        assert answer.status == 503
        assert "has been removed" in answer.text
        second = await renewed(cluster, node, first["SigningKeyID"])
        await signs(cluster, node)
        own_vault.call("DELETE", f"{mount(config)}/issuer/default")
        assert (await try_sign(cluster, node)).status == 503
        third = await renewed(cluster, node, second["SigningKeyID"])
        assert {root["ID"] for root in (first, second, third)} == {first["ID"]}
        assert await trusted_everywhere(cluster, tmp_path) == 1
        assert await term(cluster, node) == started


# --- outages --------------------------------------------------------------------------------------------------------


async def test_sealed_vault_stops_signing_only_and_that_goes_on_by_itself(
    own_vault: VaultServer, tmp_path: Path
) -> None:
    config = own_vault.config(**COMMON)
    async with cluster_of(tmp_path, config) as cluster:
        nodes = cluster.nodes
        started, leader = await term(cluster, nodes[0]), await cluster.leader()
        answers: list[Answer] = []
        is_over = asyncio.Event()

        async def client(number: int) -> None:
            while not is_over.is_set():
                answers.append(await try_sign(cluster, nodes[number % 3]))
                await asyncio.sleep(0.05)

        clients = [asyncio.create_task(client(number)) for number in range(6)]
        await until(lambda: len(answers) > 20, "leaves are signed", 30)
        own_vault.seal()
        # It is left alone for longer and longer, and clients are told so.
        await until(lambda: any(_pause(a) >= 4 for a in answers), "clients are told to wait", 40)
        assert (await cluster.roots(nodes[1]))["Roots"]
        read = await cluster.ask(nodes[2], "GET", CONFIGURATION)
        assert read.json()["Provider"] == "vault"
        own_vault.unseal()
        unsealed = len(answers)
        await until(lambda: any(a.status == 200 for a in answers[unsealed:]), "leaves are signed again", 40)
        is_over.set()
        await asyncio.gather(*clients)
        refused = [answer for answer in answers if answer.status != 200]
        assert {answer.status for answer in refused} == {503}
        assert all("Vault" in answer.text for answer in refused)
        assert any("sealed" in answer.text for answer in refused)
        assert all(1 <= _pause(answer) <= 15 for answer in refused)
        assert (await term(cluster, nodes[0]), await cluster.leader()) == (started, leader)
        assert await trusted_everywhere(cluster, tmp_path) == 1


async def test_leader_elected_while_vault_is_sealed_serves_and_then_signs(
    own_vault: VaultServer, tmp_path: Path
) -> None:
    async with cluster_of(tmp_path, own_vault.config(**COMMON)) as cluster:
        own_vault.seal()
        old = await cluster.leader()
        await cluster.kill(old)
        node = await cluster.leader()
        assert (await cluster.roots(node))["Roots"]
        assert (await try_sign(cluster, node)).status == 503
        own_vault.unseal()
        await signs(cluster, node)
        cluster.start(old)
        await cluster.wait_ready()
        assert await trusted_everywhere(cluster, tmp_path) == 1


# --- crashes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
async def test_leader_killed_between_calls_to_vault_costs_nothing(
    shared_vault: VaultServer, tmp_path: Path, seed: int
) -> None:
    """Migrations and renewals, each with the leader killed at a random moment in it."""
    rng = random.Random(seed)  # when to kill
    configs = [shared_vault.config(**COMMON) for _ in range(4)]
    async with cluster_of(tmp_path, configs[0]) as cluster:
        for number, config in enumerate(configs):
            if number:
                node, victim = await some_follower(cluster), await cluster.leader()
                writing = asyncio.create_task(configure(cluster, node, "vault", config))
                await asyncio.sleep(rng.uniform(0.0, 0.8))
                await cluster.kill(victim)
                with suppress(aiohttp.ClientError, TimeoutError):
                    answer = await writing
                    assert answer.status in (200, 504), answer.text
                cluster.start(victim)
                await cluster.wait_ready()
                await _finish(cluster, node, config)
            await signs(cluster, cluster.nodes[0])
            before = await active_root(cluster, cluster.nodes[0])
            with suppress(Refused):
                shared_vault.call("DELETE", f"{mount(config)}/issuer/default")
            node, victim = await some_follower(cluster), await cluster.leader()
            asking = asyncio.create_task(try_sign(cluster, node))
            await asyncio.sleep(rng.uniform(0.0, 0.5))
            await cluster.kill(victim)
            await asking
            await signs(cluster, node)
            after = await renewed(cluster, node, before["SigningKeyID"])
            assert after["ID"] == before["ID"]
            cluster.start(victim)
            await cluster.wait_ready()
            assert await trusted_everywhere(cluster, tmp_path) == number + 1
            # The root's key and CA once, one intermediate, and the key of the issuer that was deleted here.
            assert len(shared_vault.issuers(mount(config, "RootPKIPath"))) == 1
            assert len(shared_vault.issuers(mount(config))) == 1
            assert len(shared_vault.keys(mount(config))) <= 2
        await cluster.wait_same_digest()


async def _finish(cluster: LocalCluster, node: Node, config: dict[str, object]) -> None:
    """Until the rotation that was cut off has ended; begun again if it never was."""

    async def ended() -> bool | None:
        return (await cluster.ask(node, "GET", ROTATION)).json()["Rotation"] is None or None

    await eventually("the rotation ends", ended, 60)
    current = (await cluster.ask(node, "GET", CONFIGURATION)).json()["Config"]
    if current["RootPKIPath"] != config["RootPKIPath"]:
        answer = await configure(cluster, node, "vault", config)
        assert answer.status == 200, answer.text


def _pause(answer: Answer) -> int:
    return int(answer.headers.get("Retry-After", 0))


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_what_cannot_be_is_told_at_once_through_any_node_and_changes_nothing(
    shared_vault: VaultServer, tmp_path: Path
) -> None:
    """Secrets that would go elsewhere, or be shown; files that are not for logins; places where no Vault is."""
    config = shared_vault.config(**COMMON)
    fresh = shared_vault.config(**COMMON)
    shared_vault.call("POST", f"sys/mounts/{mount(fresh)}", {"type": "kv"})
    (tmp_path / "jwt").write_text("a-jwt")
    without = {key: value for key, value in config.items() if key != "Token"}
    login = {"Type": "jwt", "Params": {"role": "r", "path": str(tmp_path / "jwt")}}
    key_pem = "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n"
    wanted: list[tuple[dict[str, object], int, str]] = [
        ({**without, "Address": "https://127.0.0.1:1"}, 400, "Address is changed, so Token must be given again"),
        ({**without, "TLSSkipVerify": True}, 400, "TLSSkipVerify is changed, so Token must be given again"),
        ({**config, "VaultToken": "s3cr3t"}, 400, "looks like a secret where it would be shown: VaultToken."),
        ({**config, "Note": {"pem": key_pem}}, 400, "looks like a secret where it would be shown: Note.pem."),
        ({**without, "AuthMethod": login}, 500, "may not be read: files that a login to Vault needs"),
        ({**config, "Address": "https://127.0.0.1:1"}, 500, "error configuring provider: Vault is unavailable"),
        (fresh, 500, f"what is mounted at {mount(fresh)} is not the PKI engine"),
    ]
    async with cluster_of(tmp_path, config) as cluster:
        before = await cluster.wait_settled()
        mounts = set(shared_vault.call("GET", "sys/mounts")["data"])
        for node in (await cluster.leader(), await some_follower(cluster)):
            for change, status, text in wanted:
                started = time.monotonic()
                answer = await configure(cluster, node, "vault", dict(change))
                assert (answer.status, text in answer.text) == (status, True), answer.text
                assert time.monotonic() - started < 20
        assert set(shared_vault.call("GET", "sys/mounts")["data"]) == mounts
        assert (await cluster.digest(await cluster.leader()))["StateDigest"] == before["StateDigest"]
        await trusted_everywhere(cluster, tmp_path)
    for path in (tmp_path / "nodes").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"s3cr3t" not in content, path
            assert b"c2VjcmV0" not in content, path
