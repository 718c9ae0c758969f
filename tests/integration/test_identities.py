"""Over the API of real nodes: names that are not ours are refused by whatever way they come, and none is on record."""

import json
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.kit import pki
from tests.kit.real_cluster import LocalCluster
from tests.kit.words import assert_plain

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

SERVICE = "/ns/default/dc/dc1/svc/"
PATHS = (
    *("/agent/server/dc/dc1", "/agent/client/dc/dc2/id/node-1", "/ns/default/dc/dc2/svc/web", "/gateway/mesh/dc/dc2"),
    *("/ns/other/dc/dc1/svc/web", "/ap/part/ns/default/dc/dc1/svc/web", "/ap/part/agent/client/dc/dc1/id/node-1"),
    *(SERVICE + name for name in ("web%2F..%2Fadmin", "~", "a%20b", "w%C3%A9b", "%77eb", "w" * 129, "..", "a+b")),
    *("/agent/client/dc/dc1/id/~", f"{SERVICE}web?a=b", f"{SERVICE}web#a", f"{SERVICE}web/", f"{SERVICE}web/more"),
)
HOSTS = (
    *("node-1.server.dc1.consul", "server.dc1.consul", "SERVER.dc1.CONSUL", "*.dc1.consul", "*.com", "*.co.uk"),
    *("localhost", "10.0.0.1", "*.server.dc1.consul", "server.dc2.consul"),
)
LEAVES = ("web/../admin", "~", "a b", "wéb", "w" * 129, "web/", "/", "a%20b", "a+b")


def _csr(uri: str, *hosts: str) -> str:
    names = [*(x509.DNSName(host) for host in hosts), x509.UniformResourceIdentifier(uri)]
    return pki.csr_of(pki.key(), names).public_bytes(serialization.Encoding.PEM).decode()


async def _recorded(cluster: LocalCluster) -> int:
    return int((await cluster.ask(cluster.nodes[0], "GET", "/v1/operator/digest")).json()["LedgerCount"])


async def test_identities_and_hosts_that_are_not_ours_are_refused(shared_cluster: LocalCluster) -> None:
    cluster = shared_cluster
    trust_domain = (await cluster.roots(cluster.nodes[0]))["TrustDomain"]
    before = await _recorded(cluster)
    csrs = [_csr(f"spiffe://{trust_domain}{path}") for path in PATHS]
    csrs += [_csr(f"spiffe://{trust_domain}{SERVICE}web", host) for host in HOSTS]
    csrs += [
        _csr(f"spiffe://{host}{SERVICE}web") for host in ("other.consul", f"{trust_domain}:1", f"u@{trust_domain}")
    ]
    for number, csr in enumerate(csrs):
        node = cluster.nodes[number % len(cluster.nodes)]
        answer = await cluster.ask(node, "PUT", "/v1/connect/ca/sign", {"CSR": csr})
        assert answer.status == 400, (number, answer.text)
        assert_plain(answer.text)
    assert await _recorded(cluster) == before


async def test_leaves_for_names_of_no_service_are_refused(shared_cluster: LocalCluster) -> None:
    cluster = shared_cluster
    before = await _recorded(cluster)
    for number, name in enumerate(LEAVES):
        node = cluster.nodes[number % len(cluster.nodes)]
        answer = await cluster.ask(node, "GET", f"/v1/agent/connect/ca/leaf/{quote(name, safe='')}")
        assert answer.status == 400, (name, answer.text)
        assert "service name" in answer.text
        assert_plain(answer.text)
    assert await _recorded(cluster) == before


async def test_what_is_ours_is_signed_as_before(shared_cluster: LocalCluster) -> None:
    cluster = shared_cluster
    trust_domain = (await cluster.roots(cluster.nodes[0]))["TrustDomain"]
    for path, hosts in (
        (f"{SERVICE}Web-1.v2_x", ("web.example.com", "*.web.example.com", "server.service.consul")),
        ("/agent/client/dc/dc1/id/node-1", ("localhost",)),
        ("/gateway/mesh/dc/dc1", ("gateway.example.com",)),
    ):
        for label in ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"):
            csr = _csr(f"spiffe://{trust_domain}{path}", *hosts).replace("CERTIFICATE REQUEST", label)
            answer = await cluster.ask(cluster.nodes[1], "PUT", "/v1/connect/ca/sign", {"CSR": csr})
            assert answer.status == 200, answer.text
            leaf = pki.load(json.loads(answer.text)["CertPEM"])
            assert pki.uris(leaf) == [f"spiffe://{trust_domain}{path}"]
            names = pki.value_of(leaf, x509.SubjectAlternativeName)
            assert names.get_values_for_type(x509.DNSName) == list(hosts)
