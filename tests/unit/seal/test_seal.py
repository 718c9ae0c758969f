"""Sealed keys: what opens where, and that a wrong or missing key stops a node with words that help."""

import base64
import contextlib
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cluster.base.config import NodeConfig, parse_config
from cluster.seal.node_file import NodeFile
from cluster.seal.sealer import Sealer
from cluster.seal.secret_files import exposure
from cluster.seal.sources import (
    FileKey,
    KeyAt,
    Passphrase,
    PassphraseFile,
    SealError,
    key_source,
    move_next_key,
    write_key_file,
)
from tests.kit.node_config import minimal

PASSPHRASE = "correct horse battery"


@pytest.fixture
def key_path(tmp_path: Path) -> Path:
    write_key_file(tmp_path / "seal.key")
    return tmp_path / "seal.key"


def unlocked(path: Path) -> Sealer:
    sealer = Sealer(FileKey(path))
    sealer.unlock(sealer.new_data_key())
    return sealer


def test_secret_opens_under_its_own_name_only(key_path: Path) -> None:
    sealer = unlocked(key_path)
    sealed = sealer.seal(b"secret", "provider state 1")
    assert b"secret" not in sealed
    assert sealer.open(sealed, "provider state 1") == b"secret"
    with pytest.raises(SealError, match="the sealed provider state 2 does not open"):
        sealer.open(sealed, "provider state 2")


def test_changed_byte_is_noticed(key_path: Path) -> None:
    sealer = unlocked(key_path)
    sealed = bytearray(sealer.seal(b"secret", "x"))
    sealed[-1] ^= 1
    with pytest.raises(SealError):
        sealer.open(bytes(sealed), "x")


def test_same_secret_never_seals_to_the_same_bytes(key_path: Path) -> None:
    sealer = unlocked(key_path)
    assert sealer.seal(b"secret", "x") != sealer.seal(b"secret", "x")


def test_other_node_with_the_same_key_opens_it(key_path: Path) -> None:
    first, second = Sealer(FileKey(key_path)), Sealer(FileKey(key_path))
    seal = first.new_data_key()
    with pytest.raises(SealError, match="no seal yet"):
        first.seal(b"secret", "x")  # in use only once it has been committed
    first.unlock(seal)
    second.unlock(seal)
    assert second.open(first.seal(b"secret", "x"), "x") == b"secret"


def test_each_cluster_has_a_data_key_of_its_own(key_path: Path) -> None:
    """Also when their seal key is the same, and under a nonce that is not used twice."""
    sealer = Sealer(FileKey(key_path))
    ours, theirs = sealer.new_data_key(), sealer.new_data_key()
    assert ours.wrapped_key[:12] != theirs.wrapped_key[:12]
    sealed = sealer.opened(ours).seal(b"secret", "x")
    with pytest.raises(SealError, match="does not open with this cluster's data key"):
        sealer.opened(theirs).open(sealed, "x")


def test_nothing_is_sealed_before_there_is_a_seal(key_path: Path) -> None:
    with pytest.raises(SealError, match="no seal yet"):
        Sealer(FileKey(key_path)).seal(b"secret", "x")


def test_wrong_key_does_not_unlock_and_names_both(key_path: Path, tmp_path: Path) -> None:
    seal = Sealer(FileKey(key_path)).new_data_key()
    write_key_file(tmp_path / "other.key")
    with pytest.raises(
        SealError,
        match=rf"The seal key with ID {seal.kek_id} is needed.*is [0-9a-f]{{16}} in .*/other\.key.*one in its place$",
    ):
        Sealer(FileKey(tmp_path / "other.key")).unlock(seal)


def test_other_source_does_not_unlock_and_says_what_to_set(key_path: Path) -> None:
    seal = Sealer(FileKey(key_path)).new_data_key()
    with pytest.raises(SealError, match=r'set seal\.source = "file"'):
        Sealer(Passphrase(PASSPHRASE)).unlock(seal)


