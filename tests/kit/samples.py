"""Small, valid states, commands and records shared by all tests of fsm/."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fsm.apply import apply
from fsm.ca import (
    AbortRotation,
    AdvanceRotation,
    BeginRotation,
    CAConfig,
    CARoot,
    FinishRotation,
    InitConfig,
    InitSeal,
    Intermediate,
    ProviderState,
    RenewSigning,
    Reseal,
    Rotation,
    RotationOutcome,
    RotationPhase,
    SealKey,
    SetConfig,
    SetProviderState,
    SetRoots,
    SetRootsConfig,
)
from fsm.commands import Applied, Command, Rejected, RestoreCA
from fsm.leaves import LeafKind, LeafRecord, RecordLeaves, TidyLedger
from fsm.state import State
from tests.kit import acl_samples, nodes_samples

CLUSTER_ID = "11111111-2222-3333-4444-555555555555"
OTHER_CLUSTER_ID = "99999999-2222-3333-4444-555555555555"
NOW = 1_800_000_000
DAY = 86_400
ISSUER = b"\x01" * 20
OTHER_ISSUER = b"\x02" * 20

SEAL = SealKey(source="passphrase", kek_id="kek-1", salt=b"salt", wrapped_key=b"wrapped")


def config(provider_id: str = "p1", **changes: Any) -> CAConfig:
    base = CAConfig(
        cluster_id=CLUSTER_ID,
        provider="consul",
        provider_id=provider_id,
        config_json='{"LeafCertTTL":"72h"}',
        public_state=(("Key", "value"),),
        request_id=b"request",
        leaf_ttl_seconds=3 * DAY,
        auto_rotate_percent=20,
    )
    return replace(base, **changes)


def provider_state(provider_id: str = "p1", **changes: Any) -> ProviderState:
    return replace(ProviderState(provider_id, "consul", b"sealed", is_prepared=True), **changes)


def intermediate(key_id: str, issuer_key_id: str) -> Intermediate:
    return Intermediate(cert_pem=f"cert of {key_id}", key_id=key_id, issuer_key_id=issuer_key_id, not_after=NOW)


def root(name: str, *, is_active: bool = True, **changes: Any) -> CARoot:
    """A root whose own key, `<name>-key`, signs leaves."""
    base = CARoot(
        root_id=name,
        name="Consul CA Root Cert",
        serial_number=(1 << 64) - 1,
        key_id=f"{name}-key",
        signing_key_id=f"{name}-key",
        external_trust_domain=CLUSTER_ID,
        not_before=NOW,
        not_after=NOW + 3650 * DAY,
        root_pem=f"pem of {name}",
        intermediates=(),
        is_active=is_active,
        private_key_type="ec",
        private_key_bits=256,
    )
    return replace(base, **changes)


def rotation(phase: RotationPhase = RotationPhase.GENERATE, **changes: Any) -> Rotation:
    """From root "r1" of provider "p1" to root "r2" of provider "p2"."""
    base = Rotation(
        rotation_id="rotation-1",
        phase=phase,
        started_at=NOW,
        phase_since=NOW,
        config=config("p2"),
        root=None if phase is RotationPhase.GENERATE else root("r2", is_active=False, provider_id="p2"),
    )
    return replace(base, **changes)


def outcome(**changes: Any) -> RotationOutcome:
    return replace(RotationOutcome("rotation-1", b"request", NOW, "r2"), **changes)


def record(number: int, **changes: Any) -> LeafRecord:
    """The `number`-th certificate: everything that must be unique follows from the number."""
    base = LeafRecord(
        serial=number.to_bytes(16, "big").lstrip(b"\0"),
        kind=LeafKind.SERVICE,
        name=f"service-{number % 3}",
        spiffe_id=f"spiffe://{CLUSTER_ID}.consul/ns/default/dc/dc1/svc/service-{number % 3}",
        public_key_sha256=number.to_bytes(32, "big"),
        not_before=NOW,
        not_after=NOW + number,
        requested_by="anonymous@127.0.0.1",
        request_id=b"",
    )
    return replace(base, **changes)


def set_roots(state: State, *roots: CARoot, **changes: Any) -> SetRootsConfig:
    base = SetRootsConfig(state.ca_index, roots, config(), (provider_state(),))
    return replace(base, **changes)


def run(state: State, commands: Sequence[Command]) -> tuple[State, list[Applied | Rejected]]:
    results = []
    for command in commands:
        state, result = apply(state, command)
        results.append(result)
    return state, results


def applied(state: State, command: Command) -> State:
    """The state after a command that must be applied."""
    after, result = apply(state, command)
    assert isinstance(result, Applied), result
    return after


def configured() -> State:
    """Sealed and configured, without a root."""
    return applied(applied(State(), InitSeal(SEAL)), InitConfig(config(), provider_state()))


def ready(*roots: CARoot) -> State:
    """A CA with these roots; with one root "r1" unless told otherwise."""
    state = configured()
    return applied(state, set_roots(state, *(roots or (root("r1"),))))


#: One of each kind, every field set to something that is not its default.
COMMANDS: dict[str, Command] = {
    "init_seal": InitSeal(SEAL),
    "init_config": InitConfig(config(force_without_cross_signing=True), provider_state(is_prepared=False)),
    "set_provider_state": SetProviderState(7, provider_state(modify_index=3)),
    "set_roots_config": SetRootsConfig(
        8,
        (
            root("r1", is_active=False, intermediates=(intermediate("r1-cross", "r2-key"),)),
            root(
                "r2",
                intermediates=(intermediate("r2-leaf", "r2-key"),),
                signing_key_id="r2-leaf",
                create_index=4,
                modify_index=5,
            ),
        ),
        config(create_index=1, modify_index=2),
        (provider_state(), provider_state("p2")),
    ),
    "set_config": SetConfig(9, config(config_json="{}"), provider_state()),
    "set_roots": SetRoots(
        10, (root("r1", provider_id="p1", leaf_ttl_max_seconds=DAY, rotated_out_at=NOW, prune_at=NOW + DAY),), ()
    ),
    "renew_signing": RenewSigning(
        16, "r1", "r1-leaf", (replace(intermediate("r1-leaf", "r1-key"), made_at=NOW - DAY),), provider_state()
    ),
    "begin_rotation": BeginRotation(11, rotation(is_forced=True), provider_state("p2")),
    "advance_rotation": AdvanceRotation(
        12,
        rotation(RotationPhase.WAIT, is_staged=True, is_paused=True, wait_seconds=60, published_index=5),
        provider_state("p2"),
        (root("r1"), root("r2", is_active=False)),
    ),
    "finish_rotation": FinishRotation(
        13, (root("r1", is_active=False), root("r2")), config("p2"), (provider_state("p2"),), outcome(is_forced=True)
    ),
    "abort_rotation": AbortRotation(14, outcome(root_id="", reason="the provider is down")),
    "restore_ca": RestoreCA(15, State(3, 3, 2, 1, SEAL, config(), (root("r1"),), (provider_state(),), NOW)),
    "record_leaves": RecordLeaves(ISSUER, (record(1), record(2, kind=LeafKind.AGENT, request_id=b"r" * 16))),
    "tidy_ledger": TidyLedger(NOW),
    "reseal": Reseal(
        9,
        SealKey("passphrase", "fedcba9876543210", b"other salt", b"another wrapped key"),
        (provider_state(modify_index=3), provider_state(provider_id="p2", is_prepared=False)),
    ),
    **acl_samples.COMMANDS,
    **nodes_samples.COMMANDS,
}


def full_state() -> State:
    """Every field of State in use."""
    state = ready(
        root("r1", is_active=False, intermediates=(intermediate("r1-cross", "r2-key"),)),
        root("r2", intermediates=(intermediate("r2-leaf", "r2-key"),), signing_key_id="r2-leaf"),
    )
    state = applied(state, RecordLeaves(ISSUER, (record(1), record(2))))
    state = applied(state, TidyLedger(NOW))
    state = applied(state, BeginRotation(state.ca_index, rotation(), provider_state("p2")))
    state = applied(state, AbortRotation(state.ca_index, outcome(root_id="", reason="the provider is down")))
    return applied(state, BeginRotation(state.ca_index, rotation(rotation_id="rotation-2"), provider_state("p2")))
