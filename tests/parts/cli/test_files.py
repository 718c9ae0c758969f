import io
import os
import stat
from pathlib import Path

import pytest

from cluster.cli.files import PRIVATE, new_file, new_file_at_end, read_text, replaced_at_end, save_pair
from cluster.client.errors import CommandError


def test_read_text_of_a_file_and_of_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("text")
    assert read_text("a", 4) == "text"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("ä".encode())))
    assert read_text("-", 10) == "ä"


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "a: No such file or directory"), (b"12345", "a: is larger than 4 bytes"), (b"\xff", "a: is not a text")],
)
def test_read_text_refuses(tmp_path: Path, content: bytes | None, text: str) -> None:
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(CommandError, match=f"^{text}"):
        read_text("a", 4)


def test_new_file_is_private_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with new_file(path, PRIVATE) as file:
        assert stat.S_IMODE(path.stat().st_mode) == PRIVATE
        file.write("secret")
    assert path.read_text() == "secret"


def test_new_file_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    with pytest.raises(CommandError, match=r"key already exists\.$"), new_file(path, PRIVATE):
        pass
    assert path.read_text() == "old"


def test_new_file_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(CommandError, match="already exists"), new_file(tmp_path / "link", PRIVATE):
        pass
    assert not os.path.lexists(tmp_path / "target")


def test_new_file_is_gone_when_its_block_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "key", PRIVATE):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_new_file_in_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file or directory"), new_file(tmp_path / "no" / "key", PRIVATE):
        pass


def test_save_pair_is_both_or_neither(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("old")
    with pytest.raises(CommandError, match="key already exists"):
        save_pair((tmp_path / "cert", "C"), (tmp_path / "key", "K"))
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    save_pair((tmp_path / "cert", "C"), (tmp_path / "key2", "K"))
    assert ((tmp_path / "cert").read_text(), (tmp_path / "key2").read_text()) == ("C", "K")


def test_new_file_at_end_is_there_when_its_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with new_file_at_end(path) as file:
        file.write(b"x")
        assert not path.exists()
        assert stat.S_IMODE(Path(file.name).stat().st_mode) == PRIVATE
    assert ([one.name for one in tmp_path.iterdir()], path.read_bytes()) == (["a"], b"x")


def test_new_file_at_end_never_replaces_what_came_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(CommandError, match=r"a already exists\.$"), new_file_at_end(path):
        path.write_text("other")
    assert ([one.name for one in tmp_path.iterdir()], path.read_text()) == (["a"], "other")


def test_replaced_at_end_is_the_old_file_until_its_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for old, new in ((None, b"1"), (b"1", b"2")):
        with replaced_at_end(path) as file:
            file.write(new)
            assert (path.read_bytes() if path.exists() else None) == old
            assert stat.S_IMODE(Path(file.name).stat().st_mode) == PRIVATE
        assert ([one.name for one in tmp_path.iterdir()], path.read_bytes()) == (["a"], new)
        assert stat.S_IMODE(path.stat().st_mode) == PRIVATE
        path.chmod(0o644)


def test_replaced_at_end_leaves_the_old_file_when_its_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replaced_at_end(path):
        raise KeyboardInterrupt
    assert ([one.name for one in tmp_path.iterdir()], path.read_text()) == (["a"], "old")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.with_name("target"))])
def test_replaced_at_end_refuses_what_is_no_file(tmp_path: Path, make: object) -> None:
    assert callable(make)
    path = tmp_path / "a"
    make(path)
    with pytest.raises(CommandError, match="a: must be a regular file, no link"), replaced_at_end(path):
        pass
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_replaced_at_end_does_not_follow_a_link_that_comes_meanwhile(tmp_path: Path) -> None:
    path, target = tmp_path / "a", tmp_path / "target"
    target.write_text("theirs")
    with replaced_at_end(path) as file:
        file.write(b"secret")
        path.symlink_to(target)
    assert (path.is_symlink(), path.read_text(), target.read_text()) == (False, "secret", "theirs")
