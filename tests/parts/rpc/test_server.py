"""The RPC port: who gets in, and what is refused at the door."""

import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import pytest
from aiohttp import StreamReader

from cluster.rpc.envelope import MAX_RPC_BYTES
from cluster.rpc.operation import VERSION_HEADER
from tests.kit.fake_cluster import FakeCluster
from tests.kit.rpc_nodes import RpcNode, node_tls, rpc_nodes
from tests.kit.tls_files import Authority


async def _double(argument: int) -> int:
    return 2 * argument


@pytest.fixture
async def leader(rpc_cluster: FakeCluster, tls_directory: Path) -> AsyncIterator[RpcNode]:
    async with rpc_nodes(rpc_cluster, tls_directory, {"a": {"double": _double}}) as nodes:
        rpc_cluster.elect("a")
        yield nodes["a"]


def _url(node: RpcNode, operation: str = "double") -> str:
    return f"https://{node.cluster.members['a'].rpc_address}/rpc/{operation}"


async def _post(
    node: RpcNode,
    context: ssl.SSLContext,
    body: bytes,
    server: str = "a",
    *,
    operation: str = "double",
    version: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(
            _url(node, operation),
            data=body,
            headers={**(headers or {}), **({} if version is None else {VERSION_HEADER: version})},
            server_hostname=f"{server}.server.dc1.consul",
        ) as response,
    ):
        return response.status, await response.read()


async def test_each_argument_gets_its_own_outcome(leader: RpcNode, tls_directory: Path) -> None:
    context = node_tls(tls_directory, "b").client_context
    status, body = await _post(leader, context, msgpack.packb([1000, [1, "x", None]]))
    assert status == 200
    assert msgpack.unpackb(body) == [
        [None, 2],
        [None, "xx"],
        [["InternalError", "TypeError on the leader", 0.0], None],
    ]


async def test_answer_has_the_form_of_the_request(leader: RpcNode, tls_directory: Path) -> None:
    context = node_tls(tls_directory, "b").client_context
    assert await _post(leader, context, msgpack.packb([1000, [[1]]]), version="2") == (
        200,
        msgpack.packb([[None, [2]]]),
    )
    assert await _post(leader, context, msgpack.packb([1000, [1]]), version="1") == (200, msgpack.packb([[None, 2]]))


async def test_request_that_is_not_understood_is_refused_alone(leader: RpcNode, tls_directory: Path) -> None:
    context = node_tls(tls_directory, "b").client_context
    _, body = await _post(leader, context, msgpack.packb([1000, [[1], 7]]), version="2")
    done, refused = msgpack.unpackb(body)
    assert done == [None, [2]]
    [kind, text, _], nothing = refused
    assert (kind, nothing) == ("InternalError", None)
    assert text.startswith("the request for operation 'double' is not understood: Expected `array`")


@pytest.mark.parametrize("version", ["0", "4", "x", "02", ""])
async def test_version_that_this_node_does_not_speak_is_refused_at_the_door(
    leader: RpcNode, tls_directory: Path, version: str
) -> None:
    context = node_tls(tls_directory, "b").client_context
    status, text = await _post(leader, context, msgpack.packb([1000, [[1]]]), version=version)
    assert (status, text) == (400, b"Quorumca-Rpc must be a number from 1 to 3")


async def test_names_of_operations_that_are_none_do_not_become_labels(leader: RpcNode, tls_directory: Path) -> None:
    context = node_tls(tls_directory, "b").client_context
    status, _ = await _post(leader, context, msgpack.packb([1000, [1]]), operation="rubbish")
    assert status == 200
    samples = [sample.labels for family in leader.metrics.rpc_requests.collect() for sample in family.samples]
    assert {labels["operation"] for labels in samples} == {"unknown"}


async def test_server_that_was_removed_gets_nowhere(leader: RpcNode, tls_directory: Path) -> None:
    leader.cluster.members = {name: member for name, member in leader.cluster.members.items() if name != "b"}
    status, _ = await _post(leader, node_tls(tls_directory, "b").client_context, msgpack.packb([1000, [1]]))
    assert status == 403
    assert [event for event in leader.log.events if event[0] == "rpc.refused"] == [
        ("rpc.refused", {"peer": "b", "source": "127.0.0.1", "reason": "no server of this cluster"})
    ]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("other key", "not the one that is pinned for b"), ("removed", "b was removed from this cluster")],
)
async def test_name_of_a_server_is_not_enough(leader: RpcNode, tls_directory: Path, kind: str, reason: str) -> None:
    tls, cluster = node_tls(tls_directory, "b"), leader.cluster
    keyed = {name: replace(known, keys=(tls.key,)) for name, known in cluster.members.items()}
    cluster.members = keyed
    assert (await _post(leader, tls.client_context, msgpack.packb([1000, [1]])))[0] == 200
    if kind == "removed":
        cluster.members, cluster.removed = {name: keyed[name] for name in "ac"}, frozenset("b")
    else:
        cluster.members = {**keyed, "b": replace(keyed["b"], keys=(b"x" * 72,))}
    status, body = await _post(leader, tls.client_context, msgpack.packb([1000, [1]]))
    assert (status, reason in body.decode()) == (403, True)
    [refused] = [fields for event, fields in leader.log.events if event == "rpc.refused"]
    assert reason in str(refused["reason"])


