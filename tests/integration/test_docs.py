"""What the documents tell people to type works when typed.

Blocks tagged `shell` of one document are run in order, by one bash that stops at the first failure, in a directory
where `.venv/bin/python` and a cluster's `.quorumca/` are as `make cluster` leaves them. The ports that documents name
become those of the test's cluster. Lines that begin with `make` are left out: it is they that the test stands for.
Blocks under any other tag are only to be read.
"""

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import pytest

from tests.integration.test_dev import dev
from tests.kit.ports import free_port_offset
from tests.kit.vault_server import bao_binary, running_vault

PROJECT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", *sorted(str(path.relative_to(PROJECT)) for path in PROJECT.glob("docs/*.md"))]
RUN_SECONDS = 180.0

_BLOCK = re.compile(r"^```(?P<tag>\S*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
#: HTTP, RPC and Raft of the five nodes that a local cluster has at most, and where machines ask to join it.
_ADDRESS = re.compile(r"(?P<host>127\.0\.0\.1|localhost):(?P<port>8[3456]0[0-4])\b")


def shell_script(document: str, port_offset: int) -> str:
    """All commands of a document as one script, which says in which line of it each block begins."""
    parts = ["set -euo pipefail"]
    for block in _BLOCK.finditer(document):
        if block["tag"] == "shell":
            line = document.count("\n", 0, block.start()) + 2
            commands = [text for text in block["text"].splitlines() if not text.startswith("make ")]
            parts += [f"echo '--- line {line}' >&2", *commands]
    return _ADDRESS.sub(lambda found: f"{found['host']}:{int(found['port']) + port_offset}", "\n".join(parts)) + "\n"


def as_after_make(directory: Path) -> None:
    """`.venv/bin/python` that is the one of this test."""
    python = directory / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)


@contextmanager
def what_it_needs(name: str, directory: Path) -> Iterator[dict[str, str]]:
    """What else a document tells people to have: as variables of the environment."""
    binary = bao_binary()
    if name != "docs/vault.md" or binary is None:
        yield {}
        return
    directory.mkdir()
    with running_vault(directory) as vault:
        path = f"{Path(binary).parent}:{os.environ['PATH']}"
        yield {"BAO_ADDR": vault.address, "BAO_TOKEN": vault.token, "BAO_CACERT": vault.ca_file, "PATH": path}


def run_script(
    script: str, directory: Path, http: str, more: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    own = ("QUORUMCA_", "CONSUL_", "BAO_", "VAULT_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment |= {"QUORUMCA_HTTP_ADDR": http, **more}
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = shell.communicate(timeout=RUN_SECONDS)
    finally:
        # With the nodes that it has started, and did not get to stop.
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    return subprocess.CompletedProcess(shell.args, shell.returncode, out, err)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_of_the_document_works(tmp_path: Path, name: str) -> None:
    as_after_make(tmp_path)
    (tmp_path / "deploy").symlink_to(PROJECT / "deploy")
    offset = free_port_offset(5)
    script = shell_script((PROJECT / name).read_text(), offset)
    assert "--- line" in script, "there is nothing to type"
    with (
        what_it_needs(name, tmp_path / "vault") as more,
        dev(tmp_path / ".quorumca", "--nodes", "3", "--port-offset", str(offset)) as cluster,
    ):
        done = run_script(script, tmp_path, cluster.nodes()[0]["http"], more)
        assert done.returncode == 0, f"{name}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def test_blocks_tagged_shell_become_one_script() -> None:
    document = "A\n```shell\nmake cluster\n```\n```json\n{}\n```\n```shell\na 127.0.0.1:8501/x\nb 127.0.0.1:9501\n```\n"
    assert shell_script(document, 1000) == (
        "set -euo pipefail\necho '--- line 3' >&2\necho '--- line 9' >&2\na 127.0.0.1:9501/x\nb 127.0.0.1:9501\n"
    )


@pytest.mark.parametrize("line", ["false", "false | true", "echo $unknown"])
def test_a_command_that_fails_stops_the_script_and_is_seen(tmp_path: Path, line: str) -> None:
    script = shell_script(f"```shell\ntrue\n{line}\ntouch went-on\n```\n", 0)
    done = run_script(script, tmp_path, "127.0.0.1:1")
    assert done.returncode != 0
    assert "--- line 2" in done.stderr
    assert not (tmp_path / "went-on").exists()
