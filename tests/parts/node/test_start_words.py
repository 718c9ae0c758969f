"""A node that cannot start says which file or setting is at fault, in words of our own, and ends with 1."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from cluster.base.config import load_config
from cluster.cli.dev.local_cluster import LocalNode, make_node, make_shared
from cluster.main import run
from cluster.node.start import StartError, _check_connect
from cluster.seal.sources import SealError, key_source
from tests.kit.log import EventLog
from tests.kit.ports import free_ports
from tests.kit.words import ODD_CONTENTS, assert_plain

#: File in the directory of the cluster -> how the text names it.
FILES = {
    "tls/consul-agent-ca.pem": "tls.ca_file",
    "ca-1/cert.pem": "tls.cert_file",
    "ca-1/key.pem": "tls.key_file",
    "ca-1/data/seal.key": "seal",
    "ca-1/data/node.json": "node.json",
}
CONTENTS = [name for name, content in ODD_CONTENTS.items() if len(content) < 1 << 16]


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """A node has its process for itself: signals, logging and the interpreter are set up for it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    seconds = sys.getswitchinterval()
    yield
    sys.setswitchinterval(seconds)
    structlog.reset_defaults()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _node(root: Path) -> LocalNode:
    make_shared(root)
    http, rpc, raft = (f"127.0.0.1:{port}" for port in free_ports(3))
    node = LocalNode("ca-1", root / "ca-1", http, rpc, raft)
    make_node(root, node, [node])
    return node


def _refusal(node: LocalNode, capfd: pytest.CaptureFixture[str]) -> str:
    capfd.readouterr()
    assert run(load_config(node.config, {})) == 1
    lines = capfd.readouterr().err.strip().splitlines()
    (text,) = [line for line in lines if line.startswith("quorumca: ")]
    for line in lines:
        assert_plain(line)
    return text


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("file", FILES)
def test_odd_file_of_a_node_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], file: str, content: str
) -> None:
    node, path = _node(tmp_path), tmp_path / file
    path.write_bytes(ODD_CONTENTS[content])
    text = _refusal(node, capfd)
    assert FILES[file] in text
    assert str(path) in text or path.name in text


def _directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize("do", [Path.unlink, _directory])
@pytest.mark.parametrize("file", list(FILES)[:4])
def test_missing_file_or_a_directory_in_its_place_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], file: str, do: Callable[[Path], None]
) -> None:
    node, path = _node(tmp_path), tmp_path / file
    do(path)
    text = _refusal(node, capfd)
    assert FILES[file] in text
    assert str(path) in text


def test_data_directory_that_is_a_file_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    node = _node(tmp_path)
    for name in os.listdir(node.data_dir):
        (node.data_dir / name).unlink()
    node.data_dir.rmdir()
    node.data_dir.write_text("")
    text = _refusal(node, capfd)
    assert text.startswith(f"quorumca: data_dir {node.data_dir} is no directory: ")


#: Which of these is no text, or too short for a passphrase, and so refused.
NO_PASSPHRASE = ("empty", "spaces", "nul", "UTF-16", "Latin-1", "DER", "gzip", "list")


@pytest.mark.parametrize("content", NO_PASSPHRASE)
def test_odd_passphrase_file_is_refused_in_plain_words(tmp_path: Path, content: str) -> None:
    node, path = _node(tmp_path), tmp_path / "odd.passphrase"
    path.write_bytes(ODD_CONTENTS[content])
    path.chmod(0o600)
    environment = {"QUORUMCA_SEAL__SOURCE": "passphrase", "QUORUMCA_SEAL__PASSPHRASE_FILE": str(path)}
    with pytest.raises(SealError, match="the seal passphrase") as caught:
        key_source(load_config(node.config, environment)).key(b"salt" * 4)
    assert_plain(str(caught.value))


# -- what a new CA would be made of


def _with_connect(node: LocalNode, text: str) -> None:
    node.config.write_text(f"{node.config.read_text()}\n{text}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[connect]\nca_provider = "valt"', "connect.ca_provider = 'valt': must be 'consul' or 'vault'"),
        ('[connect.ca_config]\nleaf_cert_ttl = "72x"', 'unknown unit "x" in duration "72x"'),
    ],
    ids=["provider", "duration"],
)
def test_new_node_does_not_start_with_what_no_ca_can_be_made_of(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    node = _node(tmp_path)
    _with_connect(node, text)
    with pytest.raises(StartError):
        _check_connect(load_config(node.config, {}), EventLog(), is_new=True)
    assert said in _refusal(node, capfd)


def test_node_with_data_starts_with_it_as_before_and_says_so(tmp_path: Path) -> None:
    """The file has had no effect since there is a CA: an upgrade must not stop the node."""
    node, log = _node(tmp_path), EventLog()
    _with_connect(node, '[connect]\nca_provider = "valt"\n[connect.ca_config]\nleaf_cert_tttl = "72h"')
    _check_connect(load_config(node.config, {}), log, is_new=False)
    assert log.names() == ["config.without_effect"]
    _with_connect(node, "")
    node.config.write_text(node.config.read_text().replace("valt", "consul"))
    _check_connect(load_config(node.config, {}), log, is_new=True)
    assert log.events[1:] == [("config.unknown_key", {"keys": "leaf_cert_tttl", "section": "connect.ca_config"})]


# -- tokens in files


@pytest.mark.parametrize(
    ("key", "content", "mode", "said"),
    [
        ("agent_token_file", b"secret", 0o644, "others can get at it (mode 0644, must be 0600 or 0400): chmod 600 "),
        ("agent_token_file", b"secret", 0o640, "its group can get at it (mode 0640, must be 0600 or 0400): chmod 600 "),
        ("agent_token_file", b"sec ret", 0o600, "holds no token: must be one line of 1 to 4096 characters"),
        ("agent_token_file", None, 0, "is not there"),
        ("initial_management_file", b"secret", 0o600, "holds no SecretID: must be a UUID"),
        ("initial_management_file", b"secret", 0o644, "others can get at it"),
    ],
)
def test_token_file_that_cannot_be_used_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], key: str, content: bytes | None, mode: int, said: str
) -> None:
    node, path = _node(tmp_path), tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    _with_connect(node, f'[acl]\n{key} = "{path}"')
    text = _refusal(node, capfd)
    assert text.startswith(f"quorumca: acl.{key} {path}")
    assert said in text
    assert "sec" not in text.replace("SecretID", "").replace(str(path), "")
