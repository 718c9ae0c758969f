"""Changing the root without a failed handshake: the steps of a rotation, and the end of retired roots.

Every step is a duty of the leader: it does the work, commits what came of it together with the next phase, and may
stop anywhere. Whoever leads next finds the same duty and goes on; nothing is started twice. Until the last step nothing
changes for clients, and a step that fails for good leaves everything as it was.

The rule that holds at every moment: a client that accepts leaves now, because it trusts one of the listed roots,
accepts every leaf issued from now on. So the new root carries a chain of cross-signed certificates, one after the
other, back to each root that leaves lead to now. Listed roots that they do not lead to any more hold nothing up.
"""

import json
import time
from dataclasses import dataclass, replace
from typing import Final

from cluster.base.clock import rfc3339
from cluster.base.errors import ClusterError, InternalError, NotLeader, Refused
from cluster.base.log import audited_signature
from cluster.ca.chain_limits import UNLINKED, PlannedChain, planned_chain, require_short
from cluster.ca.changes import LEADER
from cluster.ca.commit import commit, require_room, require_writable
from cluster.ca.opened import OpenedRotation
from cluster.ca.own_key import require_own_key
from cluster.ca.parts import Parts
from cluster.ca.proof import prove
from cluster.ca.roots import intermediates_of, name_limits, root_of
from cluster.ca.settings import CASettings
from cluster.seal.keeper import CoveredRecord
from cluster.signing.serials import new_serial
from fsm.ca import (
    AbortRotation,
    AdvanceRotation,
    BeginRotation,
    CAConfig,
    CARoot,
    FinishRotation,
    Intermediate,
    ProviderState,
    Rotation,
    RotationOutcome,
    RotationPhase,
    SetRoots,
)
from fsm.codec import dump_command
from fsm.duties import prunable
from fsm.fields import as_reason
from fsm.links import links_of, live_links, local_chain, must_stay_trusted, needed_links
from fsm.state import State
from providers.api import CAChain
from providers.errors import ChainInvalid, NotInitialized, ProviderError
from providers.pki import verify
from providers.pki.constraints import refusal_of_common_name
from providers.pki.serials import serial_bytes
from providers.pki.x509 import load_cert, split_bundle
from providers.texts import bounded, one_line

#: A provider that does not answer is asked again for this long; then the rotation is given up.
_PATIENCE_SECONDS: Final = 60
_MIN_RETENTION_SECONDS: Final = 60
_MAX_REASON: Final = 500
#: What a step holds beside the roots and providers that there are: a root that is made here, and its links.
_STEP_BYTES: Final = 32 << 10
#: Consul's: a retired root is trusted for twice the leaf TTL.
_RETENTION_TTLS: Final = 2

SAME_ROOT: Final = (
    "the provider answered with the root that is active already: it keeps its root where the configuration points, so"
    " change that (for Vault: RootPKIPath)"
)

#: Consul's.
NO_CROSS_SIGNING: Final = (
    "The current CA Provider does not support cross-signing. You can try again with ForceWithoutCrossSigningSet"
    " but this may cause disruption - see documentation for more."
)


@dataclass(frozen=True, slots=True)
class RotationRequest:
    """What a new root is wanted for: the target configuration, and the provider prepared for it."""

    config: CAConfig
    settings: CASettings
    provider_state: bytes
    ca_index: int
    is_forced: bool = False
    is_staged: bool = False
    wait_seconds: int = 0
    by: str = LEADER  # who wants it, for the log


