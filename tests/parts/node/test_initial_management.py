"""The token of `acl.initial_management_file`: made once, by whoever leads, and by nobody else before."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.api.access import ACL_WRITE
from cluster.base.errors import BadRequest, PermissionDenied, TokenUnknown
from cluster.rpc.messages import ACL_BOOTSTRAP, AclBootstrapRequest
from cluster.seal.token_files import TokenFileRefused, read_secret_id, read_token
from fsm.acl import BootstrapAcl, DeleteTokens
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, running
from tests.kit.wait import until

SECRET = "6f7b9c1e-0d5a-4c3c-8d5a-0123456789ab"
SETTING = "acl.initial_management_file"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "initial.token"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


@asynccontextmanager
async def led(cluster: FakeCluster, *names: str, file: Path | None) -> AsyncIterator[list[Node]]:
    """Nodes with what they do by themselves, of a cluster whose servers all know access control."""
    nodes = [Node(cluster, name, initial_management_file=file) for name in names]
    cluster.members = {name: replace(member, keys=(b"k" * 72,)) for name, member in cluster.members.items()}
    loops = [asyncio.ensure_future(node.initial_management.run()) for node in nodes]
    try:
        async with running(*nodes):
            await bootstrapped(nodes[0])
            yield nodes
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


def bootstraps(cluster: FakeCluster) -> int:
    return sum(isinstance(command, BootstrapAcl) for command in cluster.committed)


async def test_token_is_made_and_may_do_everything(cluster: FakeCluster, file: Path) -> None:
    async with led(cluster, "a", file=file) as [node]:
        await until(lambda: cluster.state.acl.bootstrap_index > 0)
        caller = node.directory.caller(SECRET)
        assert caller.may(ACL_WRITE)
        [token] = [token for token in cluster.state.acl.tokens if token.accessor_id == caller.accessor_id]
        assert (token.description, token.expires_at) == ("Initial Management Token", 0)


async def test_it_is_made_once_however_often_the_leader_changes(cluster: FakeCluster, file: Path) -> None:
    async with led(cluster, "a", "b", "c", file=file) as nodes:
        await until(lambda: bootstraps(cluster) == 1)
        token = nodes[0].directory.caller(SECRET)
        for name in ("b", "c", "a"):
            cluster.elect(name)
            for node in nodes:
                await node.initial_management.look()
        assert bootstraps(cluster) == 1
        # Somebody has taken it away: the file that is still there gives nobody anything.
        cluster.commit(DeleteTokens((token.accessor_id,)))
        for name in ("b", "c", "a"):
            cluster.elect(name)
            for node in nodes:
                await node.initial_management.look()
        assert bootstraps(cluster) == 1
        with pytest.raises(TokenUnknown):
            nodes[0].directory.caller(SECRET)


async def test_nobody_comes_before_it(cluster: FakeCluster, file: Path) -> None:
    file.unlink()
    async with led(cluster, "a", file=file) as [node]:
        await until(lambda: cluster.state.acl.key is not None)
        with pytest.raises(PermissionDenied, match=r"the first token is that of acl\.initial_management_file"):
            await node.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))
        assert not cluster.state.acl.bootstrap_index
        await until(lambda: "acl.initial_management_failed" in node.log.names())
        [said] = [fields["reason"] for event, fields in node.log.events if event == "acl.initial_management_failed"]
        assert said.startswith(f"{SETTING} {file} is not there: ")
        # It is looked for again, and what it is for comes true.
        file.write_text(str(uuid.UUID(SECRET)).upper())
        file.chmod(0o600)
        await node.initial_management.look()
        assert node.directory.caller(SECRET).may(ACL_WRITE)
        with pytest.raises(PermissionDenied, match=r"reset index: (\d+)\): .* \1 into the file acl-boot.* leader's"):
            await node.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))


async def test_refusals_of_another_bootstrap_name_the_leader_and_the_number(cluster: FakeCluster) -> None:
    """With a file on a follower it is refused as without one: who is to write it learns where."""
    async with led(cluster, "a", "b", file=None) as nodes:
        await until(lambda: cluster.state.acl.key is not None)
        await nodes[0].operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))
        done = cluster.state.acl.bootstrap_index
        for name, node in zip("ab", nodes, strict=True):
            cluster.elect(name)
            advice = rf"write {done} into the file acl-bootstrap-reset in .* \(the leader is {name}\)$"
            with pytest.raises(PermissionDenied, match=rf"\(reset index: {done}\): to allow another, {advice}"):
                await node.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))
            reset = cluster.directory / "acl-bootstrap-reset"
            reset.write_text(f"{done + 961}\n")
            wrong = rf"^Invalid bootstrap reset index \(specified {done + 961}, reset index: {done}\): {advice}"
            with pytest.raises(BadRequest, match=wrong):
                await node.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(""))
            assert cluster.state.acl.bootstrap_index == done
            reset.unlink()


async def test_without_the_setting_it_is_for_whoever_bootstraps(cluster: FakeCluster) -> None:
    async with led(cluster, "a", file=None) as [node]:
        await until(lambda: cluster.state.acl.key is not None)
        await node.initial_management.look()
        assert not cluster.state.acl.bootstrap_index
        await node.operations.run(ACL_BOOTSTRAP, AclBootstrapRequest(SECRET))
        assert node.directory.caller(SECRET).may(ACL_WRITE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no token: must be one line"),
        (b"\n", "holds no token: must be one line"),
        (b"a b", "holds no token: must be one line"),
        (b"a\nb\n", "holds no token: must be one line"),
        (b"\xff" * 36, "holds no token: must be one line"),
        (b"x" * 4097, "holds no token: must be one line"),
        (b"x" * (65 << 10), "it is larger than 65536 bytes"),
        (b"letmein", "holds no SecretID: must be a UUID"),
        (SECRET.replace("-", "").encode(), "holds no SecretID: must be a UUID"),
        (b"{" + SECRET.encode() + b"}", "holds no SecretID: must be a UUID"),
        (b"00000000-0000-0000-0000-000000000002", "holds no SecretID: must be a UUID"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_files_that_hold_none_are_named_and_not_repeated(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    with pytest.raises(TokenFileRefused) as refused:
        read_secret_id(SETTING, file)
    assert str(refused.value).startswith(f"{SETTING} {file}")
    assert said in str(refused.value)
    if text := content.decode("latin-1").strip():
        assert text not in str(refused.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
@pytest.mark.parametrize("read", [read_token, read_secret_id])
def test_files_that_others_can_get_at_are_not_used(file: Path, mode: int, read: object) -> None:
    assert callable(read)
    assert read(SETTING, file) == SECRET
    file.chmod(mode)
    with pytest.raises(TokenFileRefused, match=rf"^{SETTING} .* can get at it \(mode {mode:04o}, must be 0600"):
        read(SETTING, file)


def test_what_is_no_file_is_not_used(file: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo):
        with pytest.raises(TokenFileRefused, match="no regular file"):
            read_token(SETTING, path)
    with pytest.raises(FileNotFoundError):
        read_token(SETTING, tmp_path / "none")