async def test_certificate_of_another_role_gets_nowhere(leader: RpcNode, tls_directory: Path) -> None:
    status, _ = await _post(leader, node_tls(tls_directory, "client").client_context, msgpack.packb([1000, [1]]))
    assert status == 403


async def test_stranger_does_not_get_through_the_handshake(
    leader: RpcNode, tls_directory: Path, tmp_path: Path
) -> None:
    authority = Authority()
    authority.write_server(tmp_path, "b")
    context = node_tls(tls_directory, "b").client_context
    context.load_cert_chain(tmp_path / "b.pem", tmp_path / "b.key")
    with pytest.raises(aiohttp.ClientError):
        await _post(leader, context, msgpack.packb([1000, [1]]))
    bare = ssl.create_default_context(cafile=str(tls_directory / "ca.pem"))
    with pytest.raises(aiohttp.ClientError):
        await _post(leader, bare, msgpack.packb([1000, [1]]))


async def test_leader_must_be_the_one_that_was_asked(leader: RpcNode, tls_directory: Path) -> None:
    with pytest.raises(aiohttp.ClientConnectorError):
        await _post(leader, node_tls(tls_directory, "b").client_context, msgpack.packb([1000, [1]]), server="c")


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", msgpack.packb(7), msgpack.packb([1]), msgpack.packb([True, []]), msgpack.packb([1, {}])],
    ids=["empty", "rubbish", "number", "short", "flag", "map"],
)
async def test_rubbish_is_refused(leader: RpcNode, tls_directory: Path, body: bytes) -> None:
    status, text = await _post(leader, node_tls(tls_directory, "b").client_context, body)
    assert status == 400
    assert text.startswith(b"not a request of this protocol: ")


async def test_oversized_message_is_refused(leader: RpcNode, tls_directory: Path) -> None:
    body = msgpack.packb([1000, [b"x" * MAX_RPC_BYTES]])
    status, _ = await _post(leader, node_tls(tls_directory, "b").client_context, body)
    assert status == 413


async def test_every_answer_says_which_version_the_node_speaks(leader: RpcNode, tls_directory: Path) -> None:
    """A refusal, too: a node of the release before begins with a version that this one may not speak any more."""
    context = node_tls(tls_directory, "b").client_context
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        for headers, body in (({VERSION_HEADER: "9"}, b""), ({}, b"rubbish"), ({}, msgpack.packb([1000, []]))):
            async with session.post(
                _url(leader), data=body, headers=headers, server_hostname="a.server.dc1.consul"
            ) as response:
                assert response.headers[VERSION_HEADER] == "3"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity", ""])
async def test_coded_body_is_refused_as_it_is(leader: RpcNode, tls_directory: Path, coding: str) -> None:
    """One that inflates to a thousand times its size, of a member even, costs its size."""
    sizes: list[int] = []
    feed = StreamReader.feed_data

    def measured(stream: StreamReader, data: bytes, *rest: Any) -> bool:
        sizes.append(len(data))
        return feed(stream, data, *rest)

    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = packer.compress(bytes(64 << 20)) + packer.flush()
    context = node_tls(tls_directory, "b").client_context
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamReader, "feed_data", measured)
        status, text = await _post(leader, context, body, headers={"Content-Encoding": coding})
    assert status == 400
    assert text == b"a Content-Encoding is not taken: bodies are sent as they are"
    assert sum(sizes) <= len(body) + len(text)


async def test_strangers_are_in_the_log_once_a_second_and_say_nothing_there(
    leader: RpcNode, tls_directory: Path
) -> None:
    context = node_tls(tls_directory, "client").client_context
    for number in range(20):
        assert (await _post(leader, context, b"", operation=f"{number}-{'x' * 4000}"))[0] == 403
    refused = [fields for event, fields in leader.log.events if event == "rpc.refused"]
    assert 1 <= len(refused) <= 5
    assert all("x" * 10 not in str(fields) for fields in refused)
