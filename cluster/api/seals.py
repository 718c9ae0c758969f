"""The seal: which keys the nodes have, and another data key for everything that is sealed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.api.access import Caller


@dataclass(frozen=True, slots=True)
class NodeSeal:
    """How far one node is."""

    node: str
    source: str  # "file" or "passphrase"; empty before there is a seal
    key_id: str  # of the key-encryption key with which it has opened the cluster's data key
    seal_id: str  # of the data key: the same on all nodes that have applied the same
    is_settled: bool  # nothing on its disk needs another key any more
    to_do: str = ""  # what is left to an operator on this node, or why it is not known


class Seals(Protocol):
    """The seal of the cluster."""

    async def seal_status(self) -> Sequence[NodeSeal]:
        """Of every server, in name order; one that does not answer says so in `to_do`."""
        ...

    async def rotate_seal(self, caller: Caller, *, keeps_key: bool) -> None:
        """Another data key, wrapped by the next key-encryption key, or by the one in force; all is sealed with it.

        Done when it is committed; what is left on the disks of the nodes goes within seconds, see `seal_status`.

        Raises: Refused, which names the nodes that lack the key, or do not answer; NoLeader, CommitUnknown.
        """
        ...
