"""A node's keeper without a process: the same operations, the same cover, called where the test runs."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.seal.cover import Cover, hand_over
from cluster.seal.disk_key import DiskKeyFile
from cluster.seal.keeper import Keeper, new_cover_key
from cluster.seal.node_sealer import NodeSealer
from cluster.seal.records import PlainRecord, open_record, purpose_of
from cluster.seal.sealer import Sealer
from cluster.seal.sources import NEXT_KEY, FileKey
from fsm.ca import ProviderState, SealKey
from fsm.state import State


@dataclass(frozen=True)
class Kept:
    """`sealer` is what the node has; `inside` what only the keeper has."""

    sealer: NodeSealer
    keeper: Keeper
    inside: Sealer
    cover: Cover


def kept(inside: Sealer, directory: Path, name: str = "a") -> Kept:
    cover = Cover(new_cover_key())
    keeper = Keeper(inside, DiskKeyFile(directory, name, inside), cover)
    return Kept(NodeSealer(keeper), keeper, inside, cover)


def granting(key: bytes | None = None) -> Callable[[], socket.socket]:
    """What `WorkerPool` takes, of one cover for all that ask."""
    key = key or new_cover_key()

    def grant() -> socket.socket:
        ours, theirs = socket.socketpair()
        hand_over(key, ours)
        return theirs

    return grant


def sealer_in(directory: Path, seal: SealKey | None) -> Sealer:
    """With the seal key that lies in this directory, or the next one."""
    assert seal is not None
    sealer = Sealer(FileKey(directory / "seal.key"), FileKey(directory / NEXT_KEY))
    sealer.unlock(seal)
    return sealer


def record_in(directory: Path, state: State, sealed: ProviderState) -> PlainRecord:
    """Open, as somebody sees it who has the seal key that lies in this directory."""
    return open_record(sealer_in(directory, state.seal), purpose_of(sealed.provider_id), sealed.sealed)
