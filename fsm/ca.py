"""The CA: its values in the replicated state, and the commands that change them. Times are Unix seconds."""

from dataclasses import dataclass, field
from enum import StrEnum

from fsm.fields import ADDED


@dataclass(frozen=True, slots=True)
class SealKey:
    """The data key that seals private keys, itself wrapped by a key-encryption key that is never in the log."""

    source: str  # "file" or "passphrase": where the key-encryption key comes from
    kek_id: str  # identifies the key-encryption key without revealing it
    salt: bytes  # of the passphrase's key derivation; empty for "file"
    wrapped_key: bytes


@dataclass(frozen=True, slots=True)
class CAConfig:
    """The CA configuration as operators see it; secrets are in the provider's sealed state instead."""

    cluster_id: str  # bare UUID; the trust domain is "<cluster_id>.consul"
    provider: str
    provider_id: str  # the ProviderState in use
    config_json: str  # the operator's map, canonical JSON, without secrets
    public_state: tuple[tuple[str, str], ...] = ()
    force_without_cross_signing: bool = False
    request_id: bytes = b""  # of the write that made it: tells a repeated request from a lost race
    create_index: int = 0
    modify_index: int = 0
    leaf_ttl_seconds: int = 0  # what LeafCertTTL in `config_json` means
    auto_rotate_percent: int = 0  # the root is rotated when so much of its lifetime is left; 0: never by itself


@dataclass(frozen=True, slots=True)
class ProviderState:
    """What one configured provider must find again: opaque, and sealed because it holds keys and tokens."""

    provider_id: str
    provider: str
    sealed: bytes
    is_prepared: bool  # its key exists and the choices for its root are made
    modify_index: int = 0


@dataclass(frozen=True, slots=True)
class Intermediate:
    """A CA certificate that accompanies leaves. Key ids let the state machine check links without parsing X.509."""

    cert_pem: str
    key_id: str
    issuer_key_id: str
    not_after: int
    #: When we received it. Half-life is counted from here, not from notBefore, which a backend may date back by any
    #: amount.
    made_at: int = field(default=0, metadata=ADDED)


@dataclass(frozen=True, slots=True)
class CARoot:
    """One trusted root. Field meanings are Consul's (CARoot); `key_id` is the root's own subject key identifier."""

    root_id: str
    name: str
    serial_number: int
    key_id: str
    signing_key_id: str
    external_trust_domain: str
    not_before: int
    not_after: int
    root_pem: str
    intermediates: tuple[Intermediate, ...]
    is_active: bool
    private_key_type: str
    private_key_bits: int
    create_index: int = 0
    modify_index: int = 0
    provider_id: str = ""  # the ProviderState that holds its key
    leaf_ttl_max_seconds: int = 0  # the largest leaf TTL that was in force while it was active
    rotated_out_at: int = 0  # 0 while it is active, or published and not active yet
    prune_at: int = 0  # when it is no longer trusted; fixed when it is rotated out

    @property
    def signing_cert(self) -> Intermediate | None:
        """The intermediate that signs leaves; None where the root does so itself."""
        if self.signing_key_id == self.key_id:
            return None
        return next((found for found in self.intermediates if found.key_id == self.signing_key_id), None)

    @property
    def is_retired(self) -> bool:
        return self.rotated_out_at != 0


class RotationPhase(StrEnum):
    """Where a rotation stands: what has to be done next."""

    GENERATE = "generate"  # the new provider's key is chosen: have it make its root
    CROSS_SIGN = "cross-sign"  # the new root exists: have the old one sign it, verify all chains
    PUBLISH = "publish"  # staged only: list the new root as trusted
    WAIT = "wait"  # staged only: until clients have the new root, or the time is over
    ACTIVATE = "activate"  # sign with the new root


@dataclass(frozen=True, slots=True)
class Rotation:
    """A change of root under way. Its every step is in the log, so whoever leads next goes on where it stands."""

    rotation_id: str
    phase: RotationPhase
    started_at: int
    phase_since: int
    config: CAConfig  # in force once the new root is active; the indexes inside are ignored
    is_forced: bool = False  # without cross-signing
    is_staged: bool = False
    is_paused: bool = False  # staged: not activated until it is resumed
    wait_seconds: int = 0  # staged: activated this long after publication even if clients lag
    root: CARoot | None = None  # from CROSS_SIGN on; its intermediates lead to the roots before it
    published_index: int = 0  # roots_index that clients must have seen


@dataclass(frozen=True, slots=True)
class RotationOutcome:
    """How the last rotation ended."""

    rotation_id: str
    request_id: bytes
    ended_at: int
    root_id: str  # "" when it was given up
    reason: str = ""  # why it was given up
    is_forced: bool = False


# -- commands


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


RotationCommand = BeginRotation | AdvanceRotation | FinishRotation | AbortRotation
CACommand = (
    InitSeal | InitConfig | SetProviderState | SetRootsConfig | SetConfig | SetRoots | RenewSigning | RotationCommand
)