def test_passphrase_opens_with_the_clusters_salt() -> None:
    first = Sealer(Passphrase(PASSPHRASE))
    seal = first.new_data_key()
    assert len(seal.salt) == 16
    first.unlock(seal)
    second = Sealer(Passphrase(PASSPHRASE))
    second.unlock(seal)
    assert second.open(first.seal(b"secret", "x"), "x") == b"secret"
    with pytest.raises(SealError):
        Sealer(Passphrase(PASSPHRASE + "!")).unlock(seal)


def test_passphrase_is_stretched_with_a_salt_of_each_cluster() -> None:
    """The value is what version 0.1.0 makes: whatever else comes out, no sealed key of it opens any more."""
    salt = bytes(range(16))
    expected = "0544bf8d8dd15c894d51f54589bad74b59be66dc834b9ea4b286764a04a35254"
    assert Passphrase(PASSPHRASE).key(salt).hex() == expected
    assert len({Passphrase(PASSPHRASE).new_salt() for _ in range(10)}) == 10


def test_short_passphrase_is_refused() -> None:
    with pytest.raises(SealError, match="at least 12 characters"):
        Passphrase("too short")


def test_key_file_is_private_and_never_replaced(key_path: Path) -> None:
    assert key_path.stat().st_mode & 0o777 == 0o600
    before = key_path.read_text()
    with pytest.raises(FileExistsError):
        write_key_file(key_path)
    assert key_path.read_text() == before


def test_missing_key_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SealError, match=r"seal key .* is missing: copy it .* `quorumca seal init`"):
        FileKey(tmp_path / "none").key(b"")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"quorumca-seal-key-1:",
        b"quorumca-seal-key-1:????",
        b"quorumca-seal-key-2:" + base64.b64encode(bytes(32)),
        b"quorumca-seal-key-1:" + base64.b64encode(bytes(31)),
        b"\xff\xfe",
    ],
)
def test_damaged_key_file_is_told_apart_from_a_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "seal.key").touch(0o600)
    (tmp_path / "seal.key").write_bytes(content)
    with pytest.raises(SealError, match="seal key"):
        FileKey(tmp_path / "seal.key").key(b"")


# -- at start


def test_node_with_the_key_of_before_starts(key_path: Path) -> None:
    sealer = unlocked(key_path)
    Sealer(FileKey(key_path)).check_node(sealer.node_facts())


def test_new_node_needs_a_key_too(tmp_path: Path) -> None:
    with pytest.raises(SealError, match="missing"):
        Sealer(FileKey(tmp_path / "none")).check_node(None)


def test_node_with_another_key_does_not_start(key_path: Path, tmp_path: Path) -> None:
    facts = unlocked(key_path).node_facts()
    write_key_file(tmp_path / "other.key")
    with pytest.raises(SealError, match=r"wrong seal key.*needs another one.*ID [0-9a-f]+ is needed"):
        Sealer(FileKey(tmp_path / "other.key")).check_node(facts)
    with pytest.raises(SealError, match="sealed with source 'file'"):
        Sealer(Passphrase(PASSPHRASE)).check_node(facts)


@pytest.mark.parametrize("facts", [{}, {"source": "file"}, {"source": "file", "kek_id": "x", "salt": "zz"}], ids=str)
def test_damaged_facts_are_an_error_with_words(key_path: Path, facts: dict[str, str]) -> None:
    with pytest.raises(SealError, match=r"node\.json"):
        Sealer(FileKey(key_path)).check_node(facts)


def test_facts_hold_no_key(key_path: Path) -> None:
    sealer = Sealer(FileKey(key_path))
    assert sealer.node_facts() is None
    seal = sealer.new_data_key()
    sealer.unlock(seal)
    assert sealer.node_facts() == {"source": "file", "kek_id": seal.kek_id, "salt": ""}


def test_unlocking_with_the_same_seal_again_reads_no_key(key_path: Path) -> None:
    sealer = Sealer(FileKey(key_path))
    seal = sealer.new_data_key()
    sealer.unlock(seal)
    os.unlink(key_path)
    sealer.unlock(replace(seal))


# -- node.json


def test_node_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = NodeFile(tmp_path)
    assert file.read() is None
    file.write({"node_name": "a", "seal": {"source": "file"}})
    file.write({"node_name": "b"})
    assert file.read() == {"node_name": "b"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.json"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "7", '["ab"]'])
def test_damaged_node_file_is_a_value_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "node.json").write_text(content)
    with pytest.raises(ValueError):  # noqa: PT011 - json's own, and ours
        NodeFile(tmp_path).read()


