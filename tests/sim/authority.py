"""CA work with made-up keys and certificates: the commands that the leader and its rotations propose (cluster/ca).

Functions of the state alone, but for the names of new things. Whoever leads looks at the state, works for a while, and
proposes; the work may end anywhere, and another leader finds the same duty.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cluster.ca.rotation import retention_seconds
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
    Rotation,
    RotationOutcome,
    RotationPhase,
    SealKey,
    SetConfig,
    SetProviderState,
    SetRoots,
    SetRootsConfig,
)
from fsm.commands import Command
from fsm.duties import Duty, DutyPolicy, prunable, tidy_time
from fsm.leaves import TidyLedger
from fsm.links import links_of, local_chain, needed_links
from fsm.state import State

POLICY: Final = DutyPolicy(keep_expired_seconds=600)
LEAF_TTL_SECONDS: Final = 300
_ROOT_SECONDS: Final = 1_000_000
_CLUSTER_ID: Final = "11111111-2222-3333-4444-555555555555"


def command_for(duty: Duty, state: State, now: int, name: str) -> Command:
    """`name` is new, and so is everything made with it."""
    return _DUTIES[duty](state, now, name)


def _init_seal(_state: State, _now: int, name: str) -> Command:
    return InitSeal(SealKey("file", "kek", b"", name.encode()))


def _init_config(_state: State, _now: int, name: str) -> Command:
    """The register's first value comes from the name."""
    config = CAConfig(_CLUSTER_ID, "consul", name, str(value_in(name)), leaf_ttl_seconds=LEAF_TTL_SECONDS)
    return InitConfig(config, _sealed(name, name, is_prepared=False))


def _prepare_root(state: State, _now: int, name: str) -> Command:
    return SetProviderState(state.ca_index, _sealed(_config(state).provider_id, name))


def _generate_root(state: State, now: int, name: str) -> Command:
    config = _config(state)
    root = replace(_root(name, config, now), is_active=True)
    return SetRootsConfig(state.ca_index, (root,), config, (_sealed(config.provider_id, name),))


def begin_rotation(state: State, now: int, name: str, *, is_staged: bool) -> Command:
    rotation = Rotation(
        rotation_id=name,
        phase=RotationPhase.GENERATE,
        started_at=now,
        phase_since=now,
        config=replace(_config(state), provider_id=name),
        is_staged=is_staged,
        wait_seconds=1000,
    )
    return BeginRotation(state.ca_index, rotation, _sealed(name, name))


def abort_rotation(state: State, now: int, name: str) -> Command:
    rotation = _rotation(state)
    return AbortRotation(state.ca_index, RotationOutcome(rotation.rotation_id, b"", now, "", name))


def _rotate_generate(state: State, now: int, name: str) -> Command:
    return _advance(state, now, name, RotationPhase.CROSS_SIGN, _root(name, _rotation(state).config, now))


def _rotate_cross_sign(state: State, now: int, name: str) -> Command:
    rotation, old = _rotation(state), _active(state)
    root = _new_root(rotation)
    cross = Intermediate(f"cross {name}", root.key_id, old.key_id, now + _ROOT_SECONDS)
    links = needed_links((cross, *links_of(old)), state.roots, root.key_id)
    phase = RotationPhase.PUBLISH if rotation.is_staged else RotationPhase.ACTIVATE
    return _advance(state, now, name, phase, replace(root, intermediates=links))


def _rotate_publish(state: State, now: int, name: str) -> Command:
    root = _new_root(_rotation(state))
    roots = (*state.roots, replace(root, intermediates=()))
    return _advance(state, now, name, RotationPhase.WAIT, root, roots)


def _rotate_activate(state: State, now: int, name: str) -> Command:
    rotation, old, config = _rotation(state), _active(state), _config(state)
    root = _new_root(rotation)
    retired = replace(old, is_active=False, rotated_out_at=now, prune_at=now + retention_seconds(old, config))
    trusted = (*(kept for kept in state.roots if kept.root_id not in (old.root_id, root.root_id)), retired)
    links = (*local_chain(root), *needed_links(links_of(root), trusted, root.key_id))
    roots = (*trusted, replace(root, is_active=True, intermediates=links))
    outcome = RotationOutcome(rotation.rotation_id, name.encode(), now, root.root_id)
    return FinishRotation(state.ca_index, roots, rotation.config, _providers_for(state, roots), outcome)


