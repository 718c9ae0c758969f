"""Saving and restoring snapshots for keeping in clusters of one process, and looking into their files."""

from pathlib import Path
from typing import Any

from cluster.api.backups import Meta
from cluster.backup import file as backup
from cluster.backup.file import Row
from cluster.backup.restore import Snapshots
from cluster.base.log import Log
from cluster.rpc.operation import A, Operation, Q
from cluster.seal.sealer import Sealer
from cluster.signing.serials import new_serial
from fsm.state import State
from providers.pki.serials import serial_bytes
from tests.kit.fake_cluster import Node
from tests.kit.log import EventLog
from tests.kit.wait import until


class LocalForwarder:
    """The leader is this node: its operations are run here."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def call(self, operation: Operation[Q, A], request: Q) -> A:
        return await self._node.operations.run(operation, request)


def snapshots(node: Node, sealer: Sealer | None = None, log: Log | None = None) -> Snapshots:
    forwarder: Any = LocalForwarder(node)
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
    await node.authority.sign(csr_pem, serial, "test")
    return serial


def facts_of(path: Path) -> tuple[Meta, State, list[Row]]:
    """All that a file holds, once all of it was checked but the MAC."""
    saved = backup.read(path)
    saved.check_rows()
    return saved.meta, saved.state, [row for page in saved.pages() for row in page]


def mac_key_of(node: Node) -> bytes:
    assert node.cluster.state.seal is not None
    return node.sealer.opened(node.cluster.state.seal).mac_key()
