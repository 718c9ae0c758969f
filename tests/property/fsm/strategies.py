"""Hypothesis strategies for commands: sound ones, refused ones and nonsense, from small pools so that they collide."""

from collections.abc import Callable
from dataclasses import replace

from hypothesis import strategies as st

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
    Rotation,
    RotationOutcome,
    RotationPhase,
    SealKey,
    SetConfig,
    SetProviderState,
    SetRoots,
    SetRootsConfig,
)
from fsm.commands import Command, RestoreCA
from fsm.leaves import LeafKind, LeafRecord, RecordLeaves, TidyLedger
from fsm.state import State
from tests.unit.fsm import samples

#: A command made from the state that its author sees.
Author = Callable[[State], Command]

TEXTS = st.text(max_size=8)
BYTES = st.binary(max_size=8)
TIMES = st.integers(0, 60)
KEYS = st.sampled_from(["k1", "k2", "k3", "k4"])
PROVIDER_IDS = st.sampled_from(["p1", "p2"])

seals = st.builds(SealKey, TEXTS, TEXTS, BYTES, BYTES)
configs = st.builds(
    CAConfig,
    cluster_id=st.sampled_from([samples.CLUSTER_ID, samples.CLUSTER_ID, samples.OTHER_CLUSTER_ID]),
    provider=TEXTS,
    provider_id=PROVIDER_IDS,
    config_json=TEXTS,
    public_state=st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple),
    force_without_cross_signing=st.booleans(),
    request_id=BYTES,
    create_index=st.integers(0, 9),
    modify_index=st.integers(0, 9),
)
provider_states = st.builds(ProviderState, PROVIDER_IDS, TEXTS, BYTES, st.booleans(), st.integers(0, 9))
intermediates = st.builds(Intermediate, TEXTS, KEYS, KEYS, TIMES, TIMES)
roots = st.builds(
    CARoot,
    root_id=st.sampled_from(["r1", "r2", "r3"]),
    name=TEXTS,
    serial_number=st.integers(0, (1 << 64) - 1),
    key_id=KEYS,
    signing_key_id=KEYS,
    external_trust_domain=TEXTS,
    not_before=TIMES,
    not_after=TIMES,
    root_pem=TEXTS,
    intermediates=st.lists(intermediates, max_size=2).map(tuple),
    is_active=st.booleans(),
    private_key_type=TEXTS,
    private_key_bits=st.integers(0, 1 << 12),
    provider_id=PROVIDER_IDS,
    rotated_out_at=TIMES,
    prune_at=TIMES,
)
rotations = st.builds(
    Rotation,
    rotation_id=st.sampled_from(["a", "b"]),
    phase=st.sampled_from(RotationPhase),
    started_at=TIMES,
    phase_since=TIMES,
    config=configs,
    is_forced=st.booleans(),
    is_staged=st.booleans(),
    is_paused=st.booleans(),
    wait_seconds=TIMES,
    root=st.none() | roots,
)
outcomes = st.builds(RotationOutcome, st.sampled_from(["a", "b"]), BYTES, TIMES, TEXTS, TEXTS)


@st.composite
def sound_roots(draw: st.DrawFn) -> tuple[CARoot, ...]:
    """Unique ids, one of them active, each signing with its own key."""
    ids = draw(st.lists(st.sampled_from(["r1", "r2", "r3"]), min_size=1, max_size=3, unique=True))
    active = draw(st.sampled_from(ids))
    return tuple(samples.root(root_id, is_active=root_id == active) for root_id in ids)


@st.composite
def records(draw: st.DrawFn) -> LeafRecord:
    """Few serials and requests, so that duplicates are common; the name follows from the SPIFFE ID or does not.

    Serials and request ids are random numbers in real life, so the same one never comes again with another lifetime:
    here request and expiry follow from the serial.
    """
    serial = draw(st.integers(1, 40))
    has_request = serial % 2 == 1
    name = draw(st.sampled_from(["web", "api"]))
    return LeafRecord(
        serial=bytes([serial]),
        kind=draw(st.sampled_from(LeafKind)),
        name=name,
        spiffe_id=draw(st.sampled_from([f"spiffe://x/{name}", "spiffe://x/shared"])),
        public_key_sha256=draw(BYTES),
        not_before=0,
        not_after=6 * (serial % 10) + 3 if has_request else serial,
        requested_by=draw(TEXTS),
        request_id=bytes([serial % 10]) if has_request else b"",
    )


