"""Changing the root without a failed handshake: the steps of a rotation, and the end of retired roots.

Every step is a duty of the leader: it does the work, commits what came of it together with the next phase, and may
stop anywhere. Whoever leads next finds the same duty and goes on; nothing is started twice. Until the last step nothing
changes for clients, and a step that fails for good leaves everything as it was.

The rule that holds at every moment: a client that trusts any one listed root accepts every leaf issued from now on. So
the new root carries a chain of cross-signed certificates, one behind the other, back to each root that is listed.
"""

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from cluster.base.clock import Clock
from cluster.base.errors import InternalError, LostRace, Refused
from cluster.base.log import Log
from cluster.ca.authority import Authority
from cluster.ca.proof import MAX_CHAIN_BYTES, prove
from cluster.ca.records import ProviderRecord, open_record, seal_record, settings_in
from cluster.ca.roots import intermediates_of, links_of, local_chain, needed_links, root_of
from cluster.ca.settings import CASettings
from cluster.raft.replica import Replica
from cluster.signing.pipeline import minimal
from cluster.signing.serials import new_serial
from fsm.apply import STALE_INDEX
from fsm.commands import (
    AbortRotation,
    AdvanceRotation,
    BeginRotation,
    Command,
    FinishRotation,
    Rejected,
    SetRoots,
)
from fsm.duties import prunable
from fsm.state import (
    CAConfig,
    CARoot,
    Intermediate,
    ProviderState,
    Rotation,
    RotationOutcome,
    RotationPhase,
    State,
)
from providers.errors import ProviderError
from providers.pki import verify
from providers.pki.x509 import load_cert, split_bundle

_COMMIT_SECONDS: Final = 10.0
#: A provider that does not answer is asked again for so long; then the rotation is given up.
_PATIENCE_SECONDS: Final = 60
#: Between leaf and root: what `cryptography`, by which every chain is verified, and Mbed TLS follow by default.
MAX_CHAIN_LINKS: Final = 8
_LEAF_BYTES: Final = 3 << 10
#: PEM of a root that is not made yet: RSA 4096, the largest.
_ROOT_BYTES: Final = 2 << 10
#: What a cross-signed certificate has beyond the root it re-issues, PEM: the issuer's name and a longer signature.
_CROSS_SIGNED_EXTRA_BYTES: Final = 1 << 10
_MIN_RETENTION_SECONDS: Final = 60
#: Consul's: a retired root is trusted for twice the leaf TTL.
_RETENTION_TTLS: Final = 2

SAME_ROOT: Final = (
    "the provider answered with the root that is active already: it keeps its root where the configuration points, so"
    " change that (for Vault: RootPKIPath)"
)

#: Consul's.
LOST_RACE: Final = "could not atomically update roots and config"
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


