"""Certificates signed through any node are good for mutual TLS, whoever judges them: OpenSSL, `cryptography`, `ssl`."""

import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store

from tests.kit import pki
from tests.kit.real_cluster import LocalCluster, Node

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

KINDS = {
    "service": "/ns/default/dc/dc1/svc/web",
    "agent": "/agent/client/dc/dc1/id/host-1",
    "mesh-gateway": "/gateway/mesh/dc/dc1",
}
KEYS = [("ec", 256), ("ec", 384), ("ec", 521), ("rsa", 2048)]
#: Where IssuedCert says whose certificate it is, and for whom.
FIELDS = {
    "service": {"Service": "web", "ServiceURI": ""},
    "agent": {"Agent": "host-1", "AgentURI": ""},
    "mesh-gateway": {"Kind": "mesh-gateway", "KindURI": ""},
}


async def issue(cluster: LocalCluster, node: Node, kind: str, key: pki.PrivateKey, uri: str) -> dict[str, Any]:
    names = pki.alt_names(uris=[uri], dns=["localhost"] if kind == "agent" else [])
    csr = pki.csr_of(key, names).public_bytes(serialization.Encoding.PEM).decode()
    return await cluster.sign(node, csr)


def assert_is_issued(issued: dict[str, Any], kind: str, uri: str, key: pki.PrivateKey) -> x509.Certificate:
    """The answer describes the certificate that is in it, and that is for this key and this ID."""
    leaf = pki.load(issued["CertPEM"])
    wanted = {name: value or uri for name, value in FIELDS[kind].items()}
    assert {name: issued[name] for name in wanted} == wanted
    assert not {"Service", "Agent", "Kind", "ServerURI"} & issued.keys() - wanted.keys()
    assert pki.uris(leaf) == [uri]
    assert pki.spki(leaf.public_key()) == pki.spki(key.public_key())
    assert int(issued["SerialNumber"].replace(":", ""), 16) == leaf.serial_number
    for field, moment in (("ValidAfter", leaf.not_valid_before_utc), ("ValidBefore", leaf.not_valid_after_utc)):
        assert issued[field] == f"{moment:%Y-%m-%dT%H:%M:%SZ}"
    return leaf


def verify(directory: Path, chain_pem: str, root_pem: str) -> None:
    """By two verifiers that do not know each other, each with nothing but this root as trust."""
    pki.openssl_verify(directory, chain_pem, [root_pem], now=int(time.time()))
    leaf, *others = x509.load_pem_x509_certificates(chain_pem.encode())
    verifier = PolicyBuilder().store(Store([pki.load(root_pem)])).build_client_verifier()
    verified = verifier.verify(leaf, others)
    assert [name.value for name in verified.subjects or [] if isinstance(name, x509.UniformResourceIdentifier)]


def active_root_pem(roots: dict[str, Any]) -> str:
    (pem,) = [root["RootCert"] for root in roots["Roots"] if root["Active"]]
    return str(pem)


@pki.needs_openssl
@pytest.mark.parametrize("key_kind", KEYS, ids=str)
async def test_every_kind_of_leaf_from_every_node_shakes_hands(
    shared_cluster: LocalCluster, tmp_path: Path, key_kind: tuple[str, int]
) -> None:
    cluster, key = shared_cluster, pki.key(*key_kind)
    roots = [await cluster.roots(node) for node in cluster.nodes]
    root_pem = active_root_pem(roots[0])
    assert [active_root_pem(other) for other in roots] == len(roots) * [root_pem]
    holders = []
    for node, (kind, path) in product(cluster.nodes, KINDS.items()):
        uri = f"spiffe://{roots[0]['TrustDomain']}{path}"
        issued = await issue(cluster, node, kind, key, uri)
        assert_is_issued(issued, kind, uri, key)
        verify(tmp_path, issued["CertPEM"], root_pem)
        holders.append((uri, (issued["CertPEM"], key)))
    # Each meets the next one: another kind, and now and then another node.
    for (server_uri, server), (client_uri, client) in zip(holders, holders[1:] + holders[:1], strict=True):
        trusts = {"server_trusts": [root_pem], "client_trusts": [root_pem]}
        assert pki.handshake(tmp_path, server, client, **trusts) == (client_uri, server_uri)


@pki.needs_openssl
async def test_local_leaf_of_every_node_comes_with_its_key(shared_cluster: LocalCluster, tmp_path: Path) -> None:
    cluster = shared_cluster
    root_pem = active_root_pem(await cluster.roots(cluster.nodes[0]))
    holders = []
    for node in cluster.nodes:
        issued = (await cluster.ask(node, "GET", "/v1/agent/connect/ca/leaf/web")).json()
        key = serialization.load_pem_private_key(issued["PrivateKeyPEM"].encode(), password=None)
        assert isinstance(key, pki.PrivateKey)
        assert_is_issued(issued, "service", await cluster.service_uri("web"), key)
        verify(tmp_path, issued["CertPEM"], root_pem)
        holders.append((issued["CertPEM"], key))
    for server, client in zip(holders, holders[1:] + holders[:1], strict=True):
        pki.handshake(tmp_path, server, client, server_trusts=[root_pem], client_trusts=[root_pem])


@pki.needs_openssl
async def test_chain_of_another_cluster_is_refused(shared_cluster: LocalCluster, tmp_path: Path) -> None:
    """The judges above can say no."""
    cluster, key = shared_cluster, pki.key()
    issued = await issue(cluster, cluster.nodes[0], "service", key, await cluster.service_uri())
    stranger = pki.pem(pki.root_certificate(pki.key(number=1)))
    with pytest.raises((AssertionError, ValueError)):
        verify(tmp_path, issued["CertPEM"], stranger)
    root_pem = active_root_pem(await cluster.roots(cluster.nodes[0]))
    holder = issued["CertPEM"], key
    with pytest.raises(OSError, match="certificate verify failed"):
        pki.handshake(tmp_path, holder, holder, server_trusts=[stranger], client_trusts=[root_pem])
