"""The record of issued certificates."""

from collections.abc import Sequence
from typing import Protocol

from cluster.api.reads import ReadLevel
from fsm.ledger import LedgerQuery, LedgerRow


class Record(Protocol):
    """What was issued."""

    async def find_cert(self, serial: bytes, level: ReadLevel) -> LedgerRow | None:
        """`serial` is minimal big-endian."""
        ...

    async def search_certs(self, query: LedgerQuery, level: ReadLevel) -> list[LedgerRow]: ...

    async def service_names(self, prefixes: Sequence[str], at_most: int, level: ReadLevel) -> list[str]:
        """Of services that have had certificates and that begin so, each once; fewer than all beyond `at_most`."""
        ...
