"""Access control in snapshots for keeping: what is saved of it, and what a restore brings where."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.access.first import first_acl
from cluster.access.secret_ids import SecretIds, new_key
from cluster.backup import file as backup
from cluster.base.errors import Refused
from fsm.acl import GLOBAL_MANAGEMENT, Acl, DeleteTokens, SetAuthMethod, SetPolicy, SetToken, Token
from fsm.commands import Applied, Command
from fsm.nodes import Nodes
from fsm.state import State
from tests.kit import acl_samples as samples
from tests.kit import nodes_samples
from tests.kit.acl_samples import NOW, uuid
from tests.kit.backups import restore, snapshots
from tests.kit.fake_cluster import Node
from tests.parts.backup.test_trust import packed, parts_of, with_new_sums, with_state

#: More than a snapshot has room for: each has 16 KB.
_MANY = 100
SECRET = uuid(0xA0)

Two = tuple[Node, Node]


def _login(number: int) -> Token:
    text = "\U0001f600" * 4096
    return Token(uuid(number), number.to_bytes(32, "big"), text, auth_method="jwt-1", created_at=NOW)


def _set_up(node: Node, *, logins: int = 0) -> None:
    """With a token that somebody has made, and some of logins."""
    cluster = node.cluster
    commands: list[Command] = [
        first_acl(*new_key(node.sealer), NOW),
        SetAuthMethod(samples.method(sealed=node.sealer.seal_bare("auth method jwt-1", b"{}"))),
    ]
    for command in commands:
        assert isinstance(cluster.commit(command), Applied)
    hashed = SecretIds(lambda: cluster.state.acl.key, node.sealer).hashed(SECRET)
    made = SetToken(Token(uuid(1), hashed, "made by hand", created_at=NOW))
    assert isinstance(cluster.commit(made), Applied)
    for number in range(2, 2 + logins):
        assert isinstance(cluster.commit(SetToken(_login(number))), Applied)


async def test_tokens_of_logins_are_not_kept_and_so_many_keep_nobody_from_saving(two: Two, tmp_path: Path) -> None:
    source, _ = two
    _set_up(source, logins=_MANY)
    await snapshots(source).save(tmp_path / "s")
    with_tokens = backup.read(tmp_path / "s").state.acl.tokens
    assert [token.accessor_id for token in with_tokens if token.auth_method] == []
    assert uuid(1) in [token.accessor_id for token in with_tokens]


async def test_own_backup_is_restored_however_much_access_control_there_is(two: Two, tmp_path: Path) -> None:
    """None of it is taken, so none of it needs room in the log."""
    source, _ = two
    _set_up(source)
    for number in range(100, 200):
        policy = samples.policy(number, name=f"p{number}", rules="#" * 9000)
        assert isinstance(source.cluster.commit(SetPolicy(policy)), Applied)
    await snapshots(source).save(tmp_path / "s")
    before: Acl = source.cluster.state.acl
    await restore(source, tmp_path / "s")
    assert source.cluster.state.acl == before


async def test_token_that_somebody_made_is_good_in_another_cluster(two: Two, tmp_path: Path) -> None:
    source, other = two
    _set_up(source, logins=3)
    await snapshots(source).save(tmp_path / "s")
    *_, told = await restore(other, tmp_path / "s")
    assert told.startswith(f"The trust domain is now {source.cluster.state.trust_domain}: tokens, policies, roles and ")
    assert "are from now on those of the snapshot (tokens: 2); " in told  # the anonymous one and this
    acl = other.cluster.state.acl
    [token] = [token for token in acl.tokens if token.accessor_id == uuid(1)]
    assert token.secret_hash == SecretIds(lambda: acl.key, other.sealer).hashed(SECRET)
    assert [method.name for method in acl.methods] == ["jwt-1"]
    assert not [token for token in acl.tokens if token.auth_method]


# -- files that no seal key vouches for: whoever can write backups has taken their MAC away, and an operator forces them


def _managing(state: State) -> State:
    """Whoever has the secret of any token may do everything, and is a server's maker, too."""
    tokens = tuple(replace(token, policies=(GLOBAL_MANAGEMENT,)) for token in state.acl.tokens)
    nodes = Nodes(nodes_samples.agent_ca(), (nodes_samples.join_token(name="mine"),))
    return replace(state, acl=replace(state.acl, tokens=tokens), nodes=nodes, nodes_index=state.index)


def _in_upper_case(state: State) -> State:
    assert state.config is not None
    cluster_id = state.config.cluster_id.upper()
    roots = tuple(replace(root, external_trust_domain=cluster_id) for root in state.roots)
    return replace(state, config=replace(state.config, cluster_id=cluster_id), roots=roots)


def _forge(path: Path, change: Callable[[State], State]) -> None:
    packed(path, with_new_sums(with_state(parts_of(path), change), mac=""))


async def _saved_with_a_token_revoked_since(node: Node, path: Path) -> None:
    _set_up(node)
    await snapshots(node).save(path)
    assert isinstance(node.cluster.commit(DeleteTokens((uuid(1),))), Applied)


@pytest.mark.parametrize("is_own", [True, False])
async def test_file_that_no_seal_key_vouches_for_brings_no_rights_even_by_force(
    two: Two, tmp_path: Path, *, is_own: bool
) -> None:
    source, other = two
    await _saved_with_a_token_revoked_since(source, tmp_path / "s")
    target = source if is_own else other
    if not is_own:
        _set_up(other)
    before = target.cluster.state
    _forge(tmp_path / "s", _managing)
    with pytest.raises(Refused, match="; tokens, policies, roles and auth methods stay as they are here; if you know"):
        await restore(target, tmp_path / "s")
    *_, told = await restore(target, tmp_path / "s", is_forced=True)
    assert told.endswith("tokens, policies, roles and auth methods stay as they are here")
    after = target.cluster.state
    assert after.trust_domain == source.cluster.state.trust_domain
    assert (after.acl, after.acl_index) == (before.acl, before.acl_index)
    assert (after.nodes, after.nodes_index) == (before.nodes, before.nodes_index)


async def test_own_backup_is_none_of_another_cluster_for_being_spelt_otherwise(two: Two, tmp_path: Path) -> None:
    source, _ = two
    await _saved_with_a_token_revoked_since(source, tmp_path / "s")
    before = source.cluster.state
    _forge(tmp_path / "s", lambda state: _in_upper_case(_managing(state)))
    for is_forced in (False, True):
        with pytest.raises(Refused):
            await restore(source, tmp_path / "s", is_forced=is_forced)
    assert source.cluster.state == before
