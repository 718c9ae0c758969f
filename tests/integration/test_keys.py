"""A server's TLS key is exchanged: while it runs, nobody notices; after a restart, an operator vouches for it."""

import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.tls.certificates import Identity, load_ca, new_cert
from tests.integration.load import assert_all_on_record, signing_load
from tests.integration.peers import add_peer, events
from tests.kit.real_cluster import LocalCluster, Node, Settings, make_csr
from tests.kit.wait import eventually

pytestmark = pytest.mark.slow

SETTINGS: Settings = {"connect": {"ca_config": {"csr_max_per_second": 0}}}
FLOWING = 30
FLOWING_SECONDS = 20.0
EXCHANGE_SECONDS = 30.0


def exchange_key(cluster: LocalCluster, node: Node, *, days_ago: int = 0, name: str = "") -> None:
    """Both files, as `mv` puts them in place; good for a day and more from then on. `name`: another server's."""
    cert, key = (cluster.root / "tls" / name for name in ("consul-agent-ca.pem", "consul-agent-ca-key.pem"))
    now = datetime.now(UTC).replace(microsecond=0)
    issuer = load_ca(cert.read_text(), key.read_text(), now)
    days = 1 if days_ago else 30
    made = new_cert(issuer, Identity("server", node=name or node.name), now - timedelta(days=days_ago), days)
    for name, pem in (("cert.pem", made.cert_pem), ("key.pem", made.key_pem)):
        new = node.local.directory / f"{name}.new"
        new.write_text(pem)
        shutil.move(new, node.local.directory / name)


async def told(node: Node, event: str, count: int = 1) -> None:
    async def is_told() -> bool | None:
        return len(events(node, event)) >= count or None

    await eventually(f"{node.name} says {event}", is_told, EXCHANGE_SECONDS)


async def former_key_is_gone(leader: Node, node: Node) -> None:
    """The leader has the key alone in the log that is in use now, not beside the one before."""
    in_use = events(node, "tls.key_changed")[-1]["key"]

    async def is_gone() -> bool | None:
        pinned = [*events(leader, "member.pinning"), *events(leader, "member.key_changed")]
        return any(event["member"] == node.name and event["key"] == in_use for event in pinned) or None

    await eventually(f"{node.name} is known by its new key alone", is_gone, EXCHANGE_SECONDS)


async def test_running_servers_exchange_their_keys_one_after_the_other_and_nobody_notices(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path, settings=SETTINGS) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        leader = await cluster.leader()
        async with signing_load(cluster) as load:
            for node in cluster.nodes:
                await load.acknowledges(FLOWING, FLOWING_SECONDS)
                exchange_key(cluster, node)
                cluster.send(node, signal.SIGHUP)
                await told(node, "tls.key_changed")
                await former_key_is_gone(leader, node)
            await load.acknowledges(FLOWING, FLOWING_SECONDS)
        assert set(load.answers) == {200}, load.refused[:3]
        await assert_all_on_record(cluster, load)
        for node in cluster.nodes:
            assert not events(node, "tls.key_not_pinned")
            assert not events(node, "tls.reload_failed")
        for node in cluster.nodes:
            await cluster.restart(node, signal.SIGKILL)
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        for node in cluster.nodes:
            await cluster.sign(node, csr_pem)


async def test_servers_that_all_get_expired_certificates_and_then_good_ones_find_each_other(tmp_path: Path) -> None:
    """Of three different keys. The one in the middle is never announced, or each would be known by one that is gone."""
    async with LocalCluster(tmp_path, settings=SETTINGS) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        for node in cluster.nodes:
            exchange_key(cluster, node, days_ago=2)
            cluster.send(node, signal.SIGHUP)
        for node in cluster.nodes:
            await told(node, "tls.reload_failed")
            [failed] = events(node, "tls.reload_failed")
            assert str(node.local.directory / "cert.pem") in failed["reason"]
            assert "certificate has expired. The one in use stays. Put one in place" in failed["reason"]
            assert not events(node, "tls.key_changed")
        await cluster.sign(cluster.nodes[0], csr_pem)
        for node in cluster.nodes:
            exchange_key(cluster, node)
            cluster.send(node, signal.SIGHUP)
        for node in cluster.nodes:
            await told(node, "tls.key_changed")
        leader = await cluster.leader()
        for node in cluster.nodes:
            await former_key_is_gone(leader, node)
        # What is connected stays so: only who connects anew has to be known.
        for node in cluster.nodes:
            await cluster.restart(node, signal.SIGKILL)
        await cluster.wait_ready(EXCHANGE_SECONDS)
        for node in cluster.nodes:
            await cluster.sign(node, csr_pem)
            assert not events(node, "tls.key_not_pinned")


async def test_server_that_starts_with_an_expired_certificate_takes_no_other_servers_next(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path) as cluster:
        node, other, _ = cluster.nodes
        exchange_key(cluster, node, days_ago=2)
        cluster.start_with(node)
        await told(node, "tls.expired")
        exchange_key(cluster, node, name=other.name)
        cluster.send(node, signal.SIGHUP)
        await told(node, "tls.reload_failed")
        [failed] = events(node, "tls.reload_failed")
        assert f"is that of {other.name}.server.dc1.consul, and this is {node.name}.server." in failed["reason"]
        exchange_key(cluster, node)
        cluster.send(node, signal.SIGHUP)
        await told(node, "tls.reloaded")


async def test_server_that_starts_with_another_key_is_out_until_an_operator_adds_it_again(tmp_path: Path) -> None:
    async with LocalCluster(tmp_path) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        leader = await cluster.leader()
        node, other = (found for found in cluster.nodes if found is not leader)
        await cluster.sign(leader, csr_pem)
        await cluster.kill(node)
        exchange_key(cluster, node)
        await cluster.sign(leader, csr_pem)
        cluster.start(node)
        await told(node, "tls.key_not_pinned")
        await told(other, "raft.peer_refused")
        answer = await add_peer(cluster, other, node)
        assert answer.status == 200, answer
        await cluster.wait_ready(EXCHANGE_SECONDS, [node])
        await cluster.wait_same_digest()
        await cluster.sign(node, csr_pem)
        assert [event["by"].endswith("127.0.0.1") for event in events(leader, "member.key_changed")] == [True]
