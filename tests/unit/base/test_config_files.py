"""A node's file that is no TOML: the file, where in it, and what is allowed."""

from pathlib import Path

import pytest

from cluster.base.config import load_config
from cluster.base.errors import ConfigError
from tests.kit.words import ODD_CONTENTS, assert_plain


@pytest.mark.parametrize("content", ODD_CONTENTS)
def test_odd_file_is_refused_in_plain_words(tmp_path: Path, content: str) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(ODD_CONTENTS[content])
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    for line in str(caught.value).splitlines():
        assert line.startswith(f"{path}: ")
        assert_plain(line)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfnode_name = 'a'\n", "begins with a byte-order mark (UTF-8): must be UTF-8 without one"),
        ("node_name = 'a'\n".encode("utf-16"), "begins with a byte-order mark (UTF-16): must be UTF-8 without one"),
        (b"a = 1\nb = '\xe9'\n", "is not UTF-8 text (line 2)"),
        (b"a = " + b"9" * 5000, "holds a number that is too long"),
        (b"a = " + b"[" * 20_000, "is nested too deeply"),
        (b"#" * ((1 << 20) + 1), "is larger than 1048576 bytes"),
        (b"a = \n", "Invalid value (at line 1, column 5): must be TOML"),
    ],
)
def test_what_is_wrong_with_it_is_said(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    assert str(caught.value) == f"{path}: {text}"


def test_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path, {})