class Rotator:
    """Takes the steps of a rotation, on the leader, and drops retired roots when they are no longer needed."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._replica = parts.replica
        self._authority = parts.authority
        self._pool = parts.pool
        self._opener = parts.opener
        self._clock = parts.clock
        self._log = parts.log

    # -- before

    async def check(self, state: State, provider: str, root_pem: str, *, is_forced: bool) -> PlannedChain:
        """Whether a rotation to this root of the provider ("": not made yet) could be finished as things stand.

        Raises: NotLeader; InternalError, in Consul's words; Refused, with the date from which on it is possible.
        """
        opened = self._opener.opened(state)
        _require_room(state, opened.config)
        if is_forced or self._is_expired(opened.root):
            return UNLINKED
        self._require_leadership()
        await self._authority.adopt(state)
        try:
            can_cross_sign = await self._pool.supports_cross_signing(opened.config.provider_id)
        except NotInitialized:
            self._require_leadership()  # with which the keys have gone
            raise
        if not can_cross_sign:
            raise InternalError(NO_CROSS_SIGNING)
        return planned_chain(opened, state.roots, provider, root_pem, self._clock.now())

    async def rehearse(
        self, state: State, request: RotationRequest, key: str, chain: CAChain, provider_state: bytes
    ) -> None:
        """All that a rotation to this root will do, with a complete candidate and without committing anything: where
        nothing has to be made in a backend, whoever asked is told at once what would go wrong.

        Raises: InternalError; Refused for what the log would not take.
        """
        now, opened = self._parts.unix_now, self._opener.opened(state)
        config = replace(request.config, provider_id=key)
        rotation = Rotation(
            rotation_id=key,
            phase=RotationPhase.CROSS_SIGN,
            started_at=now,
            phase_since=now,
            config=config,
            is_forced=request.is_forced,
            is_staged=request.is_staged,
            wait_seconds=request.wait_seconds,
        )
        try:
            verify.verify_ca(chain, trust_domain=state.trust_domain, now=now)
            root = root_of(chain, config, is_active=False, made_at=now)
            trial = OpenedRotation(replace(rotation, root=root), opened.record, opened.config, opened.root)
            root = await self._cross_signed(state, trial, root)
            self._check_common_name(state, trial, root)
        except ProviderError as error:
            raise InternalError(f"the root cannot take the place of the one in use: {error}") from error
        record = CoveredRecord(request.settings.secrets, provider_state, request.settings.config_json)
        sealed = self._opener.sealed(config, record)
        trial = replace(trial, rotation=replace(rotation, root=root), record=record)
        after = replace(state, rotation=trial.rotation, providers=(*state.providers, sealed))
        require_writable(self._finish(after, trial))
        if request.is_staged:
            require_writable(self._advance(after, trial, RotationPhase.WAIT, root, roots=_published(after, root)))

    async def _cross_signed(self, state: State, opened: OpenedRotation, root: CARoot) -> CARoot:
        """The new root with its links, verified as clients will see it. Raises: ProviderError, InternalError."""
        require_own_key(root, state.roots)
        links = await self._links(state, opened, root)
        root = replace(root, intermediates=(*local_chain(root), *links))
        require_short(root)
        await self._verify(state, opened, root)
        return root

    def _check_common_name(self, state: State, opened: OpenedRotation, root: CARoot) -> None:
        """Of an operator's root, by what the CAs say that it is cross-signed below. Raises: ChainInvalid."""
        if opened.rotation.is_forced:
            return
        above = name_limits(opened.old, state.roots, self._clock.now())
        if text := refusal_of_common_name(load_cert(root.root_pem), above):
            raise ChainInvalid(f"{text}: give it a name with a space")

    async def begin(self, request: RotationRequest) -> str:
        """Commit the intent; returns the rotation's id. Raises: InternalError, Refused (no effect)."""
        now = self._parts.unix_now
        config = request.config
        rotation = Rotation(
            rotation_id=config.provider_id,
            phase=RotationPhase.GENERATE,
            started_at=now,
            phase_since=now,
            config=config,
            is_forced=request.is_forced,
            is_staged=request.is_staged,
            wait_seconds=request.wait_seconds,
        )
        record = CoveredRecord(request.settings.secrets, request.provider_state, request.settings.config_json)
        sealed = self._opener.sealed(config, record)
        await commit(self._replica, BeginRotation(request.ca_index, rotation, sealed))
        self._log(
            "rotation.begun",
            rotation=rotation.rotation_id,
            provider=config.provider,
            forced=request.is_forced,
            by=request.by,
        )
        return rotation.rotation_id

    # -- duties

    async def generate(self, state: State) -> None:
        """The new provider makes its root; it is verified and remembered."""
        opened = self._opener.rotation(state)
        target = opened.rotation.config
        try:
            await self._configure(opened)
            self._log("ca.signing", profile="root", provider=target.provider, by="leader")
            with audited_signature(self._log, profile="root", provider=target.provider, by="leader"):
                chain, provider_state = await self._pool.generate_root(target.provider_id)
                verify.verify_ca(chain, trust_domain=state.trust_domain, now=self._parts.unix_now)
                verify.check_for_peers(chain)
        except ProviderError as error:
            await self._failed(state, opened.rotation, error)
            return
        root = root_of(chain, target, is_active=False, made_at=self._parts.unix_now)
        if opened.old.root_id == root.root_id:
            await self.give_up(state, SAME_ROOT)
            return
        step = self._advance(state, opened, RotationPhase.CROSS_SIGN, root, provider_state=provider_state)
        if await self._take(state, step):
            self._log("ca.signed", profile="root", provider=target.provider, root=root.root_id, by="leader")

    async def cross_sign(self, state: State) -> None:
        """The old root signs the new one, and every chain that clients will see is verified."""
        opened = self._opener.rotation(state)
        root = opened.root
        try:
            await self._configure(opened)
            root = await self._cross_signed(state, opened, root)
        except (ProviderError, InternalError) as error:
            await self._failed(state, opened.rotation, error)
            return
        phase = RotationPhase.PUBLISH if opened.rotation.is_staged else RotationPhase.ACTIVATE
        await self._take(state, self._advance(state, opened, phase, root))

    async def publish(self, state: State) -> None:
        """Staged: the new root is trusted from now on, and signs later."""
        opened = self._opener.rotation(state)
        root = opened.root
        step = self._advance(state, opened, RotationPhase.WAIT, root, roots=_published(state, root))
        if await self._take(state, step):
            self._log("rotation.published", rotation=opened.rotation.rotation_id, root=root.root_id)

    async def activate(self, state: State) -> None:
        """The new root signs; the old one stays trusted for its retention."""
        opened = self._opener.rotation(state)
        finish = self._finish(state, opened)
        if not await self._take(state, finish):
            return
        self._log(
            "rotation.finished",
            rotation=opened.rotation.rotation_id,
            root=opened.root.root_id,
            retired=opened.old.root_id,
            pruned_from=rfc3339(next(one.prune_at for one in finish.roots if one.root_id == opened.old.root_id)),
        )
        await self._authority.adopt(self._replica.state)

    async def prune(self, state: State) -> None:
        """Stop trusting roots whose retention is over."""
        await self.drop_roots(state, prunable(state, self._parts.unix_now), state.ca_index)

    async def drop_roots(self, state: State, dropped: tuple[CARoot, ...], ca_index: int, by: str = LEADER) -> None:
        """Roots, their providers, and the links that only led to them. Raises: InternalError, Refused."""
        self._require_leadership()
        kept = [root for root in state.roots if root not in dropped]
        roots = tuple(
            replace(root, intermediates=(*local_chain(root), *needed_links(links_of(root), kept, root.key_id)))
            for root in kept
        )
        providers = _providers_for(state, roots)
        for sealed in state.providers:
            if sealed not in providers:
                await self._clean_up(state, sealed, is_unused=False)
        await commit(self._replica, SetRoots(ca_index, roots, providers))
        for root in dropped:
            self._log("root.pruned", root=root.root_id, by=by)

    async def give_up(self, state: State, reason: str, by: str = LEADER) -> None:
        """Everything is as it was before; what the new provider made is removed.

        Raises: NotLeader, before anything is removed: the next leader goes on with it. Else as `commit`.
        """
        # However long the text is: a rotation that cannot be ended would be one for ever.
        reason = bounded(as_reason(reason), _MAX_REASON)
        self._require_leadership()
        rotation = state.rotation
        assert rotation is not None
        sealed = state.provider_state(rotation.config.provider_id)
        assert sealed is not None  # invariants of the state
        # Whoever has been told of the root in the meantime may have kept it.
        is_known = rotation.root is not None and any(one.root_id == rotation.root.root_id for one in state.roots)
        await self._clean_up(state, sealed, is_unused=not is_known)
        outcome = RotationOutcome(rotation.rotation_id, rotation.config.request_id, self._parts.unix_now, "", reason)
        await commit(self._replica, AbortRotation(state.ca_index, outcome))
        self._log("rotation.given_up", rotation=rotation.rotation_id, phase=rotation.phase.value, reason=reason, by=by)

    async def set_waiting(
        self, state: State, *, is_paused: bool | None = None, is_over: bool = False, by: str = LEADER
    ) -> None:
        """Staged: hold activation back, let it go on, or go on at once."""
        opened = self._opener.rotation(state)
        rotation = opened.rotation
        if rotation.phase is not RotationPhase.WAIT:
            raise Refused(f"the rotation is in phase {rotation.phase}: only a published one can be paused or resumed")
        paused = rotation.is_paused if is_paused is None else is_paused
        phase = RotationPhase.ACTIVATE if is_over else RotationPhase.WAIT
        changed = replace(rotation, is_paused=paused, phase=phase)
        sealed = self._opener.sealed(rotation.config, opened.record)
        await commit(self._replica, AdvanceRotation(state.ca_index, changed, sealed))
        self._log("rotation.steered", rotation=rotation.rotation_id, phase=phase.value, is_paused=paused, by=by)

    # -- inside

    def _require_leadership(self) -> None:
        if not self._replica.leadership.is_ready:
            raise NotLeader("this node does not lead any more")

    async def _configure(self, opened: OpenedRotation) -> None:
        target = opened.rotation.config
        setup = opened.settings.setup(target.cluster_id, self._parts.datacenter, opened.record.state)
        await self._pool.configure(target.provider_id, setup)

    async def _take(self, state: State, command: AdvanceRotation | FinishRotation) -> bool:
        """Commit a step. One that the log or the state refuses would be refused for ever: the rotation is given up."""
        try:
            await commit(self._replica, command)
        except Refused as refusal:
            await self.give_up(state, f"the rotation cannot go on: {refusal}")
            return False
        return True

    def _advance(
        self,
        state: State,
        opened: OpenedRotation,
        phase: RotationPhase,
        root: CARoot,
        *,
        provider_state: bytes | None = None,
        roots: tuple[CARoot, ...] | None = None,
    ) -> AdvanceRotation:
        """A step. What is None stays as it is."""
        rotation = opened.rotation
        step = replace(rotation, phase=phase, phase_since=self._parts.unix_now, root=root)
        kept = opened.record.state if provider_state is None else provider_state
        sealed = self._opener.resealed(rotation.config, opened.record, kept)
        return AdvanceRotation(state.ca_index, step, sealed, roots)

    def _finish(self, state: State, opened: OpenedRotation) -> FinishRotation:
        """The last step."""
        rotation, root, old = opened.rotation, opened.root, opened.old
        now = self._parts.unix_now
        prune_at = now + retention_seconds(old, opened.config)
        retired = replace(old, is_active=False, rotated_out_at=now, prune_at=prune_at)
        others = [kept for kept in state.roots if kept.root_id not in (old.root_id, root.root_id)]
        trusted = [*others, retired]
        active = replace(
            root,
            is_active=True,
            rotated_out_at=0,
            prune_at=0,
            intermediates=(*local_chain(root), *needed_links(links_of(root), trusted, root.key_id)),
        )
        roots = (*trusted, active)
        outcome = RotationOutcome(
            rotation.rotation_id, rotation.config.request_id, now, root.root_id, is_forced=rotation.is_forced
        )
        return FinishRotation(state.ca_index, roots, rotation.config, _providers_for(state, roots), outcome)

    async def _failed(self, state: State, rotation: Rotation, error: Exception) -> None:
        """Try again later if that may help and there is time; else give the rotation up."""
        may_pass = isinstance(error, ProviderError) and error.retryable
        if may_pass and self._clock.now() < rotation.phase_since + _PATIENCE_SECONDS:
            raise error
        await self.give_up(state, str(error))

    def _is_expired(self, root: CARoot) -> bool:
        return self._clock.now() > root.not_after

    async def _links(self, state: State, opened: OpenedRotation, root: CARoot) -> tuple[Intermediate, ...]:
        """From the new root back to every one that must stay trusted."""
        config, old = opened.config, opened.old
        if opened.rotation.is_forced:
            return ()
        if self._is_expired(old):
            # Nobody can verify against it any more, and it cannot sign: recovery is what this is for.
            self._log("rotation.old_root_expired", root=old.root_id, not_after=rfc3339(old.not_after))
            return ()
        if not await self._pool.supports_cross_signing(config.provider_id):
            raise InternalError(NO_CROSS_SIGNING)
        trusted = must_stay_trusted(old, state.roots, self._clock.now())
        old_links = live_links(old, self._clock.now())
        if old.key_id == root.key_id:
            return needed_links(old_links, trusted, root.key_id)
        now = self._parts.unix_now
        anchor = split_bundle(root.root_pem)[-1]
        self._log("ca.signing", profile="cross-signed", provider=config.provider, by="leader")
        serial = serial_bytes(new_serial())
        with audited_signature(
            self._log, profile="cross-signed", provider=config.provider, serial=serial.hex(), by="leader"
        ):
            cross_pem = await self._pool.cross_sign(
                config.provider_id, anchor, serial, now, _trusted_until(state, opened, now)
            )
        self._log("ca.signed", profile="cross-signed", provider=config.provider, root=root.root_id, by="leader")
        return needed_links((*intermediates_of([cross_pem], now), *old_links), trusted, root.key_id)

    async def _verify(self, state: State, opened: OpenedRotation, root: CARoot) -> None:
        """A leaf of the new root against each root alone that must stay trusted, the new one, and all listed ones.

        Raises: ProviderError.
        """
        rotation = opened.rotation
        stores = {"new only": [root.root_pem]}
        if not rotation.is_forced:
            # By the same clock as in `_links`: a root that had just expired there has no link to be asked for.
            moment = self._clock.now()
            others = [listed for listed in state.roots if listed.root_id != root.root_id and moment <= listed.not_after]
            trusted = must_stay_trusted(opened.old, others, moment)
            stores |= {f"only {listed.root_id}": [listed.root_pem] for listed in trusted}
            stores["all"] = [root.root_pem, *(listed.root_pem for listed in others)]
        started = time.monotonic()
        now = self._parts.unix_now
        await prove(self._parts, rotation.config.provider_id, state, root, stores, now)
        elapsed_ms = round(1000 * (time.monotonic() - started))
        self._log("rotation.verified", rotation=rotation.rotation_id, trust_stores=len(stores), ms=elapsed_ms)

    async def _clean_up(self, state: State, sealed: ProviderState, *, is_unused: bool) -> None:
        """Best effort: what stays in a backend is reported, and hurts nobody."""
        config = state.config
        assert config is not None  # an invariant of the state
        record = self._opener.record(sealed)
        settings = CASettings(sealed.provider, json.loads(record.config_json), record.secrets)
        setup = settings.setup(config.cluster_id, self._parts.datacenter, record.state)
        try:
            await self._pool.configure(sealed.provider_id, setup)
            await self._pool.cleanup(sealed.provider_id, is_unused=is_unused)
        except (ProviderError, ClusterError) as error:
            self._log("provider.cleanup_failed", provider=sealed.provider, reason=one_line(error))
        finally:
            await self._pool.forget(sealed.provider_id)


