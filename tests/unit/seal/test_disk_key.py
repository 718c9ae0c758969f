"""`mac.key`: whose files a data directory's are, and whether they must say so."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.seal.disk_key import MAC_KEY, DiskKeyFile
from cluster.seal.sealer import Sealer
from cluster.seal.sources import FileKey, Passphrase, SealError, write_key_file


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    write_key_file(tmp_path / "seal.key")
    return Sealer(FileKey(tmp_path / "seal.key"))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "data" / "wal").mkdir(parents=True)
    return tmp_path / "data"


def test_new_directory_has_a_key_of_its_own_and_files_need_macs_at_once(data_dir: Path, sealer: Sealer) -> None:
    made = DiskKeyFile(data_dir, "a", sealer).open()
    assert made.is_required
    assert DiskKeyFile(data_dir, "a", sealer).open() == made
    text = (data_dir / MAC_KEY).read_text()
    assert made.key.hex() not in text
    assert (data_dir / MAC_KEY).stat().st_mode & 0o777 == 0o600
    (data_dir / MAC_KEY).unlink()
    assert DiskKeyFile(data_dir, "a", sealer).open().key != made.key


@pytest.mark.parametrize("name", ["snapshot", "wal/0000000000000001.wal"])
def test_directory_with_files_of_the_release_before_needs_them_once_it_is_established(
    data_dir: Path, sealer: Sealer, name: str
) -> None:
    (data_dir / name).write_bytes(b"x")
    file = DiskKeyFile(data_dir, "a", sealer)
    first = file.open()
    assert not first.is_required
    assert file.open() == first  # as after a crash before all was written anew
    file.establish()
    again = DiskKeyFile(data_dir, "a", sealer).open()
    assert (again.key, again.is_required) == (first.key, True)


def test_where_macs_are_always_required_removing_the_key_is_no_way_around_them(data_dir: Path, sealer: Sealer) -> None:
    """What the node's settings say is not in the data directory."""
    file = DiskKeyFile(data_dir, "a", sealer)
    assert file.open(always_requires=True).is_required  # a new node
    (data_dir / "wal" / "0000000000000001.wal").write_bytes(b"x")
    (data_dir / MAC_KEY).unlink()
    with pytest.raises(SealError, match=r"mac\.key is missing beside a log .* seal\.require_macs is true"):
        file.open(always_requires=True)
    assert not (data_dir / MAC_KEY).exists()
    assert not file.open(always_requires=True, accepts_without=True).is_required


def test_files_without_macs_are_accepted_again_only_when_that_is_said(data_dir: Path, sealer: Sealer) -> None:
    file = DiskKeyFile(data_dir, "a", sealer)
    made = file.open()
    (data_dir / "snapshot.mac").write_bytes(b"of a snapshot that is gone")
    again = file.open(accepts_without=True)
    assert (again.key, again.is_required) == (made.key, False)
    assert not (data_dir / "snapshot.mac").exists()
    file.establish()
    assert file.open().is_required


def _other_node(_path: Path) -> str:
    return "b"


def _flipped(path: Path) -> str:
    facts = json.loads(path.read_text())
    facts["wrapped"] = facts["wrapped"][:-1] + ("0" if facts["wrapped"][-1] != "0" else "1")
    path.write_text(json.dumps(facts))
    return "a"


def _text(path: Path) -> str:
    path.write_text("{")
    return "a"


def _list(path: Path) -> str:
    path.write_text("[]")
    return "a"


def _without_a_salt(path: Path) -> str:
    path.write_text(json.dumps({**json.loads(path.read_text()), "salt": 5}))
    return "a"


@pytest.mark.parametrize("change", [_other_node, _flipped, _text, _list, _without_a_salt])
def test_key_that_was_changed_or_is_of_another_node_is_refused(
    data_dir: Path, sealer: Sealer, change: Callable[[Path], str]
) -> None:
    DiskKeyFile(data_dir, "a", sealer).open()
    name = change(data_dir / MAC_KEY)
    with pytest.raises(SealError, match=r"mac\.key is damaged or of another node"):
        DiskKeyFile(data_dir, name, sealer).open()


def test_mark_that_files_need_macs_cannot_be_changed_without_the_seal_key(data_dir: Path, sealer: Sealer) -> None:
    """A file of before it was made required fits; one made up does not."""
    file = DiskKeyFile(data_dir, "a", sealer)
    file.open()
    facts = json.loads((data_dir / MAC_KEY).read_text())
    wrapped = bytearray.fromhex(facts["wrapped"])
    wrapped[12 + 32] ^= 0x01  # behind the nonce and the key: the mark, as a stream cipher leaves it
    (data_dir / MAC_KEY).write_text(json.dumps({**facts, "wrapped": wrapped.hex()}))
    with pytest.raises(SealError):
        file.open()


def test_other_seal_key_is_refused_with_words_that_help(data_dir: Path, sealer: Sealer, tmp_path: Path) -> None:
    DiskKeyFile(data_dir, "a", sealer).open()
    write_key_file(tmp_path / "other.key")
    with pytest.raises(SealError, match="wrong seal key"):
        DiskKeyFile(data_dir, "a", Sealer(FileKey(tmp_path / "other.key"))).open()
    with pytest.raises(SealError, match=r"source 'file', but seal\.source is 'passphrase'"):
        DiskKeyFile(data_dir, "a", Sealer(Passphrase("correct horse battery"))).open()


def test_key_follows_the_clusters_seal(data_dir: Path) -> None:
    """The salt of a passphrase is the cluster's, which a new node does not know."""
    sealer = Sealer(Passphrase("correct horse battery"))
    file = DiskKeyFile(data_dir, "a", sealer)
    made = file.open()
    file.follow()  # there is no seal yet
    before = json.loads((data_dir / MAC_KEY).read_text())
    seal = sealer.new_data_key()
    sealer.unlock(seal)
    file.follow()
    after = json.loads((data_dir / MAC_KEY).read_text())
    assert before["salt"] != after["salt"] == seal.salt.hex()
    assert file.open() == made
    content = (data_dir / MAC_KEY).read_bytes()
    file.follow()
    assert (data_dir / MAC_KEY).read_bytes() == content
