"""How each command of the CA changes the state, and what must hold of the CA whatever the commands are."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from fsm.acl import ACL_TABLES, Acl, AuthMethod, Methods
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
    RotationPhase,
    SetConfig,
    SetProviderState,
    SetRoots,
    SetRootsConfig,
)
from fsm.commands import Rejected, RestoreCA
from fsm.fields import Index
from fsm.nodes import AgentCA
from fsm.rule import Invariants, Rule
from fsm.state import Area, State


def _init_seal(state: State, cmd: InitSeal) -> State | Rejected:
    if state.seal is not None:
        return Rejected("already_initialised", "the data key exists already")
    return replace(state, seal=cmd.seal)


def _reseal(state: State, cmd: Reseal) -> State | Rejected:
    if state.seal is None:
        return Rejected("not_initialised", "there is no data key yet")
    if cmd.seal == state.seal:
        return Rejected("same_seal", "the data key is the one in force")

    def identity(record: ProviderState) -> tuple[str, str, bool]:
        return record.provider_id, record.provider, record.is_prepared

    # What would be left out could never be opened again.
    if [identity(record) for record in cmd.providers] != [identity(record) for record in state.providers]:
        return Rejected("providers_differ", "not every provider is sealed again, or others are")
    acl = state.acl
    if (cmd.acl_key is None) != (acl.key is None) or _unsealed(cmd.methods) != _unsealed(acl.methods):
        return Rejected("access_differs", "what is sealed of access control is not sealed again, or has changed")
    if acl.key is not None:
        acl = replace(acl, key=cmd.acl_key, methods=cmd.methods)
    if _without_key(cmd.agent_ca) != _without_key(state.nodes.agent_ca):
        return Rejected("agent_ca_differs", "the key of the agent CA is not sealed again, or is another one by now")
    nodes = replace(state.nodes, agent_ca=cmd.agent_ca)
    providers = tuple(replace(record, modify_index=state.index + 1) for record in cmd.providers)
    return replace(state, seal=cmd.seal, providers=providers, acl=acl, nodes=nodes)


def _without_key(agent_ca: AgentCA | None) -> AgentCA | None:
    return None if agent_ca is None else replace(agent_ca, sealed=b"")


def _unsealed(methods: Methods) -> list[AuthMethod]:
    return [replace(method, sealed=b"") for method in methods]


def _init_config(state: State, cmd: InitConfig) -> State | Rejected:
    if state.config is not None:
        return Rejected("already_initialised", "the CA has a configuration already")
    config = _stamped(cmd.config, None, state.index + 1)
    return replace(state, config=config, providers=_with_provider(state, cmd.provider_state))


def _set_provider_state(state: State, cmd: SetProviderState) -> State | Rejected:
    if state.active_root is not None:
        return Rejected("already_initialised", "the CA has a root already")
    return replace(state, providers=_with_provider(state, cmd.state))


def _set_roots_config(state: State, cmd: SetRootsConfig) -> State | Rejected:
    if state.rotation is not None:
        return Rejected("rotation_under_way", "the roots cannot be changed while one of them is being replaced")
    config = _stamped(cmd.config, state.config, state.index + 1)
    return replace(_with_roots(state, cmd.roots, cmd.providers), config=config)


def _set_config(state: State, cmd: SetConfig) -> State | Rejected:
    if state.config is None:
        return Rejected("not_initialised", "the CA has no configuration yet")
    if state.rotation is not None:
        return Rejected("rotation_under_way", "the configuration cannot be changed while the root is being replaced")
    config = _stamped(cmd.config, state.config, state.index + 1)
    if state.roots:
        roots = tuple(_with_ttl(root, config.leaf_ttl_seconds) if root.is_active else root for root in state.roots)
        return replace(state, roots=roots, config=config, providers=_with_provider(state, cmd.provider_state))
    # Without a root nothing hangs on the provider tried before: a repaired configuration starts afresh.
    record = replace(cmd.provider_state, modify_index=state.index + 1)
    return replace(state, config=config, providers=(record,))


def _set_roots(state: State, cmd: SetRoots) -> State | Rejected:
    if state.rotation is not None:
        return Rejected("rotation_under_way", "the roots cannot be changed while one of them is being replaced")
    return _with_roots(state, cmd.roots, cmd.providers)


def _renew_signing(state: State, cmd: RenewSigning) -> State | Rejected:
    """Also while a rotation is under way, which may wait for longer than a signing certificate lives."""
    active = state.active_root
    if active is None or active.root_id != cmd.root_id:
        return Rejected("not_active", f"root {cmd.root_id} is not the active one")
    if state.provider_state(cmd.provider_state.provider_id) is None:
        return Rejected("no_provider", f"provider {cmd.provider_state.provider_id} is not in use")
    renewed = replace(active, signing_key_id=cmd.signing_key_id, intermediates=cmd.intermediates)
    roots = (renewed if root is active else root for root in state.roots)
    return replace(_with_roots(state, roots, ()), providers=_with_provider(state, cmd.provider_state))


def _begin_rotation(state: State, cmd: BeginRotation) -> State | Rejected:
    if state.rotation is not None:
        return Rejected("rotation_under_way", "another rotation is under way")
    if state.active_root is None:
        return Rejected("not_initialised", "there is no root to rotate out yet")
    if state.provider_state(cmd.provider_state.provider_id) is not None:
        return Rejected("provider_exists", f"provider {cmd.provider_state.provider_id} is in use already")
    return replace(state, rotation=cmd.rotation, providers=_with_provider(state, cmd.provider_state))


def _advance_rotation(state: State, cmd: AdvanceRotation) -> State | Rejected:
    if state.rotation is None or state.rotation.rotation_id != cmd.rotation.rotation_id:
        return Rejected("no_rotation", f"rotation {cmd.rotation.rotation_id} is not under way")
    rotation = cmd.rotation
    if cmd.roots is not None:
        state = _with_roots(state, cmd.roots, state.providers)
        rotation = replace(rotation, published_index=state.roots_index)
    return replace(state, rotation=rotation, providers=_with_provider(state, cmd.provider_state))


def _finish_rotation(state: State, cmd: FinishRotation) -> State | Rejected:
    if state.rotation is None or state.rotation.rotation_id != cmd.outcome.rotation_id:
        return Rejected("no_rotation", f"rotation {cmd.outcome.rotation_id} is not under way")
    index = state.index + 1
    state = _with_roots(state, cmd.roots, cmd.providers)
    return replace(state, config=_stamped(cmd.config, state.config, index), rotation=None, last_rotation=cmd.outcome)


def _abort_rotation(state: State, cmd: AbortRotation) -> State | Rejected:
    rotation = state.rotation
    if rotation is None or rotation.rotation_id != cmd.outcome.rotation_id:
        return Rejected("no_rotation", f"rotation {cmd.outcome.rotation_id} is not under way")
    others = tuple(record for record in state.providers if record.provider_id != rotation.config.provider_id)
    # A root that was published but never signed goes; one that was listed before stays as it was.
    kept = tuple(root for root in state.roots if root.is_active or root.is_retired)
    if kept != state.roots:
        state = _with_roots(state, kept, others)
    return replace(state, providers=others, rotation=None, last_rotation=cmd.outcome)


def _restore_ca(state: State, cmd: RestoreCA) -> State | Rejected:
    saved, index = cmd.saved, state.index + 1
    if saved.seal is None or saved.config is None:
        return Rejected("not_initialised", "the saved state holds no CA")
    acl, acl_index = _acl_after_restore(state, saved)
    return replace(
        saved,
        index=state.index,
        leaf_index=state.leaf_index,
        acl_index=acl_index,
        acl=acl,
        # Who the servers of this cluster are to each other is no part of another one's CA, nor of an earlier day's.
        nodes_index=state.nodes_index,
        nodes=state.nodes,
        # Rows that either of the two would have dropped are not kept.
        tidied_before=max(state.tidied_before, saved.tidied_before),
        roots_index=index,
        config=replace(saved.config, create_index=index, modify_index=index),
        roots=tuple(replace(root, create_index=index, modify_index=index) for root in saved.roots),
        providers=tuple(replace(record, modify_index=index) for record in saved.providers),
    )


def brings_access(state: State, saved: State) -> bool:
    """Whether access control of the saved state takes the place of this one's. The leader leaves it out of a saved
    state that nobody vouches for.
    """
    return saved.acl.key is not None and saved.trust_domain != state.trust_domain


def _acl_after_restore(state: State, saved: State) -> tuple[Acl, Index]:
    """And its index. Of this cluster's own earlier day nothing comes back: a token that was revoked since would. Of
    another cluster everything does, unless it has none; but whoever has bootstrapped either cannot do so again.
    """
    if not brings_access(state, saved):
        return state.acl, state.acl_index
    index = state.index + 1
    is_bootstrapped = saved.acl.bootstrap_index or state.acl.bootstrap_index
    stamped: dict[str, Any] = {
        name: tuple(replace(value, create_index=index, modify_index=index) for value in getattr(saved.acl, name))
        for name in ACL_TABLES
    }
    indexes: dict[str, Any] = {f"{name}_index": index for name in ACL_TABLES}
    acl = replace(saved.acl, bootstrap_index=index if is_bootstrapped else 0, **stamped, **indexes)
    return acl, index


def _with_roots(state: State, roots: Iterable[CARoot], providers: Iterable[ProviderState]) -> State:
    """Roots in id order. All get the index of this write, as in Consul; a provider keeps its own unless it changed."""
    index = state.index + 1
    known = {root.root_id: root.create_index for root in state.roots}
    stamped = tuple(
        replace(root, create_index=known.get(root.root_id, index), modify_index=index)
        for root in sorted(roots, key=lambda root: root.root_id)
    )
    return replace(state, roots=stamped, roots_index=index, providers=tuple(_changed(state, providers)))


def _changed(state: State, providers: Iterable[ProviderState]) -> Iterator[ProviderState]:
    known = {record.provider_id: record for record in reversed(state.providers)}
    for record in providers:
        old = known.get(record.provider_id)
        if old is not None and replace(record, modify_index=old.modify_index) == old:
            yield old
        else:
            yield replace(record, modify_index=state.index + 1)


def _stamped(config: CAConfig, old: CAConfig | None, index: int) -> CAConfig:
    return replace(config, create_index=old.create_index if old else index, modify_index=index)


def _with_ttl(root: CARoot, leaf_ttl_seconds: int) -> CARoot:
    """What it was active with counts for its retention later; no change of the root that clients could see."""
    return replace(root, leaf_ttl_max_seconds=max(root.leaf_ttl_max_seconds, leaf_ttl_seconds))


def _with_provider(state: State, record: ProviderState) -> tuple[ProviderState, ...]:
    others = (other for other in state.providers if other.provider_id != record.provider_id)
    return (*others, replace(record, modify_index=state.index + 1))


def broken_invariant(state: State) -> str | None:
    """What is impossible about this state, or None."""
    ids = [root.root_id for root in state.roots]
    if len(set(ids)) != len(ids) or "" in ids:
        return "root ids must be unique and not empty"
    if state.roots and sum(root.is_active for root in state.roots) != 1:
        return "there must be exactly one active CA"
    if state.roots and state.config is None:
        return "there are roots without a configuration"
    if state.config is not None and state.provider_state(state.config.provider_id) is None:
        return f"the state of provider {state.config.provider_id} is missing"
    if len({record.provider_id for record in state.providers}) != len(state.providers):
        return "provider ids must be unique"
    if any(root.is_active and root.is_retired for root in state.roots):
        return "the active root is rotated out"
    if state.rotation is not None and (broken := _broken_rotation(state, state.rotation)):
        return broken
    return _broken_chain(state.roots)


def _broken_rotation(state: State, rotation: Rotation) -> str | None:
    if state.active_root is None:
        return "a rotation is under way, but there is no root"
    if state.config is not None and rotation.config.cluster_id != state.config.cluster_id:
        return "a rotation cannot change the trust domain"
    if state.provider_state(rotation.config.provider_id) is None:
        return f"the state of provider {rotation.config.provider_id} of the rotation is missing"
    if (rotation.root is None) != (rotation.phase is RotationPhase.GENERATE):
        return f"the root of a rotation in phase {rotation.phase} is {'missing' if rotation.root is None else 'there'}"
    return None


def _broken_chain(roots: tuple[CARoot, ...]) -> str | None:
    root_keys = {root.key_id for root in roots}
    for root in roots:
        keys = {intermediate.key_id for intermediate in root.intermediates}
        linked = _linked(root_keys, root.intermediates)
        for intermediate in root.intermediates:
            if intermediate.issuer_key_id not in linked:
                return f"intermediate {intermediate.key_id} of root {root.root_id} does not lead to a listed root"
        if root.signing_key_id != root.key_id and root.signing_key_id not in keys:
            return f"signing key {root.signing_key_id} of root {root.root_id} has no certificate"
    return None


def _linked(root_keys: set[str], intermediates: tuple[Intermediate, ...]) -> set[str]:
    """The keys that lead to a root. Grown from the roots, link by link: certificates that lead to each other only
    never get in. Each is looked at once, however many a command brings.
    """
    below: dict[str, list[str]] = {}
    for link in intermediates:
        below.setdefault(link.issuer_key_id, []).append(link.key_id)
    linked, fresh = set(root_keys), list(root_keys)
    while fresh:
        for key in below.pop(fresh.pop(), ()):
            if key not in linked:
                linked.add(key)
                fresh.append(key)
    return linked


def _broken_transition(before: State, after: State) -> str | None:
    if before.config is None or after.config is None:
        return None
    if before.roots and before.config.cluster_id != after.config.cluster_id:
        return f"the trust domain cannot change from {before.trust_domain} to {after.trust_domain}"
    return None


RULES: Final[Mapping[type, Rule]] = {
    InitSeal: Rule(_init_seal, Area.CA),
    Reseal: Rule(_reseal, Area.CA),
    InitConfig: Rule(_init_config, Area.CA),
    SetProviderState: Rule(_set_provider_state, Area.CA),
    SetRootsConfig: Rule(_set_roots_config, Area.CA),
    SetConfig: Rule(_set_config, Area.CA),
    SetRoots: Rule(_set_roots, Area.CA),
    RenewSigning: Rule(_renew_signing, Area.CA),
    BeginRotation: Rule(_begin_rotation, Area.CA),
    AdvanceRotation: Rule(_advance_rotation, Area.CA),
    FinishRotation: Rule(_finish_rotation, Area.CA),
    AbortRotation: Rule(_abort_rotation, Area.CA),
    RestoreCA: Rule(_restore_ca, Area.CA, checks_transition=False),  # another CA has another trust domain
}

INVARIANTS: Final = Invariants(broken_invariant, _broken_transition)