def retention_seconds(root: CARoot, config: CAConfig) -> int:
    """How long a root stays trusted once it is rotated out: fixed then, from what was in force while it was active."""
    ttl = max(root.leaf_ttl_max_seconds, config.leaf_ttl_seconds)
    return max(_RETENTION_TTLS * ttl, _MIN_RETENTION_SECONDS)


def _published(state: State, root: CARoot) -> tuple[CARoot, ...]:
    """The roots that are trusted once this one is announced."""
    others = tuple(listed for listed in state.roots if listed.root_id != root.root_id)
    # Nobody needs links to the roots before it yet. What it signs leaves with, if not itself, belongs to it.
    published = replace(root, intermediates=local_chain(root))
    # A root that is listed already keeps its place: it was active before, and is on its way back.
    return state.roots if len(others) < len(state.roots) else (*others, published)


def _require_room(state: State, config: CAConfig) -> None:
    """For one root more beside those that are listed. An operator's is rehearsed as it is. Raises: Refused."""
    finish = FinishRotation(state.ca_index, state.roots, config, state.providers, RotationOutcome("", b"", 0, ""))
    require_room(len(dump_command(finish)) + _STEP_BYTES)


def _providers_for(state: State, roots: tuple[CARoot, ...]) -> tuple[ProviderState, ...]:
    """Of all providers, those that hold a listed root's key, or are in use."""
    needed = {root.provider_id for root in roots}
    if state.rotation is None and state.config is not None:
        needed.add(state.config.provider_id)
    return tuple(sealed for sealed in state.providers if sealed.provider_id in needed)


def _trusted_until(state: State, opened: OpenedRotation, now: int) -> int:
    """How long trust in an older root can matter: until the last of them is pruned, and one leaf's lifetime."""
    rotation, old = opened.rotation, opened.old
    begin = now + (rotation.wait_seconds + _PATIENCE_SECONDS if rotation.is_staged else _PATIENCE_SECONDS)
    retired = begin + retention_seconds(old, opened.config)
    last = max([retired, *(root.prune_at for root in state.roots)])
    return last + max(rotation.config.leaf_ttl_seconds, old.leaf_ttl_max_seconds)