# -- where the key comes from


def _config(tmp_path: Path, **seal: str) -> NodeConfig:
    return parse_config(minimal(seal=seal, data_dir=str(tmp_path)), source="t")


def test_file_is_in_the_data_directory_unless_told_otherwise(tmp_path: Path, key_path: Path) -> None:
    expected = FileKey(key_path).key(b"")
    assert key_source(_config(tmp_path), {}).key(b"") == expected
    moved = tmp_path / "elsewhere"
    key_path.rename(moved)
    assert key_source(_config(tmp_path, key_file=str(moved)), {}).key(b"") == expected


def test_passphrase_comes_from_its_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "pass").touch(0o600)
    (tmp_path / "pass").write_text(PASSPHRASE + "\n")
    expected = Passphrase(PASSPHRASE).key(bytes(16))
    from_file = key_source(_config(tmp_path, source="passphrase", passphrase_file=str(tmp_path / "pass")), {})
    from_environment = key_source(_config(tmp_path, source="passphrase"), {"QUORUMCA_SEAL_PASSPHRASE": PASSPHRASE})
    assert from_file.key(bytes(16)) == from_environment.key(bytes(16)) == expected


def test_missing_passphrase_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(SealError, match=r"set QUORUMCA_SEAL_PASSPHRASE or seal\.passphrase_file"):
        key_source(_config(tmp_path, source="passphrase"), {})


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_passphrase_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "pass").touch(0o600)
        (tmp_path / "pass").write_bytes(content)
    with pytest.raises(SealError, match="passphrase file"):
        key_source(_config(tmp_path, source="passphrase", passphrase_file=str(tmp_path / "pass")), {})


# -- who else can read it


EXPOSED = (0o604, 0o640, 0o644, 0o660, 0o666, 0o620, 0o602, 0o610, 0o601, 0o777, 0o444, 0o440)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_file_of_its_user_alone_is_read(tmp_path: Path, key_path: Path, mode: int) -> None:
    key_path.chmod(mode)
    assert len(FileKey(key_path).key(b"")) == 32


@pytest.mark.parametrize("mode", EXPOSED, ids=oct)
def test_file_that_others_can_get_at_is_refused_with_its_mode(tmp_path: Path, key_path: Path, mode: int) -> None:
    (tmp_path / "pass").write_text(PASSPHRASE)
    for path, source in ((key_path, FileKey(key_path)), (tmp_path / "pass", PassphraseFile(tmp_path / "pass"))):
        path.chmod(mode)
        with pytest.raises(SealError, match=rf"{path} is not used: .* \(mode {mode:04o}, .*chmod 600 {path}"):
            source.key(bytes(16))
    with pytest.raises(SealError, match=f"mode {mode:04o}"):
        key_source(_config(tmp_path, source="passphrase", passphrase_file=str(tmp_path / "pass")), {})


def test_link_is_judged_by_what_it_leads_to(tmp_path: Path, key_path: Path) -> None:
    (tmp_path / "link").symlink_to(key_path)
    assert FileKey(tmp_path / "link").key(b"") == FileKey(key_path).key(b"")
    key_path.chmod(0o644)
    with pytest.raises(SealError, match="mode 0644"):
        FileKey(tmp_path / "link").key(b"")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe in its place would hold the node up for as long as nobody writes to it."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    for name in ("pipe", "directory"):
        with pytest.raises(SealError, match="no regular file"):
            FileKey(tmp_path / name).key(b"")


def test_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "seal.key").touch(0o600)
    (tmp_path / "seal.key").write_bytes(b"x" * (1 << 20))
    with pytest.raises(SealError, match="larger than 65536 bytes"):
        FileKey(tmp_path / "seal.key").key(b"")


def _status(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 10, 0, 0, 0))