def _prune_roots(state: State, now: int, name: str) -> Command:
    kept = [root for root in state.roots if root not in prunable(state, now)]
    # The index inside is ignored, so it can tell two attempts apart.
    roots = tuple(
        replace(
            root,
            intermediates=(*local_chain(root), *needed_links(links_of(root), kept, root.key_id)),
            modify_index=value_in(name),
        )
        for root in kept
    )
    used = (*_providers_for(state, roots), *(p for p in state.providers if p.provider_id == _config(state).provider_id))
    return SetRoots(state.ca_index, roots, tuple({provider.provider_id: provider for provider in used}.values()))


def _tidy_ledger(_state: State, now: int, _name: str) -> Command:
    return TidyLedger(tidy_time(now, POLICY))


_DUTIES: Final[dict[Duty, Callable[[State, int, str], Command]]] = {
    Duty.INIT_SEAL: _init_seal,
    Duty.INIT_CONFIG: _init_config,
    Duty.PREPARE_ROOT: _prepare_root,
    Duty.GENERATE_ROOT: _generate_root,
    Duty.ROTATE_GENERATE: _rotate_generate,
    Duty.ROTATE_CROSS_SIGN: _rotate_cross_sign,
    Duty.ROTATE_PUBLISH: _rotate_publish,
    Duty.ROTATE_ACTIVATE: _rotate_activate,
    Duty.PRUNE_ROOTS: _prune_roots,
    Duty.TIDY_LEDGER: _tidy_ledger,
}


def set_config(state: State, value: int) -> Command:
    """Another value for the register that the configuration is."""
    config = _config(state)
    provider = state.provider_state(config.provider_id)
    assert provider is not None
    return SetConfig(state.ca_index, replace(config, config_json=str(value)), provider)


def value_in(name: str) -> int:
    """The number that makes a name new."""
    return int(name.rsplit(".", 1)[1])


# -- parts


def _advance(
    state: State, now: int, name: str, phase: RotationPhase, root: CARoot, roots: tuple[CARoot, ...] | None = None
) -> Command:
    rotation = replace(_rotation(state), phase=phase, phase_since=now, root=root)
    return AdvanceRotation(state.ca_index, rotation, _sealed(rotation.config.provider_id, name), roots)


def _root(name: str, config: CAConfig, now: int) -> CARoot:
    return CARoot(
        root_id=f"root {name}",
        name="Consul CA Primary Cert",
        serial_number=now,
        key_id=f"key {name}",
        signing_key_id=f"key {name}",
        external_trust_domain=config.cluster_id,
        not_before=now,
        not_after=now + _ROOT_SECONDS,
        root_pem=f"pem {name}",
        intermediates=(),
        is_active=False,
        private_key_type="ec",
        private_key_bits=256,
        provider_id=config.provider_id,
        leaf_ttl_max_seconds=config.leaf_ttl_seconds,
    )


def _sealed(provider_id: str, secret: str, *, is_prepared: bool = True) -> ProviderState:
    return ProviderState(provider_id, "consul", secret.encode(), is_prepared)


def _providers_for(state: State, roots: tuple[CARoot, ...]) -> tuple[ProviderState, ...]:
    needed = {root.provider_id for root in roots}
    return tuple(provider for provider in state.providers if provider.provider_id in needed)


def _config(state: State) -> CAConfig:
    assert state.config is not None
    return state.config


def _rotation(state: State) -> Rotation:
    assert state.rotation is not None
    return state.rotation


def _new_root(rotation: Rotation) -> CARoot:
    assert rotation.root is not None
    return rotation.root


def _active(state: State) -> CARoot:
    root = state.active_root
    assert root is not None
    return root
