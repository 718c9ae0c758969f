"""What a restored state holds is judged as what an operator brings: one thing wrong in it, and nothing changes."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.base.errors import Refused
from cluster.rpc.messages import RESTORE_JUDGED
from fsm.ca import CARoot, Intermediate
from fsm.state import State
from providers.pki import keys, x509
from tests.kit.acl_samples import binding_rule, method, policy, role, token
from tests.kit.backups import request_of
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, put, running, update
from tests.kit.wait import until

OTHER_ID = "99999999-2222-3333-4444-555555555555"


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    """Two clusters with the same seal key; the first has been rotated once, so that it has two roots and a link."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = FakeCluster(tmp_path / "one")
    (tmp_path / "two" / "seal.key").touch(0o600)
    (tmp_path / "two" / "seal.key").write_bytes((tmp_path / "one" / "seal.key").read_bytes())
    two = FakeCluster(tmp_path / "two")
    nodes = Node(one, "a"), Node(two, "a")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(*nodes))
        for node in nodes:
            await bootstrapped(node)
        await put(nodes[0], update({"PrivateKeyBits": 384}))
        await until(lambda: len(one.state.roots) == 2 and one.state.rotation is None)
        yield nodes
    one.close()
    two.close()


async def restore(node: Node, saved: State) -> None:
    await node.operations.run(RESTORE_JUDGED, request_of(node, saved))


def _root(state: State, **changes: Any) -> State:
    """The active one, changed."""
    return replace(state, roots=tuple(replace(r, **changes) if r.is_active else r for r in state.roots))


def _retired(state: State, **changes: Any) -> State:
    return replace(state, roots=tuple(r if r.is_active else replace(r, **changes) for r in state.roots))


def _link(state: State, **changes: Any) -> State:
    root = state.active_root
    assert root is not None
    [link] = root.intermediates
    return _root(state, intermediates=(replace(link, **changes),))


def _config(state: State, **changes: Any) -> State:
    assert state.config is not None
    return replace(state, config=replace(state.config, **changes))


def _acl(state: State, **tables: Any) -> State:
    return replace(state, acl=replace(state.acl, **tables))


def _in_upper_case(state: State) -> State:
    """The same trust domain to all who read certificates, and another text."""
    assert state.config is not None
    wanted = state.config.cluster_id.upper()
    roots = tuple(replace(root, external_trust_domain=wanted) for root in state.roots)
    return replace(_config(state, cluster_id=wanted), roots=roots)


def _other_root(cluster_id: str) -> CARoot:
    """A sound one, of somebody else's."""
    key = keys.generate(keys.KeyKind("ec", 256))
    validity = x509.Validity(x509.at(1_800_000_000), x509.at(1_900_000_000))
    cert = x509.build_root(key, "a stranger", f"spiffe://{cluster_id}.consul", 1 << 100, validity)
    pem = x509.cert_pem(cert)
    key_id = x509.colon_hex(x509.subject_key_id(cert))
    return CARoot(
        root_id=x509.root_id(pem),
        name="Consul CA Primary Cert",
        serial_number=(1 << 100) & ((1 << 64) - 1),
        key_id=key_id,
        signing_key_id=key_id,
        external_trust_domain=cluster_id,
        not_before=1_800_000_000,
        not_after=1_900_000_000,
        root_pem=pem,
        intermediates=(),
        is_active=False,
        private_key_type="ec",
        private_key_bits=256,
        rotated_out_at=1_800_000_001,
        prune_at=1_900_000_000,
    )


def _stranger(state: State) -> State:
    return replace(state, roots=(*state.roots, _other_root(OTHER_ID)))


def _forged_link(state: State) -> State:
    """A certificate of another CA's, said to be signed by the old root."""
    root = state.active_root
    assert root is not None
    [link] = root.intermediates
    forged = Intermediate(_other_root(OTHER_ID).root_pem, link.key_id, link.issuer_key_id, link.not_after)
    return _root(state, intermediates=(forged,))


def _swapped_root(state: State) -> State:
    """Sound in itself, and of this trust domain; but the provider holds another one's key."""
    assert state.config is not None
    other = replace(_other_root(state.config.cluster_id), is_active=True, rotated_out_at=0, prune_at=0)
    return replace(state, roots=(other,))