@pytest.mark.parametrize(
    ("owner", "user", "is_fine"), [(7, 7, True), (0, 7, True), (8, 7, False), (0, 0, True), (8, 0, True)]
)
def test_owner_is_the_nodes_user_or_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, user: int, *, is_fine: bool
) -> None:
    """Whoever owns a file can read it, and change it. Root reads what it is given, as `quorumca doctor` does."""
    monkeypatch.setattr("os.geteuid", lambda: user)
    problem = exposure(tmp_path / "seal.key", _status(0o600, owner))
    assert (problem == "") is is_fine
    assert is_fine or f"belongs to user {owner}, not to user {user}" in problem


def test_credential_of_the_service_manager_may_show_a_groups_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd lets the service's user in by an access list, whose mask is where the group's rights are shown."""
    monkeypatch.setattr("os.geteuid", lambda: 7)
    credentials, elsewhere = tmp_path / "credentials", tmp_path / "elsewhere"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert exposure(credentials / "seal.key", _status(0o440, 0)) == ""
    for path, status in (
        (elsewhere / "seal.key", _status(0o440, 0)),
        (credentials / "seal.key", _status(0o440, 7)),
        (credentials / "seal.key", _status(0o444, 0)),
        (credentials / "seal.key", _status(0o460, 0)),
    ):
        assert "can get at it" in exposure(path, status)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert "can get at it" in exposure(credentials / "seal.key", _status(0o440, 0))


# -- while the key is changed


@pytest.fixture
def both(tmp_path: Path, key_path: Path) -> Sealer:
    """Of a node that has the key in force and the next one."""
    write_key_file(tmp_path / "seal.next.key")
    sealer = Sealer(FileKey(key_path), FileKey(tmp_path / "seal.next.key"), PassphraseFile(tmp_path / "next.pass"))
    sealer.unlock(sealer.new_data_key())
    return sealer


def test_next_seal_opens_with_the_next_key_alone(both: Sealer, key_path: Path, tmp_path: Path) -> None:
    seal = both.next_data_key(keeps_key=False)
    Sealer(FileKey(tmp_path / "seal.next.key")).unlock(seal)
    with pytest.raises(SealError, match=rf"The seal key with ID {seal.kek_id} is needed, and is not here"):
        Sealer(FileKey(key_path)).unlock(seal)
    with pytest.raises(SealError, match=r"ID .* is needed.*for a snapshot from before one, put it in .*/none\.key"):
        Sealer(FileKey(key_path), FileKey(tmp_path / "none.key")).unlock(seal)
    secret = both.opened(seal).seal(b"secret", "x")
    with pytest.raises(SealError, match="does not open with this cluster's data key"):
        both.open(secret, "x")
    assert not both.lacks(seal.source, seal.kek_id, seal.salt)
    assert "is not here" in Sealer(FileKey(key_path)).lacks(seal.source, seal.kek_id, seal.salt)


def test_data_key_alone_changes_under_the_key_in_force(both: Sealer, key_path: Path) -> None:
    seal = both.next_data_key(keeps_key=True)
    only = Sealer(FileKey(key_path))
    only.unlock(seal)
    with pytest.raises(SealError, match="does not open with this cluster's data key"):
        only.open(both.seal(b"secret", "x"), "x")


@pytest.mark.parametrize("fails", [False, True])
def test_data_key_changes_in_one_step(both: Sealer, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """Another thread may use the sealer at any moment of an `unlock`, and a step of it may fail."""

    def uses() -> tuple[object, ...]:
        return both.open(secret, "x"), both.mac(b"x"), both.draw_key(), both.node_facts()

    secret, seal = both.seal(b"secret", "x"), both.next_data_key(keeps_key=False)
    before = uses()
    seen: list[tuple[object, ...]] = []

    def watched(*args: Any, **more: Any) -> HKDF:
        seen.append(uses())
        if fails and len(seen) > 1:
            raise MemoryError
        return HKDF(*args, **more)

    monkeypatch.setattr("cluster.seal.sealer.HKDF", watched)
    with pytest.raises(MemoryError) if fails else contextlib.nullcontext():
        both.unlock(seal)
    assert len(seen) >= 2
    assert all(each == before for each in seen)
    if fails:
        assert uses() == before
    else:
        assert both.node_facts() != before[-1]
        assert both.mac(b"x") != before[1]


def test_sealer_of_the_seal_in_use_needs_no_key_and_is_not_changed_by_the_next(both: Sealer, key_path: Path) -> None:
    first = both.new_data_key()
    both.unlock(first)
    secret, facts = both.seal(b"secret", "x"), both.node_facts()
    key_path.unlink()
    own = both.opened(first)
    both.unlock(both.next_data_key(keeps_key=False))
    assert own.open(secret, "x") == b"secret"
    assert own.node_facts() == facts


def test_next_key_may_be_a_passphrase(both: Sealer, tmp_path: Path) -> None:
    (tmp_path / "next.pass").touch(0o600)
    (tmp_path / "next.pass").write_text(PASSPHRASE)
    with pytest.raises(SealError, match="which of them is meant"):
        both.next_data_key(keeps_key=False)
    (tmp_path / "seal.next.key").unlink()
    seal = both.next_data_key(keeps_key=False)
    assert (seal.source, len(seal.salt)) == ("passphrase", 16)
    Sealer(Passphrase(PASSPHRASE)).unlock(seal)


def test_change_without_another_key_is_refused(both: Sealer, key_path: Path, tmp_path: Path) -> None:
    (tmp_path / "seal.next.key").write_bytes(key_path.read_bytes())
    with pytest.raises(SealError, match="is the one in force"):
        both.next_data_key(keeps_key=False)
    (tmp_path / "seal.next.key").chmod(0o644)
    with pytest.raises(SealError, match="mode 0644"):
        both.next_data_key(keeps_key=False)
    (tmp_path / "seal.next.key").unlink()
    with pytest.raises(SealError, match=r"no next seal key: make one with `quorumca seal init"):
        both.next_data_key(keeps_key=False)
    with pytest.raises(SealError, match="no seal yet"):
        Sealer(FileKey(key_path)).next_data_key(keeps_key=True)


def test_node_starts_with_either_key_of_a_change_and_no_other(both: Sealer, key_path: Path, tmp_path: Path) -> None:
    before = both.node_facts()
    both.unlock(both.next_data_key(keeps_key=False))
    after = both.node_facts()
    assert both.key_at() is KeyAt.NEXT
    for facts in (before, after):
        Sealer(FileKey(key_path), FileKey(tmp_path / "seal.next.key")).check_node(facts)
    key_path.unlink()
    with pytest.raises(SealError, match="is missing"):
        Sealer(FileKey(key_path), FileKey(tmp_path / "seal.next.key")).check_node(before)
    Sealer(FileKey(key_path), FileKey(tmp_path / "seal.next.key")).check_node(after)
    (tmp_path / "seal.next.key").rename(key_path)
    assert both.key_at() is KeyAt.FIRST
    key_path.unlink()
    assert both.key_at() is KeyAt.NOWHERE
    assert after is not None
    assert both.kek(after["source"], after["kek_id"], bytes.fromhex(after["salt"]))


def test_key_in_the_first_place_is_known(both: Sealer, key_path: Path, tmp_path: Path) -> None:
    both.unlock(both.next_data_key(keeps_key=False))
    after = both.node_facts()
    (tmp_path / "seal.next.key").rename(key_path)
    Sealer(FileKey(key_path)).check_node(after)
    assert both.key_at() is KeyAt.FIRST


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_key_with_a_byte_order_mark_says_so(key_path: Path, encoding: str) -> None:
    """Which the editor that has written it does not show."""
    key_path.write_bytes(key_path.read_text().encode(encoding))
    with pytest.raises(SealError, match=r"cannot be read: it begins with a byte-order mark \(UTF-(8|16)\)"):
        FileKey(key_path).key(b"")


@pytest.mark.parametrize("source", ["file", "passphrase"])
def test_operator_is_told_which_file_to_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """What systemd copies at each start is no file to write to."""
    name = "seal.key" if source == "file" else "seal.passphrase"
    seal = {"source": source, "key_file" if source == "file" else "passphrase_file": str(tmp_path / name)}
    config = parse_config(minimal(data_dir=str(tmp_path / "data"), seal=seal), source="t")
    assert f"put it in the place of {tmp_path / name}, then" in move_next_key(config, source)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    said = move_next_key(config, source)
    assert f"the file that LoadCredential={name} names" in said
    assert f"/etc/quorumca/{name}), restart the node, then remove it there" in said
