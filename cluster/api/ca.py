"""The CA: its configuration, and changes of its root."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from cluster.api.access import Caller


@dataclass(frozen=True, slots=True)
class ConfigUpdate:
    """A PUT of the CA configuration. `None` means that the client left it out."""

    provider: str
    config: Mapping[str, object] = field(repr=False)
    state: Mapping[str, str] | None
    force_without_cross_signing: bool
    modify_index: int  # 0: no check-and-set
    #: If the root changes: let clients learn the new one before it signs, and wait at most this long for them.
    is_staged: bool = False
    wait_seconds: int = 0


@dataclass(frozen=True, slots=True)
class RotateRequest:
    """A fresh key and root from the provider in use; what is None stays as configured."""

    key_type: str | None = None
    key_bits: int | None = None
    is_forced: bool = False  # without cross-signing
    is_staged: bool = False
    wait_seconds: int = 0


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """What a rotation would do, without doing it."""

    active_root_id: str
    provider: str
    key_type: str  # of the new root
    key_bits: int
    is_forced: bool
    is_staged: bool
    chain_bytes: int  # what every leaf would carry, PEM, at most
    max_chain_bytes: int
    links: int  # cross-signed certificates in that chain
    trusted_roots: int  # listed once it is done
    affected_leaves: int  # on record and not expired, signed by a key that will no longer sign
    retired_until: int  # Unix seconds: when the active root would be pruned if it were rotated out now, or ends before
    risks: tuple[str, ...]


class Steering(StrEnum):
    """What an operator may do to a staged rotation that waits, or, ABORT, to any that is under way."""

    PAUSE = "pause"
    RESUME = "resume"
    ACTIVATE = "activate"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Uptake:
    """How far clients have taken up the published root of a staged rotation."""

    watchers: int  # blocking queries on the roots, the most that were seen waiting
    watchers_seen: int  # of these, how many have seen the publication
    identities: int  # SPIFFE IDs with a valid leaf
    identities_renewed: int  # of these, how many got one since the publication

    @property
    def percent(self) -> int:
        """Of the watchers; of the identities where nobody watches; 100 where there are no clients."""
        seen, of = (self.watchers_seen, self.watchers) if self.watchers else (self.identities_renewed, self.identities)
        return 100 if not of else min(100, 100 * seen // of)


class CA(Protocol):
    """What operators do to the CA."""

    async def configure(self, caller: Caller, update: ConfigUpdate) -> None:
        """Writers take turns in the order of their arrival.

        Raises: BadRequest (400), StaleIndex (409), Refused (422), InternalError (500, Consul's texts), NotReady,
        NoLeader, ChangeUnderWay (503), CommitUnknown (504). All but the last had no effect.
        """
        ...

    async def plan_rotation(self, caller: Caller, request: RotateRequest) -> RotationPlan:
        """Raises: as `rotate`, but changes nothing."""
        ...

    async def rotate(self, caller: Caller, request: RotateRequest) -> None:
        """Until the new root signs, or is published if it is staged.

        Raises: BadRequest, Refused (422), InternalError (500), NotReady, NoLeader, ChangeUnderWay (503); CommitUnknown
        (504).
        """
        ...

    async def steer_rotation(self, caller: Caller, steering: Steering) -> None:
        """Raises: Refused when there is no rotation that can be steered so; NoLeader, CommitUnknown."""
        ...

    async def rotation_uptake(self, caller: Caller) -> Uptake | None:
        """None unless a published root waits for its clients."""
        ...

    async def distrust_root(self, caller: Caller, root_id: str) -> None:
        """Stop trusting a retired root at once. Raises: NotFound, Refused (the active one), NoLeader, CommitUnknown."""
        ...
