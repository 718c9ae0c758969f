"""One frozen dataclass for each kind of log entry.

Everything that could differ between nodes (time, serial, key, signature) was chosen by the leader and is carried as a
value. Commands that depend on what their author read carry `expected_index`, the `State.ca_index` they were made from;
commands that commute leave it out, or they would refuse each other under load.
"""

from dataclasses import dataclass
from enum import IntEnum

from fsm.state import CAConfig, CARoot, Intermediate, ProviderState, Rotation, RotationOutcome, SealKey, State


class LeafKind(IntEnum):
    """What a certificate was issued for. The numbers are in the log and in the ledger: never reuse one."""

    SERVICE = 1
    AGENT = 2
    MESH_GATEWAY = 3
    SERVER = 4
    INTERMEDIATE = 5

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class LeafRecord:
    """One issued certificate."""

    serial: bytes  # minimal big-endian
    kind: int  # LeafKind
    name: str  # service or node name
    spiffe_id: str
    public_key_sha256: bytes
    not_before: int
    not_after: int
    requested_by: str
    # Identifies the request where the serial does not: a provider whose backend picks serials. Empty otherwise.
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class InitSeal:
    """The first entry of a CA: the wrapped data key."""

    seal: SealKey


@dataclass(frozen=True, slots=True)
class InitConfig:
    """The configuration a new CA starts from; there are no roots yet. The indexes inside are ignored."""

    config: CAConfig
    provider_state: ProviderState


@dataclass(frozen=True, slots=True)
class SetProviderState:
    """Progress of a provider that has no root yet: its key and its intent, before anything is signed."""

    expected_index: int
    state: ProviderState


@dataclass(frozen=True, slots=True)
class SetRootsConfig:
    """Roots, configuration and provider states, changed as one. The indexes inside are ignored and set here."""

    expected_index: int
    roots: tuple[CARoot, ...]
    config: CAConfig
    providers: tuple[ProviderState, ...]


@dataclass(frozen=True, slots=True)
class SetConfig:
    """A change of configuration that keeps every root. The indexes inside are ignored and set here."""

    expected_index: int
    config: CAConfig
    provider_state: ProviderState


@dataclass(frozen=True, slots=True)
class SetRoots:
    """Roots that are no longer trusted go, with the providers that only they needed; nothing else changes."""

    expected_index: int
    roots: tuple[CARoot, ...]
    providers: tuple[ProviderState, ...]


@dataclass(frozen=True, slots=True)
class RenewSigning:
    """Another certificate signs leaves below the same active root, with what the provider must find again for it."""

    expected_index: int
    root_id: str  # the active one
    signing_key_id: str
    intermediates: tuple[Intermediate, ...]  # of the root, all of them
    provider_state: ProviderState


@dataclass(frozen=True, slots=True)
class BeginRotation:
    """The intent to change the root: target configuration and prepared provider, before anything is signed."""

    expected_index: int
    rotation: Rotation
    provider_state: ProviderState


@dataclass(frozen=True, slots=True)
class AdvanceRotation:
    """A step of the rotation under way is done. `roots` are replaced only when the new root is published."""

    expected_index: int
    rotation: Rotation
    provider_state: ProviderState
    roots: tuple[CARoot, ...] | None = None


@dataclass(frozen=True, slots=True)
class FinishRotation:
    """The new root signs from here on: roots, configuration and providers in one command."""

    expected_index: int
    roots: tuple[CARoot, ...]
    config: CAConfig
    providers: tuple[ProviderState, ...]
    outcome: RotationOutcome


@dataclass(frozen=True, slots=True)
class AbortRotation:
    """The rotation under way is given up, and everything is as it was before it."""

    expected_index: int
    outcome: RotationOutcome


@dataclass(frozen=True, slots=True)
class RestoreCA:
    """Another cluster's CA, or this one's of an earlier day, takes the place of the present one, seal and all.

    What counts entries and certificates of this cluster stays; issued certificates are restored by RecordLeaves.
    """

    expected_index: int
    saved: State


@dataclass(frozen=True, slots=True)
class RecordLeaves:
    """Certificates signed by one key, recorded before they leave the cluster."""

    issuer_key_id: bytes
    records: tuple[LeafRecord, ...]


@dataclass(frozen=True, slots=True)
class TidyLedger:
    """Drop the records of certificates that expired before this time."""

    expired_before: int


RotationCommand = BeginRotation | AdvanceRotation | FinishRotation | AbortRotation
Command = (
    InitSeal
    | InitConfig
    | SetProviderState
    | SetRootsConfig
    | SetConfig
    | SetRoots
    | RenewSigning
    | RotationCommand
    | RestoreCA
    | RecordLeaves
    | TidyLedger
)


@dataclass(frozen=True, slots=True)
class Applied:
    """The command took effect. `index` is the state's index behind it.

    A `RecordLeaves` of n records takes n indexes; the i-th record has `index - n + 1 + i`. `duplicates` are the
    positions of records that were refused because their serial or request is in the ledger already.
    """

    index: int
    duplicates: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """The command had no effect. `code` is stable, `detail` is for people."""

    code: str
    detail: str
