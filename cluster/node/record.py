"""What was issued, from this node's ledger."""

from collections.abc import Sequence

from cluster.api.reads import ReadLevel
from cluster.node.reads import NodeReads
from cluster.record.reads import LedgerReads
from fsm.ledger import LedgerQuery, LedgerRow


class NodeRecord:
    """Implements `cluster.api.record.Record`."""

    def __init__(self, reads: NodeReads, ledger: LedgerReads) -> None:
        self._reads = reads
        self._ledger = ledger

    async def find_cert(self, serial: bytes, level: ReadLevel) -> LedgerRow | None:
        await self._reads.read(level)
        return await self._ledger.call(lambda reader: reader.find(serial))

    async def search_certs(self, query: LedgerQuery, level: ReadLevel) -> list[LedgerRow]:
        await self._reads.read(level)
        return await self._ledger.call(lambda reader: reader.search(query))

    async def service_names(self, prefixes: Sequence[str], at_most: int, level: ReadLevel) -> list[str]:
        await self._reads.read(level)
        return await self._ledger.call(lambda reader: reader.service_names(prefixes, at_most))