REFUSED: dict[str, tuple[Callable[[State], State], str]] = {
    "not_after 2**63": (lambda s: _root(s, not_after=1 << 63), "not_after is 9223372036854775808"),
    "not_after of another": (lambda s: _root(s, not_after=1_999_999_999), "is said to have end"),
    "not_before of another": (lambda s: _root(s, not_before=0), "is said to have beginning"),
    "serial of another": (lambda s: _root(s, serial_number=7), "is said to have serial number"),
    "key type of another": (lambda s: _root(s, private_key_type="rsa"), "is said to have key type"),
    "id of another": (lambda s: _root(s, root_id="aa:bb"), "is said to have id"),
    "no PEM": (lambda s: _root(s, root_pem="no PEM"), "no PEM-encoded certificate"),
    "PEM of nothing": (
        lambda s: _root(s, root_pem="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "cannot be restored",
    ),
    "no PEM of an old root": (lambda s: _retired(s, root_pem=""), "no PEM-encoded certificate"),
    "two roots in one": (lambda s: _root(s, root_pem=s.roots[0].root_pem + s.roots[1].root_pem), "cannot be restored"),
    "a stranger's root": (_stranger, "is said to have trust domain"),
    "trust domain of another": (lambda s: _config(s, cluster_id=OTHER_ID), "is said to have trust domain"),
    "trust domain of odd form": (lambda s: _config(s, cluster_id="a/../b"), "cluster_id"),
    "trust domain in upper case": (_in_upper_case, "config.cluster_id is "),
    "forged link": (_forged_link, "is not what is said of it"),
    "link to another key": (lambda s: _link(s, issuer_key_id=s.active_root.key_id), "is not what is said of it"),  # type: ignore[union-attr]
    "link that lasts longer": (lambda s: _link(s, not_after=1_999_999_999), "is not what is said of it"),
    "another root than the key": (_swapped_root, "cannot be restored"),
    "two active": (lambda s: _retired(s, is_active=True, rotated_out_at=0), "exactly one active"),
    "retired in the future": (lambda s: _retired(s, rotated_out_at=9_999_999_999), "rotated out in the future"),
    "tidied up to the future": (lambda s: replace(s, tidied_before=9_999_999_999), "tidied_before"),
    "tidied up to 2**63": (lambda s: replace(s, tidied_before=1 << 63), "tidied_before"),
    "configuration {": (lambda s: _config(s, config_json="{"), "not the one that was sealed with it"),
    "configuration changed": (lambda s: _config(s, config_json='{"LeafCertTTL":"24h"}'), "not the one that was sealed"),
    "leaf TTL changed": (lambda s: _config(s, leaf_ttl_seconds=1), "what it says of LeafCertTTL"),
    "another provider": (lambda s: _config(s, provider="vault"), "its state is of"),
    "provider that is missing": (lambda s: _config(s, provider_id="nobody"), "is missing"),
    "no configuration": (lambda s: replace(s, config=None), "without a configuration"),
    "no seal": (lambda s: replace(s, seal=None), "holds no CA"),
    "policies out of order": (lambda s: _acl(s, policies=(policy(2), policy(1))), "comes after"),
    "a policy twice": (lambda s: _acl(s, policies=(policy(1), policy(1, name="x"))), "is there twice"),
    "a policy of another's name": (
        lambda s: _acl(s, policies=(policy(1), policy(2, name="policy-1"))),
        "the same name",
    ),
    "roles out of order": (lambda s: _acl(s, roles=(role(2), role(1))), "comes after"),
    "a role twice": (lambda s: _acl(s, roles=(role(1), role(1, name="x"))), "is there twice"),
    "a role of another's name": (lambda s: _acl(s, roles=(role(1), role(2, name="role-1"))), "the same name"),
    "tokens out of order": (lambda s: _acl(s, tokens=(token(3), token(1))), "comes after"),
    "a token twice": (lambda s: _acl(s, tokens=(token(1), token(1, secret_hash=b"x" * 32))), "is there twice"),
    "a token of another's secret": (
        lambda s: _acl(s, tokens=(token(1), token(2, secret_hash=token(1).secret_hash))),
        "the same secret_hash",
    ),
    "methods out of order": (lambda s: _acl(s, methods=(method("b"), method("a"))), "comes after"),
    "a method twice": (lambda s: _acl(s, methods=(method("a"), method("a"))), "is there twice"),
    "binding rules out of order": (lambda s: _acl(s, binding_rules=(binding_rule(2), binding_rule(1))), "comes after"),
    "a binding rule twice": (lambda s: _acl(s, binding_rules=(binding_rule(1),) * 2), "is there twice"),
    "many roots": (lambda s: replace(s, roots=s.roots * 200), "has 400 bytes or items"),
    "half of a surrogate": (lambda s: _root(s, name="x" * 300), "has 300 characters"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_state_with_one_thing_wrong_is_refused_and_nothing_changes(two: tuple[Node, Node], name: str) -> None:
    source, target = two
    change, reason = REFUSED[name]
    before, log_index = target.cluster.state, target.cluster.log_index
    with pytest.raises(Refused) as refused:
        await restore(target, change(source.cluster.state))
    assert reason in str(refused.value)
    assert (target.cluster.state, target.cluster.log_index) == (before, log_index)
    assert target.authority.is_ready


async def test_sound_state_is_restored_with_its_links_also_when_it_has_expired(two: tuple[Node, Node]) -> None:
    """What has expired is brought back to be rotated, which is the way out."""
    source, target = two
    target.clock.advance(40 * 365 * 86_400)
    await restore(target, source.cluster.state)
    restored = target.cluster.state
    assert [root.root_id for root in restored.roots] == [root.root_id for root in source.cluster.state.roots]


async def test_rotation_that_was_under_way_is_judged_too(two: tuple[Node, Node]) -> None:
    source, target = two
    source.cluster.held = set()
    await put(source, update({"PrivateKeyBits": 521}, is_staged=True, wait_seconds=3600))
    await until(lambda: source.cluster.state.rotation is not None and source.cluster.state.rotation.published_index)
    saved = source.cluster.state
    rotation = saved.rotation
    assert rotation is not None
    assert rotation.root is not None
    assert rotation.root.root_id in {root.root_id for root in saved.roots}
    assert saved.config is not None
    link, *others = rotation.root.intermediates
    forged = replace(link, cert_pem=_other_root(saved.config.cluster_id).root_pem)
    before = target.cluster.state
    for bad in (
        replace(rotation, config=replace(rotation.config, config_json="{")),
        replace(rotation, root=replace(rotation.root, root_id="aa", root_pem="no PEM")),
        replace(rotation, wait_seconds=1 << 62),
        # Under the id of a root that is listed.
        replace(rotation, root=replace(_other_root(saved.config.cluster_id), root_id=rotation.root.root_id)),
        replace(rotation, root=replace(rotation.root, intermediates=(forged, *others))),
    ):
        with pytest.raises(Refused):
            await restore(target, replace(saved, rotation=bad))
        assert target.cluster.state is before
    await restore(target, saved)
    assert target.cluster.state.rotation is not None
