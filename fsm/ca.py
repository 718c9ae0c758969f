"""The CA: its values in the replicated state, and the commands that change them. Times are Unix seconds."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from fsm.acl import AclKey, Methods
from fsm.fields import (
    ADDED,
    ClusterId,
    Index,
    Json,
    KeyBits,
    KeyText,
    Length,
    Name,
    Pem,
    Percent,
    Reason,
    RequestId,
    Salt,
    Sealed,
    Seconds,
    Serial64,
    Time,
    Value,
)
from fsm.nodes import AgentCA


@dataclass(frozen=True, slots=True)
class SealKey:
    """The data key that seals private keys, itself wrapped by a key-encryption key that is never in the log."""

    source: Name  # "file" or "passphrase": where the key-encryption key comes from
    kek_id: Name  # identifies the key-encryption key without revealing it
    salt: Salt  # of the passphrase's key derivation; empty for "file"
    wrapped_key: Salt


@dataclass(frozen=True, slots=True)
class CAConfig:
    """The CA configuration as operators see it; secrets are in the provider's sealed state instead."""

    cluster_id: ClusterId  # bare UUID; the trust domain is "<cluster_id>.consul"
    provider: Name
    provider_id: Name  # the ProviderState in use
    config_json: Json  # the operator's map, canonical JSON, without secrets
    public_state: Annotated[tuple[tuple[Value, Value], ...], Length(0, 256)] = ()
    force_without_cross_signing: bool = False
    request_id: RequestId = b""  # of the write that made it: tells a repeated request from a lost race
    create_index: Index = 0
    modify_index: Index = 0
    leaf_ttl_seconds: Seconds = 0  # what LeafCertTTL in `config_json` means
    auto_rotate_percent: Percent = 0  # the root is rotated when so much of its lifetime is left; 0: never by itself


@dataclass(frozen=True, slots=True)
class ProviderState:
    """What one configured provider must find again: opaque, and sealed because it holds keys and tokens."""

    provider_id: Name
    provider: Name
    sealed: Sealed
    is_prepared: bool  # its key exists and the choices for its root are made
    modify_index: Index = 0


@dataclass(frozen=True, slots=True)
class Intermediate:
    """A CA certificate that accompanies leaves. Key ids let the state machine check links without parsing X.509."""

    cert_pem: Pem
    key_id: KeyText
    issuer_key_id: KeyText
    not_after: Time
    #: When we received it. Half-life is counted from here, not from notBefore, which a backend may date back by any
    #: amount.
    made_at: Time = field(default=0, metadata=ADDED)


Intermediates = Annotated[tuple[Intermediate, ...], Length(0, 64)]


@dataclass(frozen=True, slots=True)
class CARoot:
    """One trusted root. Field meanings are Consul's (CARoot); `key_id` is the root's own subject key identifier."""

    root_id: Name
    name: Name
    serial_number: Serial64
    key_id: KeyText
    signing_key_id: KeyText
    external_trust_domain: Name
    not_before: Time
    not_after: Time
    root_pem: Pem
    intermediates: Intermediates
    is_active: bool
    private_key_type: Name
    private_key_bits: KeyBits
    create_index: Index = 0
    modify_index: Index = 0
    provider_id: Name = ""  # the ProviderState that holds its key
    leaf_ttl_max_seconds: Seconds = 0  # the largest leaf TTL that was in force while it was active
    rotated_out_at: Time = 0  # 0 while it is active, or published and not active yet
    prune_at: Time = 0  # when it is no longer trusted; fixed when it is rotated out

    @property
    def signing_cert(self) -> Intermediate | None:
        """The intermediate that signs leaves; None where the root does so itself."""
        if self.signing_key_id == self.key_id:
            return None
        return next((found for found in self.intermediates if found.key_id == self.signing_key_id), None)

    @property
    def is_retired(self) -> bool:
        return self.rotated_out_at != 0