record_leaves = st.builds(
    RecordLeaves, st.sampled_from([samples.ISSUER, samples.OTHER_ISSUER]), st.lists(records(), max_size=4).map(tuple)
)
commands = st.one_of(
    st.builds(InitSeal, seals),
    st.builds(InitConfig, configs, provider_states),
    st.builds(SetProviderState, st.integers(0, 20), provider_states),
    st.builds(
        SetRootsConfig,
        st.integers(0, 20),
        st.lists(roots, max_size=3).map(tuple),
        configs,
        st.lists(provider_states, max_size=2).map(tuple),
    ),
    st.builds(SetConfig, st.integers(0, 20), configs, provider_states),
    st.builds(SetRoots, st.integers(0, 20), st.lists(roots, max_size=3).map(tuple), st.just(())),
    st.builds(
        RenewSigning,
        st.integers(0, 20),
        st.sampled_from(["r1", "r2"]),
        TEXTS,
        st.lists(intermediates, max_size=2).map(tuple),
        provider_states,
    ),
    st.builds(BeginRotation, st.integers(0, 20), rotations, provider_states),
    st.builds(
        AdvanceRotation,
        st.integers(0, 20),
        rotations,
        provider_states,
        st.none() | st.lists(roots, max_size=3).map(tuple),
    ),
    st.builds(
        FinishRotation,
        st.integers(0, 20),
        st.lists(roots, max_size=3).map(tuple),
        configs,
        st.lists(provider_states, max_size=2).map(tuple),
        outcomes,
    ),
    st.builds(AbortRotation, st.integers(0, 20), outcomes),
    st.builds(
        RestoreCA,
        st.integers(0, 20),
        st.builds(
            State,
            index=st.integers(0, 99),
            ca_index=st.integers(0, 99),
            roots_index=st.integers(0, 99),
            leaf_index=st.integers(0, 99),
            seal=st.none() | seals,
            config=st.none() | configs,
            roots=st.lists(roots, max_size=2).map(tuple),
            providers=st.lists(provider_states, max_size=2).map(tuple),
            tidied_before=TIMES,
        ),
    ),
    record_leaves,
    st.builds(TidyLedger, TIMES),
)


def _up_to_date(command: Command) -> Author:
    """The command, but made from the present index."""

    def made(state: State) -> Command:
        if isinstance(command, InitSeal | InitConfig | RecordLeaves | TidyLedger):
            return command
        return replace(command, expected_index=state.ca_index)

    return made


def _with_sound_roots(roots: tuple[CARoot, ...]) -> Author:
    return lambda state: samples.set_roots(state, *roots)


def _rotate(step: str) -> Author:
    """A whole rotation in steps that fit each other, so that some of them are applied."""

    def made(state: State) -> Command:
        if state.rotation is None:
            begun = samples.rotation(config=samples.config("p3"))
            return BeginRotation(state.ca_index, begun, samples.provider_state("p3"))
        rotation_id = state.rotation.rotation_id
        if step == "abort":
            return AbortRotation(state.ca_index, samples.outcome(rotation_id=rotation_id, root_id=""))
        if state.rotation.root is None:
            root = samples.root("r9", is_active=False, provider_id="p3")
            advanced = replace(state.rotation, phase=RotationPhase.ACTIVATE, root=root)
            return AdvanceRotation(state.ca_index, advanced, samples.provider_state("p3"))
        old = tuple(replace(root, is_active=False, rotated_out_at=1, prune_at=9) for root in state.roots)
        new = replace(state.rotation.root, is_active=True)
        outcome = samples.outcome(rotation_id=rotation_id)
        kept = tuple(root for root in old if root.root_id != new.root_id)
        return FinishRotation(state.ca_index, (*kept, new), state.rotation.config, state.providers, outcome)

    return made


#: Mostly commands that a leader could have made, else few would be applied.
authors: st.SearchStrategy[Author] = st.one_of(
    sound_roots().map(_with_sound_roots),
    st.sampled_from(["go on", "go on", "abort"]).map(_rotate),
    commands.map(_up_to_date),
    record_leaves.map(_up_to_date),
)
