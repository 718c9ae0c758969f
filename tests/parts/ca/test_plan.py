"""What is foretold of a rotation comes true: how long chains get, and which clients are lost, and when."""

import random
import time
from collections.abc import AsyncIterator
from typing import Final

import pytest
from cryptography import x509

from cluster.api.ca import RotateRequest
from cluster.base.clock import rfc3339
from cluster.signing.serials import new_serial
from fsm.ca import CARoot
from fsm.links import cut_off, cut_off_early
from providers.errors import ChainInvalid
from providers.pki import verify
from providers.pki.serials import serial_bytes
from tests.kit import pki
from tests.kit.callers import anybody
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, put, running, update
from tests.kit.wait import until

HOUR: Final = 3600
LEAF_TTL: Final = 72 * HOUR
#: An allowance is made for what a provider has yet to choose: kind of key, serials, names in a CSR.
SLACK_BYTES: Final = 8 << 10


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("cluster.ca.leader._LOOK_SECONDS", 0.02)


@pytest.fixture
async def node(cluster: FakeCluster) -> AsyncIterator[Node]:
    node = Node(cluster, "a", clock=FakeClock(now=int(time.time()) + 120))
    async with running(node):
        await bootstrapped(node)
        yield node


def own(node: Node, name: str, *, extra: int = 0, seconds: int = 20 * pki.YEAR) -> dict[str, object]:
    """An operator's root with this name, so many bytes of an extension, and so long to live."""
    private = pki.key(number=len(name))
    public, now = private.public_key(), int(node.clock.now())
    extensions = pki.ca_extensions(public, pki.key_id(public), uris=[f"spiffe://{node.cluster.state.trust_domain}"])
    if extra:
        extensions.append((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"x" * extra), False))
    # The limit of 64 characters of a common name is not everybody's.
    parts = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, name[at : at + 60]) for at in range(0, len(name), 60)]
    root = pki.certificate(
        public,
        private,
        extensions,
        not_before=now - HOUR,
        not_after=now + seconds,
        issuer_name=x509.Name(parts),
        subject_name=x509.Name(parts),
    )
    return {"PrivateKey": pki.key_pem(private), "RootCert": pki.pem(root)}


async def use(node: Node, config: dict[str, object] | None = None) -> CARoot:
    """The operator's root, or one that is generated."""
    node.clock.advance(60)
    bits = random.choice((256, 384))
    config = config or {"PrivateKey": "", "RootCert": "", "PrivateKeyBits": bits, "LeafCertTTL": "72h"}
    wanted = update({"LeafCertTTL": "72h", "CSRMaxPerSecond": 0, **config})
    rotation_id = await put(node, wanted, request_id=random.randbytes(8))
    await node.reconfigurer.wait_for_rotation(rotation_id)
    root = node.cluster.state.active_root
    assert root is not None
    return root


async def chain_of(node: Node) -> str:
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    csr_pem = pki.csr_pem(uri=f"spiffe://{node.cluster.state.trust_domain}/ns/default/dc/dc1/svc/web")
    return (await node.authority.sign(csr_pem, serial_bytes(new_serial()), "test", anybody)).cert_pem


def accepts(node: Node, root: CARoot, chain_pem: str) -> bool:
    stores = {"it": [root.root_pem], "all": [listed.root_pem for listed in node.cluster.state.roots]}
    try:
        verify.verify_leaf(chain_pem, stores, now=int(node.clock.now()))
    except ChainInvalid:
        return False
    return True


@pytest.mark.parametrize(
    "names", [["n" * 6000], ["n" * 4000, "m" * 2000], ["m" * 2000, "n" * 200, "o" * 1000], ["short", "shorter"]]
)
async def test_chain_has_no_more_bytes_than_were_planned_and_not_many_less(node: Node, names: list[str]) -> None:
    for name in names:
        config = own(node, name, extra=2000)
        root_pem = str(config["RootCert"])
        planned = await node.rotator.check(node.cluster.state, "consul", root_pem, is_forced=False)
        await use(node, config)
        size = len(await chain_of(node))
        assert size <= planned.size <= size + SLACK_BYTES, name[:1]
    plan = await node.operator_rotation.plan(RotateRequest())
    await use(node)
    size = len(await chain_of(node))
    assert size <= plan.chain_bytes <= size + SLACK_BYTES


async def test_older_root_that_is_lost_when_the_one_in_between_ends_is_named_with_the_time(node: Node) -> None:
    first = node.cluster.state.active_root
    assert first is not None
    short = await use(node, own(node, "short", seconds=3 * HOUR))
    end = short.not_after
    assert [(root.root_id, at) for root, at in cut_off_early(node.cluster.state.roots, node.clock.now())] == [
        (first.root_id, end)
    ]
    words = f"ends at {rfc3339(end)}: from then on clients that know no newer root refuse them"
    await until(lambda: any(first.root_id in text for text in node.health.now.warnings))
    [lost] = [text for text in node.health.now.warnings if first.root_id in text]
    assert any("sooner than leaves with LeafCertTTL" in text for text in node.health.now.warnings)
    plan = await node.operator_rotation.plan(RotateRequest())
    assert lost in plan.risks
    assert lost.endswith(words)
    assert plan.retired_until == end
    await use(node)
    await until(lambda: any(first.root_id in text for text in node.health.now.warnings))
    node.clock.advance(end - node.clock.now() - 1)
    assert accepts(node, first, await chain_of(node))
    assert cut_off(node.cluster.state.roots, node.clock.now()) == ()
    node.clock.advance(2)
    assert not accepts(node, first, await chain_of(node))
    assert {root.root_id for root in cut_off(node.cluster.state.roots, node.clock.now())} == {
        first.root_id,
        short.root_id,
    }


async def test_roots_that_last_are_no_reason_for_a_warning(node: Node) -> None:
    await use(node, own(node, "long"))
    await use(node)
    assert cut_off_early(node.cluster.state.roots, node.clock.now()) == ()
    plan = await node.operator_rotation.plan(RotateRequest())
    assert plan.retired_until == int(node.clock.now()) + 2 * LEAF_TTL
    assert len(plan.risks) == 1
    assert node.health.now.warnings == ()