Roots = Annotated[tuple[CARoot, ...], Length(0, 256)]
Providers = Annotated[tuple[ProviderState, ...], Length(0, 512)]


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

    rotation_id: Name
    phase: RotationPhase
    started_at: Time
    phase_since: Time
    config: CAConfig  # in force once the new root is active; the indexes inside are ignored
    is_forced: bool = False  # without cross-signing
    is_staged: bool = False
    is_paused: bool = False  # staged: not activated until it is resumed
    wait_seconds: Seconds = 0  # staged: activated this long after publication even if clients lag
    root: CARoot | None = None  # from CROSS_SIGN on; its intermediates lead to the roots before it
    published_index: Index = 0  # roots_index that clients must have seen


@dataclass(frozen=True, slots=True)
class RotationOutcome:
    """How the last rotation ended."""

    rotation_id: Name
    request_id: RequestId
    ended_at: Time
    root_id: Name  # "" when it was given up
    reason: Reason = ""  # why it was given up
    is_forced: bool = False


# -- commands


@dataclass(frozen=True, slots=True)
class InitSeal:
    """The first entry of a CA: the wrapped data key."""

    seal: SealKey


@dataclass(frozen=True, slots=True)
class Reseal:
    """Another data key, and everything that is sealed with it instead of the one before; nothing else changes."""

    expected_index: Index
    seal: SealKey
    providers: Providers  # all of them
    acl_key: AclKey | None = field(default=None, metadata=ADDED)  # if there is one
    methods: Methods = field(default=(), metadata=ADDED)  # all of them
    agent_ca: AgentCA | None = field(default=None, metadata=ADDED)  # if there is one


@dataclass(frozen=True, slots=True)
class InitConfig:
    """The configuration a new CA starts from; there are no roots yet. The indexes inside are ignored."""

    config: CAConfig
    provider_state: ProviderState


@dataclass(frozen=True, slots=True)
class SetProviderState:
    """Progress of a provider that has no root yet: its key and its intent, before anything is signed."""

    expected_index: Index
    state: ProviderState


@dataclass(frozen=True, slots=True)
class SetRootsConfig:
    """Roots, configuration and provider states, changed as one. The indexes inside are ignored and set here."""

    expected_index: Index
    roots: Roots
    config: CAConfig
    providers: Providers


@dataclass(frozen=True, slots=True)
class SetConfig:
    """A change of configuration that keeps every root. The indexes inside are ignored and set here."""

    expected_index: Index
    config: CAConfig
    provider_state: ProviderState


@dataclass(frozen=True, slots=True)
class SetRoots:
    """Roots that are no longer trusted go, with the providers that only they needed; nothing else changes."""

    expected_index: Index
    roots: Roots
    providers: Providers


@dataclass(frozen=True, slots=True)
class RenewSigning:
    """Another certificate signs leaves below the same active root, with what the provider must find again for it."""

    expected_index: Index
    root_id: Name  # the active one
    signing_key_id: KeyText
    intermediates: Intermediates  # of the root, all of them
    provider_state: ProviderState


@dataclass(frozen=True, slots=True)
class BeginRotation:
    """The intent to change the root: target configuration and prepared provider, before anything is signed."""

    expected_index: Index
    rotation: Rotation
    provider_state: ProviderState


@dataclass(frozen=True, slots=True)
class AdvanceRotation:
    """A step of the rotation under way is done. `roots` are replaced only when the new root is published."""

    expected_index: Index
    rotation: Rotation
    provider_state: ProviderState
    roots: Roots | None = None


@dataclass(frozen=True, slots=True)
class FinishRotation:
    """The new root signs from here on: roots, configuration and providers in one command."""

    expected_index: Index
    roots: Roots
    config: CAConfig
    providers: Providers
    outcome: RotationOutcome


@dataclass(frozen=True, slots=True)
class AbortRotation:
    """The rotation under way is given up, and everything is as it was before it."""

    expected_index: Index
    outcome: RotationOutcome


RotationCommand = BeginRotation | AdvanceRotation | FinishRotation | AbortRotation
CACommand = (
    InitSeal
    | Reseal
    | InitConfig
    | SetProviderState
    | SetRootsConfig
    | SetConfig
    | SetRoots
    | RenewSigning
    | RotationCommand
)
