"""py-consul works against every node, unchanged."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import consul
import pytest
from cryptography import x509

from tests.kit.real_cluster import LocalCluster, Node

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


def client_of(node: Node) -> Any:
    host, _, port = node.local.http.rpartition(":")
    return consul.Consul(host=host, port=int(port))


async def on_every_node(cluster: LocalCluster, check: Callable[[Any], Any]) -> list[Any]:
    """What `check` returns for a client of each node. The client blocks, so it runs in a thread."""
    return [await asyncio.to_thread(check, client_of(node)) for node in cluster.nodes]


def pem_of(client: Any) -> str:
    """With pem=True the client asks for the PEM bundle and then takes it for JSON: what it got is in its error."""
    with pytest.raises(consul.ConsulException) as refused:
        client.connect.ca.roots(pem=True)
    found = re.fullmatch(r"Failed to decode JSON: (-----BEGIN .*-----\n) Expecting.*", str(refused.value), re.DOTALL)
    assert found, refused.value
    return found[1]


async def test_roots(shared_cluster: LocalCluster) -> None:
    of_servers = await on_every_node(shared_cluster, lambda client: client.connect.ca.roots())
    of_agents = await on_every_node(shared_cluster, lambda client: client.agent.connect.ca.roots())
    first = of_servers[0]
    assert all(roots == first for roots in of_servers + of_agents)
    (root,) = first["Roots"]
    assert root["Active"] is True
    assert root["ID"] == first["ActiveRootID"]
    assert first["TrustDomain"] == f"{root['ExternalTrustDomain']}.consul"
    bundles = await on_every_node(shared_cluster, pem_of)
    assert set(bundles) == {root["RootCert"]}


async def test_configuration(shared_cluster: LocalCluster) -> None:
    before = await on_every_node(shared_cluster, lambda client: client.connect.ca.configuration())
    assert all(config == before[0] for config in before)
    assert before[0]["Provider"] == "consul"
    assert before[0]["Config"] == {"IntermediateCertTTL": "8760h", "LeafCertTTL": "72h", "RootCertTTL": "87600h"}
    index = before[0]["ModifyIndex"]
    for number, node in enumerate(shared_cluster.nodes):
        wanted = {"LeafCertTTL": f"{40 + number}h", "IntermediateCertTTL": "4000h"}
        update = client_of(node).connect.ca.update_configuration
        assert await asyncio.to_thread(update, "consul", wanted) is True
        for config in await on_every_node(shared_cluster, lambda client: client.connect.ca.configuration()):
            assert config["Config"] == wanted
            assert config["ModifyIndex"] > index
        index = config["ModifyIndex"]


async def test_leaf(shared_cluster: LocalCluster) -> None:
    leaves = await on_every_node(shared_cluster, lambda client: client.agent.connect.ca.leaf("web"))
    trust_domain = (await shared_cluster.roots(shared_cluster.nodes[0]))["TrustDomain"]
    for leaf in leaves:
        assert leaf["Service"] == "web"
        assert leaf["ServiceURI"] == f"spiffe://{trust_domain}/ns/default/dc/dc1/svc/web"
        assert leaf["PrivateKeyPEM"].startswith("-----BEGIN EC PRIVATE KEY-----\n")
        cert = x509.load_pem_x509_certificate(leaf["CertPEM"].encode())
        assert leaf["SerialNumber"].replace(":", "").lstrip("0") == f"{cert.serial_number:x}"
    assert len({leaf["SerialNumber"] for leaf in leaves}) == len(shared_cluster.nodes)
    again = await on_every_node(shared_cluster, lambda client: client.agent.connect.ca.leaf("web"))
    assert [leaf["SerialNumber"] for leaf in again] == [leaf["SerialNumber"] for leaf in leaves]


async def test_authorize(shared_cluster: LocalCluster) -> None:
    uri = await shared_cluster.service_uri("web")
    answers = await on_every_node(shared_cluster, lambda client: client.agent.connect.authorize("db", uri, "01:02"))
    assert answers == 3 * [{"Authorized": True, "Reason": "Default behavior configured by ACLs"}]


async def test_servers(shared_cluster: LocalCluster) -> None:
    leader = await shared_cluster.leader()
    addresses = [node.local.raft for node in shared_cluster.nodes]
    assert await on_every_node(shared_cluster, lambda client: client.status.leader()) == 3 * [leader.local.raft]
    assert await on_every_node(shared_cluster, lambda client: client.status.peers()) == 3 * [addresses]
    assert await on_every_node(shared_cluster, lambda client: client.catalog.datacenters()) == 3 * [["dc1"]]
    for raft in await on_every_node(shared_cluster, lambda client: client.operator.raft_config()):
        assert [(server["ID"], server["Address"]) for server in raft["Servers"]] == [
            (node.name, node.local.raft) for node in shared_cluster.nodes
        ]
        assert [server["Node"] for server in raft["Servers"] if server["Leader"]] == [leader.name]
        assert all(server["Voter"] for server in raft["Servers"])


async def test_agent_self(shared_cluster: LocalCluster) -> None:
    answers = await on_every_node(shared_cluster, lambda client: client.agent.self())
    for node, answer in zip(shared_cluster.nodes, answers, strict=True):
        assert set(answer) == {"Member", "xDS", "Stats", "Config", "Coord", "DebugConfig", "Meta"}
        assert answer["Config"]["NodeName"] == node.name
        assert answer["Config"]["Datacenter"] == "dc1"


async def test_refusals_reach_the_client_as_its_own_errors(shared_cluster: LocalCluster) -> None:
    for node in shared_cluster.nodes:
        update = client_of(node).connect.ca.update_configuration
        with pytest.raises(consul.ConsulException, match="leaf cert TTL must be greater or equal than 1h0m0s"):
            await asyncio.to_thread(update, "consul", {"LeafCertTTL": "1m"})
        with pytest.raises(consul.ConsulException, match="unknown CA provider"):
            await asyncio.to_thread(update, "sesame", {})
