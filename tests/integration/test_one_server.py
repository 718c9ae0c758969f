"""What somebody has who has one server: its files, its seal key with them, nothing of the others.

SECURITY.md says so; here it is held to what it says, in both directions.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives import serialization

from cluster.seal.records import PlainRecord, open_record, purpose_of
from cluster.seal.sealer import Sealer
from cluster.seal.sources import FileKey
from fsm.state import State
from tests.integration.key_search import stored_keys, stored_states
from tests.kit import pki
from tests.kit.real_cluster import LocalCluster, Node, make_csr
from tests.kit.vault_server import Refused, VaultServer, running_vault

pytestmark = [pytest.mark.slow, pki.needs_openssl]

_EVERYTHING = 'path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }'
_COMMON = {"LeafCertTTL": "1h", "IntermediateCertTTL": "72h", "CSRMaxPerSecond": 0}


async def taken(cluster: LocalCluster) -> Node:
    """A follower, as a thief gets it: switched off."""
    leader = await cluster.leader()
    await cluster.wait_same_digest()
    node = next(node for node in cluster.nodes if node is not leader)
    await cluster.kill(node, signal.SIGKILL)
    return node


def opened(data_dir: Path) -> tuple[State, PlainRecord]:
    """The newest state, and what is sealed of the provider in use."""
    *_, state = stored_states(data_dir)
    sealer = Sealer(FileKey(data_dir / "seal.key"))
    assert state.seal is not None
    sealer.unlock(state.seal)
    assert state.active_root is not None
    [sealed] = [found for found in state.providers if found.provider_id == state.active_root.provider_id]
    return state, open_record(sealer, purpose_of(sealed.provider_id), sealed.sealed)


def private_keys_in(value: Any) -> Iterator[object]:
    """Of anything that msgpack packs, or has packed inside."""
    match value:
        case dict():
            for member in value.values():
                yield from private_keys_in(member)
        case list():
            for member in value:
                yield from private_keys_in(member)
        case str():
            with suppress(ValueError, TypeError):
                yield serialization.load_pem_private_key(value.encode(), None)
        case bytes():
            with suppress(ValueError, TypeError):
                yield serialization.load_der_private_key(value, None)
            with suppress(ValueError, TypeError, msgpack.UnpackException):
                yield from private_keys_in(msgpack.unpackb(value))


async def test_built_in_the_ca_is_on_every_server(tmp_path: Path) -> None:
    """Its key is there for good: certificates can be made of which no record tells."""
    async with LocalCluster(tmp_path) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        uri = await cluster.service_uri("stolen")
        root = (await cluster.roots(cluster.nodes[0]))["Roots"][0]
        node = await taken(cluster)
        [key] = stored_keys(node.data_dir)
        [found] = private_keys_in(opened(node.data_dir)[1].state)
        assert pki.spki(found.public_key()) == pki.spki(key.public_key())  # type: ignore[attr-defined]
        issuer, leaf, now = pki.load(root["RootCert"]), pki.key(number=3), int(time.time())
        forged = pki.certificate(
            leaf.public_key(),
            key,
            pki.leaf_extensions(leaf.public_key(), pki.key_id(key.public_key()), uri),
            issuer_name=issuer.subject,
            not_before=now - 60,
            not_after=now + 3600,
        )
        pki.openssl_verify(tmp_path, pki.pem(forged), [root["RootCert"]], now=now)


async def test_with_vault_one_server_has_a_login_that_can_be_taken_back(tmp_path: Path) -> None:
    """It signs while it is good, and every use is one that Vault can tell of. No key of the CA was ever here."""
    (tmp_path / "vault").mkdir()
    (tmp_path / "nodes").mkdir()
    with running_vault(tmp_path / "vault") as vault:
        config = vault.config(**{**_COMMON, "Token": vault.token_for(_EVERYTHING)})
        settings = {"connect": {"ca_provider": "vault", "ca_config": config}}
        async with LocalCluster(tmp_path / "nodes", settings=settings) as cluster:
            await cluster.start_all()
            await cluster.wait_ready()
            csr_pem, _ = make_csr(await cluster.service_uri())
            node = await taken(cluster)
            _, record = opened(node.data_dir)
            assert list(private_keys_in([dict(record.secrets), record.state, record.config_json])) == []
            assert {name for name, value in record.secrets.items() if value} == {"Token"}
            token = str(record.secrets["Token"])
            _issue(vault, config, csr_pem, token)
            vault.call("PUT", "auth/token/revoke", {"token": token})
            with pytest.raises(Refused, match="403"):
                _issue(vault, config, csr_pem, token)


def _issue(vault: VaultServer, config: dict[str, object], csr_pem: str, token: str) -> None:
    mount = str(config["RootPKIPath"]).strip("/")
    body = {"csr": csr_pem, "common_name": "a CA of the thief's", "ttl": "1h", "format": "pem"}
    answer = vault.call("POST", f"{mount}/root/sign-intermediate", body, token=token)
    assert "BEGIN CERTIFICATE" in answer["data"]["certificate"]
