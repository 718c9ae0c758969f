"""Saving and restoring snapshots for keeping in clusters of one process, and looking into their files."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from msgspec import structs

from cluster.api.access import Caller
from cluster.api.backups import Meta
from cluster.backup import file as backup
from cluster.backup.file import Mac, Row
from cluster.backup.restore import Snapshots
from cluster.base.log import Log
from cluster.rpc.messages import CheckedRestoreRequest, JudgedRestoreRequest, ProvenRowsRequest
from cluster.rpc.operation import A, Operation, Q
from cluster.seal.node_sealer import NodeSealer
from cluster.signing.serials import new_serial
from fsm.codec import dump_state
from fsm.state import State
from providers.pki.serials import serial_bytes
from tests.kit.callers import anybody
from tests.kit.fake_cluster import Node
from tests.kit.log import EventLog
from tests.kit.wait import until

Proven = TypeVar("Proven", JudgedRestoreRequest, CheckedRestoreRequest, ProvenRowsRequest)
Before = Mapping[Operation[Any, Any], Callable[[], Awaitable[object]]]


class LocalForwarder:
    """The leader is this node: its operations are run here. `before` is done once, before that operation; `always`
    before each.
    """

    def __init__(self, node: Node, before: Before, always: Before) -> None:
        self._node = node
        self._before = dict(before)
        self._always = dict(always)

    async def call(self, operation: Operation[Q, A], request: Q, *, caller: Caller | None = None) -> A:
        for first in (self._before.pop(operation, None), self._always.get(operation)):
            if first is not None:
                await first()
        asked_from = caller.asked_from if caller is not None else ""
        return await self._node.operations.run(operation, request, "", asked_from)


def snapshots(
    node: Node,
    sealer: NodeSealer | None = None,
    log: Log | None = None,
    before: Before | None = None,
    always: Before | None = None,
) -> Snapshots:
    forwarder: Any = LocalForwarder(node, before or {}, always or {})
    ledger_path = node.cluster.ledger_path
    return Snapshots(
        node.replica.real,
        forwarder,
        sealer or node.sealer,
        ledger_path,
        node.name,
        "dc1",
        node.clock,
        log or EventLog(),
    )


async def restore(node: Node, path: Path, *, is_forced: bool = False) -> tuple[str, ...]:
    return await snapshots(node).restore(path, is_forced=is_forced)


async def sign(node: Node, service: str) -> bytes:
    csr_pem, _ = await node.pool.make_csr(
        f"spiffe://{node.cluster.state.trust_domain}/ns/default/dc/dc1/svc/{service}", (), ()
    )
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    serial = serial_bytes(new_serial())
    await node.authority.sign(csr_pem, serial, "test", anybody)
    return serial


def facts_of(path: Path) -> tuple[Meta, State, list[Row]]:
    """All that a file holds, once all of it was checked but the MAC."""
    saved = backup.read(path)
    saved.check_rows()
    return saved.meta, saved.state, [row for page in saved.pages() for row in page]


def mac_of(node: Node) -> Mac:
    assert node.cluster.state.seal is not None
    return node.sealer.opened(node.cluster.state.seal).mac


def proven(node: Node, request: Proven) -> Proven:
    """As a node of this cluster asks for it."""
    assert node.cluster.state.seal is not None
    proof = node.sealer.opened(node.cluster.state.seal).proof(request.unproven())
    return structs.replace(request, proof=proof)


def request_of(node: Node, saved: State) -> JudgedRestoreRequest:
    """To restore this state in the node's cluster, from a file without a MAC, by force."""
    request = JudgedRestoreRequest(dump_state(saved), b"", "", True, node.cluster.state.ca_index, b"")
    return proven(node, request)
