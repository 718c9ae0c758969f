"""What a node says about itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Digest:
    """What two nodes compare: equal at the same index on all of them."""

    applied_index: int
    state_digest: str
    ledger_count: int
    ledger_digest: str
