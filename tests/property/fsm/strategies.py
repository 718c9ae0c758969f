"""Hypothesis strategies for commands: sound ones, refused ones and nonsense, from small pools so that they collide."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from hypothesis import strategies as st

from fsm import acl_rules, nodes_rules
from fsm.acl import DeleteAuthMethod, DeleteBindingRule, DeletePolicy, DeleteRole, DeleteTokens
from fsm.apply import RULES
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
from fsm.commands import Command, RestoreCA
from fsm.leaves import LeafKind, LeafRecord, RecordLeaves, TidyLedger
from fsm.state import Area, State
from tests.kit import acl_samples, nodes_samples, samples

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
    st.builds(Reseal, st.integers(0, 20), seals, st.lists(provider_states, max_size=2).map(tuple)),
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
    st.sampled_from([*acl_samples.COMMANDS.values(), *nodes_samples.COMMANDS.values()]),
)


def made_from(command: Command, index: int) -> Command:
    """The same command, but made from this index if it carries one."""
    if "expected_index" not in {field.name for field in fields(command)}:
        return command
    changes: dict[str, Any] = {"expected_index": index}
    return replace(command, **changes)


def _up_to_date(command: Command) -> Author:
    return lambda state: made_from(command, state.area_index(RULES[type(command)].area))


def _with_sound_roots(roots: tuple[CARoot, ...]) -> Author:
    return lambda state: samples.set_roots(state, *roots)


# -- commands that fit the state, as a leader makes them: each is applied wherever its kind can be


def _config(state: State, **changes: Any) -> CAConfig:
    return replace(state.config or samples.config(), **changes)


def _provider(state: State) -> ProviderState:
    return samples.provider_state(_config(state).provider_id, sealed=b"%d" % state.index)


def _set_provider_state(state: State) -> Command:
    return SetProviderState(state.ca_index, _provider(state))


def _set_roots_config(state: State) -> Command:
    new = samples.root(f"r{state.index}")
    old = tuple(replace(root, is_active=False) for root in state.roots)
    return SetRootsConfig(state.ca_index, (*old, new), _config(state), (*state.providers,))


def _set_config(state: State) -> Command:
    return SetConfig(state.ca_index, _config(state, config_json=f"{state.index}"), _provider(state))


def _set_roots(state: State) -> Command:
    return SetRoots(state.ca_index, tuple(root for root in state.roots if root.is_active), state.providers)


def _renew_signing(state: State) -> Command:
    root = state.active_root or samples.root("r1")
    signer = samples.intermediate(f"{root.key_id}-{state.index}", root.key_id)
    return RenewSigning(state.ca_index, root.root_id, signer.key_id, (signer,), _provider(state))


def _reseal(state: State) -> Command:
    """All that is sealed, under a data key that was not in force yet."""
    seal = replace(samples.SEAL, wrapped_key=state.index.to_bytes(48, "big"))
    providers = tuple(replace(record, sealed=b"anew") for record in state.providers)
    return Reseal(state.ca_index, seal, providers, state.acl.key, state.acl.methods, state.nodes.agent_ca)


def _begin_rotation(state: State) -> Command:
    """Of a root and a provider with new names, so that one rotation can follow another."""
    name = f"p{state.index}"
    begun = samples.rotation(rotation_id=f"rotation-{state.index}", config=_config(state, provider_id=name))
    return BeginRotation(state.ca_index, begun, samples.provider_state(name))


def _go_on_rotating(state: State) -> Command:
    """The next of three steps that fit each other; a root first if there is none."""
    rotation = state.rotation
    if rotation is None:
        return _begin_rotation(state) if state.active_root is not None else _set_roots_config(state)
    if rotation.root is None:
        provider_id = rotation.config.provider_id
        root = samples.root(f"r{state.index}", is_active=False, provider_id=provider_id)
        advanced = replace(rotation, phase=RotationPhase.ACTIVATE, root=root)
        return AdvanceRotation(state.ca_index, advanced, samples.provider_state(provider_id))
    old = tuple(replace(root, is_active=False, rotated_out_at=1, prune_at=9) for root in state.roots)
    new = replace(rotation.root, is_active=True)
    outcome = samples.outcome(rotation_id=rotation.rotation_id)
    return FinishRotation(state.ca_index, (*old, new), rotation.config, state.providers, outcome)


def _abort_rotation(state: State) -> Command:
    if state.rotation is None:
        return _go_on_rotating(state)
    return AbortRotation(state.ca_index, samples.outcome(rotation_id=state.rotation.rotation_id, root_id=""))


def _restore_ca(state: State) -> Command:
    """The CA of a cluster that has counted further in every area."""
    saved = state
    for area in Area:
        saved = saved.moved_to(state.index + 7, area)
    return RestoreCA(state.ca_index, saved)


def _tidy_ledger(state: State) -> Command:
    return TidyLedger(state.tidied_before + 5)


def _in_acl(kind: type) -> Author:
    """Of access control; what is set takes the place of what is there, what it rests on comes first."""
    return lambda state: acl_samples.fitting(state.acl, kind)


def _of_nodes(kind: type) -> Author:
    return lambda state: nodes_samples.fitting(state, kind)


fitting: st.SearchStrategy[Author] = st.sampled_from(
    [
        _set_provider_state,
        _set_roots_config,
        _set_config,
        _set_roots,
        _renew_signing,
        _reseal,
        # A rotation takes three steps, and most other commands are refused meanwhile.
        *(_go_on_rotating, _go_on_rotating, _go_on_rotating, _go_on_rotating),
        *(_abort_rotation, _abort_rotation),
        _restore_ca,
        _tidy_ledger,
    ]
)
#: What can be deleted must have been made, and what that rests on: two steps for most, four for a binding rule.
_DELETED = (DeletePolicy, DeleteRole, DeleteTokens, DeleteAuthMethod, *(4 * [DeleteBindingRule]))
in_acl: st.SearchStrategy[Author] = st.sampled_from([*acl_rules.RULES, *_DELETED]).map(_in_acl)
of_nodes: st.SearchStrategy[Author] = st.sampled_from([*nodes_rules.RULES]).map(_of_nodes)

_CHOICES: list[st.SearchStrategy[Author]] = [
    fitting,
    fitting,
    fitting,
    sound_roots().map(_with_sound_roots),
    commands.map(_up_to_date),
    record_leaves.map(_up_to_date),
    in_acl,
    in_acl,
    in_acl,
    in_acl,
    of_nodes,
]
#: Mostly commands that a leader could have made, else few would be applied. Not `one_of`, which would take each kind in
#: `commands` for a choice of its own, and choose nonsense nearly always.
authors: st.SearchStrategy[Author] = st.sampled_from(_CHOICES).flatmap(lambda chosen: chosen)
