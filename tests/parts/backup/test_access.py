"""Access control in snapshots for keeping: what is saved of it, and what a restore brings where."""

from pathlib import Path

from cluster.access.first import first_acl
from cluster.access.secret_ids import SecretIds, new_key
from cluster.backup import file as backup
from fsm.acl import Acl, SetAuthMethod, SetPolicy, SetToken, Token
from fsm.commands import Applied, Command
from tests.kit import acl_samples as samples
from tests.kit.acl_samples import NOW, uuid
from tests.kit.backups import restore, snapshots
from tests.kit.fake_cluster import Node

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
    await restore(other, tmp_path / "s")
    acl = other.cluster.state.acl
    [token] = [token for token in acl.tokens if token.accessor_id == uuid(1)]
    assert token.secret_hash == SecretIds(lambda: acl.key, other.sealer).hashed(SECRET)
    assert [method.name for method in acl.methods] == ["jwt-1"]
    assert not [token for token in acl.tokens if token.auth_method]