class Rotator:
    """The leader's side. One for each node."""

    def __init__(self, replica: Replica, authority: Authority, clock: Clock, log: Log) -> None:
        self._replica = replica
        self._authority = authority
        self._clock = clock
        self._log = log

    # -- before

    async def check(self, state: State, provider: str, root_bytes: int, *, is_forced: bool) -> tuple[int, int]:
        """Whether a rotation to a root of this provider and size (0: not known) could be finished as things stand.

        Returns the size of the chain that leaves would carry, at most, and how many links it has.
        Raises: InternalError, in Consul's words; Refused, with the date from which on it is possible.
        """
        if is_forced or self._is_expired(state):
            return _LEAF_BYTES, 0
        config, old = state.config, state.active_root
        assert config is not None
        assert old is not None
        await self._authority.adopt(state)
        if not await self._authority.pool.supports_cross_signing(config.provider_id):
            raise InternalError(NO_CROSS_SIGNING)
        links = needed_links(links_of(old), state.roots, "")
        above = local_chain(old)[1:]  # CAs between the one that signs and its trust anchor go with what it signs
        own_bytes = _LEAF_BYTES + (root_bytes or _ROOT_BYTES) + _CROSS_SIGNED_EXTRA_BYTES + _size(above)
        # Another provider may sign leaves with an intermediate where this one does not: known once it has a root.
        own_links = 1 + max(len(local_chain(old)), provider != config.provider) + len(above)
        size, count = own_bytes + _size(links), own_links + len(links)
        if not _fits(size, count):
            possible_from = _time(self._fits_from(state, own_bytes, own_links))
            raise Refused(
                f"the chain back to every trusted root would have about {size} bytes and {count} certificates between"
                f" leaf and root, more than {MAX_CHAIN_BYTES} or {MAX_CHAIN_LINKS}: possible from {possible_from} on,"
                " when older roots are no longer trusted, or at once with ForceWithoutCrossSigning"
            )
        return size, 1 + len(above) + len(links)

    def _fits_from(self, state: State, own_bytes: int, own_links: int) -> int:
        """When enough roots have been pruned."""
        old = state.active_root
        assert old is not None
        retired = sorted((root for root in state.roots if root.is_retired), key=lambda root: root.prune_at)
        for position, root in enumerate(retired):
            left = [other for other in state.roots if other not in retired[: position + 1]]
            links = needed_links(links_of(old), left, "")
            if _fits(own_bytes + _size(links), own_links + len(links)):
                return root.prune_at
        return retired[-1].prune_at if retired else 0

    async def begin(self, request: RotationRequest) -> str:
        """Commit the intent; returns the rotation's id. Raises: InternalError, Refused (no effect)."""
        now = int(self._clock.now())
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
        record = ProviderRecord(request.settings.secrets, request.provider_state, request.settings.config_json)
        sealed = seal_record(self._authority.sealer, config.provider_id, config.provider, record, is_prepared=True)
        await self._commit(BeginRotation(request.ca_index, rotation, sealed))
        self._log("rotation.begun", rotation=rotation.rotation_id, provider=config.provider, forced=request.is_forced)
        return rotation.rotation_id

    # -- duties

    async def generate(self, state: State) -> None:
        """The new provider makes its root; it is verified and remembered."""
        rotation, record = self._opened(state)
        config = rotation.config
        try:
            await self._configure(rotation, record)
            self._log("ca.signing", profile="root", provider=config.provider, by="leader")
            chain, provider_state = await self._authority.pool.generate_root(config.provider_id)
            verify.verify_ca(chain, trust_domain=state.trust_domain, now=int(self._clock.now()))
        except ProviderError as error:
            await self._failed(state, error)
            return
        root = root_of(chain, config, is_active=False, made_at=int(self._clock.now()))
        if state.active_root is not None and state.active_root.root_id == root.root_id:
            await self.give_up(state, SAME_ROOT)
            return
        await self._advance(state, record, provider_state, RotationPhase.CROSS_SIGN, root)
        self._log("ca.signed", profile="root", provider=config.provider, root=root.root_id, by="leader")

    async def cross_sign(self, state: State) -> None:
        """The old root signs the new one, and every chain that clients will see is verified."""
        rotation, record = self._opened(state)
        root = rotation.root
        assert root is not None
        try:
            await self._configure(rotation, record)
            links = await self._links(state, rotation, root)
            root = replace(root, intermediates=(*local_chain(root), *links))
            await self._verify(state, rotation, root)
        except (ProviderError, InternalError) as error:
            await self._failed(state, error)
            return
        phase = RotationPhase.PUBLISH if rotation.is_staged else RotationPhase.ACTIVATE
        await self._advance(state, record, record.state, phase, root)

    async def publish(self, state: State) -> None:
        """Staged: the new root is trusted from now on, and signs later."""
        rotation, record = self._opened(state)
        root = rotation.root
        assert root is not None
        others = tuple(listed for listed in state.roots if listed.root_id != root.root_id)
        # Nobody needs links to the roots before it yet. What it signs leaves with, if not itself, belongs to it.
        published = replace(root, intermediates=local_chain(root))
        # A root that is listed already keeps its place: it was active before, and is on its way back.
        listed = state.roots if len(others) < len(state.roots) else (*others, published)
        await self._advance(state, record, record.state, RotationPhase.WAIT, root, roots=listed)
        self._log("rotation.published", rotation=rotation.rotation_id, root=root.root_id)

    async def activate(self, state: State) -> None:
        """The new root signs; the old one stays trusted for its retention."""
        rotation = state.rotation
        assert rotation is not None
        root, old, config = rotation.root, state.active_root, state.config
        assert root is not None
        assert old is not None
        assert config is not None
        now = int(self._clock.now())
        retired = replace(
            old,
            is_active=False,
            rotated_out_at=now,
            prune_at=now + retention_seconds(old, config),
        )
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
        await self._commit(
            FinishRotation(state.ca_index, roots, rotation.config, _providers_for(state, roots), outcome)
        )
        self._log(
            "rotation.finished",
            rotation=rotation.rotation_id,
            root=root.root_id,
            retired=old.root_id,
            pruned_from=_time(retired.prune_at),
        )
        await self._authority.adopt(self._replica.state)

    async def prune(self, state: State) -> None:
        """Stop trusting roots whose retention is over."""
        await self.drop_roots(state, prunable(state, int(self._clock.now())), state.ca_index)

    async def drop_roots(self, state: State, dropped: tuple[CARoot, ...], ca_index: int) -> None:
        """Roots, their providers, and the links that only led to them. Raises: InternalError, Refused."""
        kept = [root for root in state.roots if root not in dropped]
        roots = tuple(
            replace(root, intermediates=(*local_chain(root), *needed_links(links_of(root), kept, root.key_id)))
            for root in kept
        )
        providers = _providers_for(state, roots)
        for sealed in state.providers:
            if sealed not in providers:
                await self._clean_up(state, sealed)
        await self._commit(SetRoots(ca_index, roots, providers))
        for root in dropped:
            self._log("root.pruned", root=root.root_id)

    async def give_up(self, state: State, reason: str) -> None:
        """Everything is as it was before; what the new provider made is removed."""
        rotation = state.rotation
        assert rotation is not None
        sealed = state.provider_state(rotation.config.provider_id)
        assert sealed is not None
        await self._clean_up(state, sealed)
        now = int(self._clock.now())
        outcome = RotationOutcome(rotation.rotation_id, rotation.config.request_id, now, "", reason)
        await self._commit(AbortRotation(state.ca_index, outcome))
        self._log("rotation.given_up", rotation=rotation.rotation_id, phase=rotation.phase.value, reason=reason)

    async def set_waiting(self, state: State, *, is_paused: bool | None = None, is_over: bool = False) -> None:
        """Staged: hold activation back, let it go on, or go on at once."""
        rotation, record = self._opened(state)
        if rotation.phase is not RotationPhase.WAIT:
            raise Refused(f"the rotation is in phase {rotation.phase}: only a published one can be paused or resumed")
        paused = rotation.is_paused if is_paused is None else is_paused
        phase = RotationPhase.ACTIVATE if is_over else RotationPhase.WAIT
        changed = replace(rotation, is_paused=paused, phase=phase)
        await self._commit(AdvanceRotation(state.ca_index, changed, self._sealed(changed, record, record.state)))

    # -- inside

    def _opened(self, state: State) -> tuple[Rotation, ProviderRecord]:
        rotation = state.rotation
        assert rotation is not None
        sealed = state.provider_state(rotation.config.provider_id)
        assert sealed is not None  # an invariant of the state
        return rotation, open_record(self._authority.sealer, sealed)

    def _sealed(self, rotation: Rotation, record: ProviderRecord, provider_state: bytes) -> ProviderState:
        config = rotation.config
        changed = replace(record, state=provider_state)
        return seal_record(self._authority.sealer, config.provider_id, config.provider, changed, is_prepared=True)

    async def _configure(self, rotation: Rotation, record: ProviderRecord) -> None:
        config = rotation.config
        setup = self._authority.setup(config.cluster_id, settings_in(config, record), record.state)
        await self._authority.pool.configure(config.provider_id, setup)

    async def _advance(
        self,
        state: State,
        record: ProviderRecord,
        provider_state: bytes,
        phase: RotationPhase,
        root: CARoot,
        roots: tuple[CARoot, ...] | None = None,
    ) -> None:
        rotation = state.rotation
        assert rotation is not None
        step = replace(rotation, phase=phase, phase_since=int(self._clock.now()), root=root)
        sealed = self._sealed(rotation, record, provider_state)
        await self._commit(AdvanceRotation(state.ca_index, step, sealed, roots))

    async def _failed(self, state: State, error: Exception) -> None:
        """Try again later if that may help and there is time; else give the rotation up."""
        rotation = state.rotation
        assert rotation is not None
        may_pass = isinstance(error, ProviderError) and error.retryable
        if may_pass and self._clock.now() < rotation.phase_since + _PATIENCE_SECONDS:
            raise error
        await self.give_up(state, str(error))

    def _is_expired(self, state: State) -> bool:
        old = state.active_root
        return old is not None and self._clock.now() > old.not_after

    async def _links(self, state: State, rotation: Rotation, root: CARoot) -> tuple[Intermediate, ...]:
        """From the new root back to every listed one."""
        config, old = state.config, state.active_root
        assert config is not None
        assert old is not None
        if rotation.is_forced:
            return ()
        if self._is_expired(state):
            # Nobody can verify against it any more, and it cannot sign: recovery is what this is for.
            self._log("rotation.old_root_expired", root=old.root_id, not_after=_time(old.not_after))
            return ()
        if not await self._authority.pool.supports_cross_signing(config.provider_id):
            raise InternalError(NO_CROSS_SIGNING)
        if old.key_id == root.key_id:
            if load_cert(old.root_pem).subject != load_cert(root.root_pem).subject:
                raise InternalError("the new root has the key of the old one under another name: use a new key")
            return needed_links(links_of(old), state.roots, root.key_id)
        now = int(self._clock.now())
        anchor = split_bundle(root.root_pem)[-1]
        self._log("ca.signing", profile="cross-signed", provider=config.provider, by="leader")
        cross_pem = await self._authority.pool.cross_sign(
            config.provider_id, anchor, minimal(new_serial()), now, self._trusted_until(state, rotation, now)
        )
        self._log("ca.signed", profile="cross-signed", provider=config.provider, root=root.root_id, by="leader")
        links = (*intermediates_of([cross_pem], now), *links_of(old))
        return needed_links(links, state.roots, root.key_id)

    def _trusted_until(self, state: State, rotation: Rotation, now: int) -> int:
        """How long trust in an older root can matter: until the last of them is pruned, and one leaf's lifetime."""
        config, old = state.config, state.active_root
        assert config is not None
        assert old is not None
        begin = now + (rotation.wait_seconds + _PATIENCE_SECONDS if rotation.is_staged else _PATIENCE_SECONDS)
        retired = begin + retention_seconds(old, config)
        last = max([retired, *(root.prune_at for root in state.roots)])
        return last + max(rotation.config.leaf_ttl_seconds, old.leaf_ttl_max_seconds)

    async def _verify(self, state: State, rotation: Rotation, root: CARoot) -> None:
        """A leaf of the new root against each listed root alone, the new one, and all. Raises: ProviderError."""
        stores = {"new only": [root.root_pem]}
        if not rotation.is_forced:
            # By the same clock as in `_links`: a root that had just expired there has no link to be asked for.
            moment = self._clock.now()
            trusted = [
                listed for listed in state.roots if listed.root_id != root.root_id and moment <= listed.not_after
            ]
            stores |= {f"only {listed.root_id}": [listed.root_pem] for listed in trusted}
            stores["all"] = [root.root_pem, *(listed.root_pem for listed in trusted)]
        started = time.monotonic()
        now = int(self._clock.now())
        await prove(self._authority, rotation.config.provider_id, state, root, stores, now)
        elapsed_ms = round(1000 * (time.monotonic() - started))
        self._log("rotation.verified", rotation=rotation.rotation_id, trust_stores=len(stores), ms=elapsed_ms)

    async def _clean_up(self, state: State, sealed: ProviderState) -> None:
        """Best effort: what stays behind in a backend is said, and hurts nobody."""
        assert state.config is not None
        record = open_record(self._authority.sealer, sealed)
        settings = CASettings(sealed.provider, json.loads(record.config_json), record.secrets)
        setup = self._authority.setup(state.config.cluster_id, settings, record.state)
        try:
            await self._authority.pool.configure(sealed.provider_id, setup)
            await self._authority.pool.cleanup(sealed.provider_id)
        except ProviderError as error:
            self._log("provider.cleanup_failed", provider=sealed.provider, reason=str(error))
        await self._authority.pool.forget(sealed.provider_id)

    async def _commit(self, command: Command) -> None:
        result = await self._replica.propose(command, timeout=_COMMIT_SECONDS)
        if isinstance(result, Rejected):
            if result.code == STALE_INDEX:
                raise LostRace(LOST_RACE)
            raise Refused(f"{result.code}: {result.detail}")


def retention_seconds(root: CARoot, config: CAConfig) -> int:
    """How long a root stays trusted once it is rotated out: fixed then, from what was in force while it was active."""
    ttl = max(root.leaf_ttl_max_seconds, config.leaf_ttl_seconds)
    return max(_RETENTION_TTLS * ttl, _MIN_RETENTION_SECONDS)


def _providers_for(state: State, roots: tuple[CARoot, ...]) -> tuple[ProviderState, ...]:
    """Of all providers, those that hold a listed root's key, or are in use."""
    needed = {root.provider_id for root in roots}
    if state.rotation is None and state.config is not None:
        needed.add(state.config.provider_id)
    return tuple(sealed for sealed in state.providers if sealed.provider_id in needed)


def _fits(chain_bytes: int, links: int) -> bool:
    return chain_bytes <= MAX_CHAIN_BYTES and links <= MAX_CHAIN_LINKS


def _size(links: tuple[Intermediate, ...]) -> int:
    return sum(len(link.cert_pem) for link in links)


def _time(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
