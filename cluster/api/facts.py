"""What a node says about itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Digest:
    """What two nodes compare: equal at the same index on all of them."""

    applied_index: int
    state_digest: str
    ledger_count: int
    ledger_digest: str


class Facts(Protocol):
    """What a node says of itself."""

    async def digest(self) -> Digest:
        """Of what this node has applied."""
        ...

    def stats(self) -> Mapping[str, Mapping[str, str]]:
        """Groups of facts for GET /v1/agent/self, all as text, as in Consul."""
        ...
