"""What operators ask of the root beside PUT configuration, on the leader: fresh key, plan, steering, distrust."""

import secrets
from dataclasses import replace
from typing import Final

from cluster.api.access import Judge
from cluster.api.ca import RotateRequest, RotationPlan, Steering, Uptake
from cluster.base.errors import ChangeUnderWay, InternalError, NotFound, NotLeader, NotReady, Refused
from cluster.ca.attempts import Arrival, Attempt, done_before, is_overtaken
from cluster.ca.candidate import Candidate
from cluster.ca.chain_limits import MAX_CHAIN_BYTES
from cluster.ca.opened import Opened
from cluster.ca.parts import Parts
from cluster.ca.reconfigure import ROTATION_UNDER_WAY
from cluster.ca.roots import early_ends, name_limits
from cluster.ca.rotation import RotationRequest, Rotator, retention_seconds
from cluster.ca.settings import CASettings, policies_of, without_key
from cluster.ca.uptake import UptakeMeter
from fsm.ca import CARoot, RotationPhase
from fsm.state import State
from providers.config.common import CommonConfig
from providers.errors import ConfigInvalid
from providers.pki.x509 import parse_hex

_DEFAULT_BITS: Final = {"ec": 256, "rsa": 2048}
_FORCED_RISK: Final = (
    "without cross-signing, clients that have not fetched the new root refuse new certificates until they have"
)
_LEAF_RISK: Final = "every leaf that is renewed from then on is signed by the new root"
_LIMITED_RISK: Final = "as long as {} is trusted, names that its name constraints do not permit are refused"
_STAGED_RISK: Final = "clients that have not fetched the new root when it is activated rely on the cross-signed chain"


class OperatorRotation:
    """Plans, begins and steers rotations that an operator asks for, and distrusts retired roots; on the leader."""

    def __init__(self, parts: Parts, rotator: Rotator, meter: UptakeMeter) -> None:
        self._parts = parts
        self._replica = parts.replica
        self._rotator = rotator
        self._meter = meter

    async def plan(self, request: RotateRequest) -> RotationPlan:
        """Works out what `rotate` would do, and changes nothing.

        Raises: Refused, InternalError, NotReady, as `rotate` would.
        """
        state = self._replica.state
        opened, settings = self._wanted(state, request)
        config, root = opened.config, opened.root
        kind = self._checked(settings).key_kind
        chain = await self._rotator.check(state, settings.provider, "", is_forced=request.is_forced)
        async with Candidate(self._parts, config.cluster_id, settings, b"") as candidate:
            await _require_new_root(candidate, root)
        now = self._parts.unix_now
        issuer = parse_hex(root.signing_key_id)
        affected = await self._parts.ledger.call(lambda reader: reader.valid_count(now, issuer))
        risks = [_LEAF_RISK]
        if not request.is_forced:
            limited = [limits.ca for limits in name_limits(root, state.roots, now)]
            risks += [_LIMITED_RISK.format(ca) for ca in limited]
            risks += early_ends(state.roots, now)
        if request.is_forced:
            risks.append(_FORCED_RISK)
        elif request.is_staged:
            risks.append(_STAGED_RISK)
        return RotationPlan(
            active_root_id=root.root_id,
            provider=config.provider,
            key_type=kind.type,
            key_bits=kind.bits,
            is_forced=request.is_forced,
            is_staged=request.is_staged,
            chain_bytes=chain.size,
            max_chain_bytes=MAX_CHAIN_BYTES,
            links=chain.links,
            trusted_roots=len(state.roots) + 1,
            affected_leaves=affected,
            retired_until=min(now + retention_seconds(root, config), root.not_after),
            risks=tuple(risks),
        )

    async def rotate(self, request: RotateRequest, attempt: Attempt, judge: Judge | None = None) -> str:
        """Begin; the rotation's id. It waits its turn, but for no other rotation: that may be what is wanted. `judge`:
        whether whoever asks may still do so then, as below.

        Raises: PermissionDenied, Refused, InternalError, NotReady, ChangeUnderWay (no effect); CommitUnknown.
        """
        arrival = Arrival(attempt, self._replica.leadership.term, is_overtaken(self._replica.state, attempt))
        until = self._parts.changes.deadline()
        async with self._parts.changes.turn("RECONFIGURING", is_duty=False, until=until, judge=judge) as by:
            state = self._replica.state
            if state.ca_index < attempt.ca_index:
                # Another leader's write has been seen: nothing may be judged from here.
                raise NotLeader("this node does not lead any more")
            if attempt.is_repeat and (done := done_before(state, attempt.request_id)) is not None:
                return done
            ca_index = arrival.base_index(state, self._replica.leadership.term)
            opened, settings = self._wanted(state, request)
            policies = policies_of(settings)
            await self._rotator.check(state, settings.provider, "", is_forced=request.is_forced)
            async with Candidate(self._parts, opened.config.cluster_id, settings, b"") as candidate:
                await _require_new_root(candidate, opened.root)
                provider_state = await candidate.prepare_root(self._parts.unix_now)
            target = replace(
                opened.config,
                provider_id=secrets.token_hex(8),
                config_json=settings.config_json,
                force_without_cross_signing=request.is_forced,
                request_id=attempt.request_id,
                leaf_ttl_seconds=policies.leaf_ttl_seconds,
                auto_rotate_percent=policies.auto_rotate_percent,
            )
            return await self._rotator.begin(
                RotationRequest(
                    target,
                    settings,
                    provider_state,
                    ca_index,
                    is_forced=request.is_forced,
                    is_staged=request.is_staged,
                    wait_seconds=request.wait_seconds,
                    by=by,
                )
            )

    async def steer(self, steering: Steering, judge: Judge | None = None) -> None:
        """Raises: PermissionDenied, Refused."""
        async with self._parts.changes.turn("RECONFIGURING", is_duty=False, judge=judge) as by:
            state = self._replica.state
            rotation = state.rotation
            if rotation is None:
                raise Refused("no rotation is under way")
            match steering:
                case Steering.ABORT:
                    await self._rotator.give_up(state, "given up by an operator", by=by)
                case Steering.ACTIVATE:
                    await self._rotator.set_waiting(state, is_over=True, by=by)
                case Steering.PAUSE | Steering.RESUME:
                    await self._rotator.set_waiting(state, is_paused=steering is Steering.PAUSE, by=by)

    async def distrust(self, root_id: str, judge: Judge | None = None) -> None:
        """Raises: PermissionDenied, NotFound, Refused."""
        async with self._parts.changes.turn("RECONFIGURING", is_duty=False, judge=judge) as by:
            state = self._replica.state
            found = next((root for root in state.roots if root.root_id == root_id.lower()), None)
            if found is None:
                listed = ", ".join(root.root_id for root in state.roots)
                raise NotFound(f"root {root_id!r:.100} is not listed: must be one of {listed}")
            if found.is_active:
                raise Refused(f"root {root_id} is active: rotate first, then it can be removed")
            if not found.is_retired or state.rotation is not None:
                raise Refused("a rotation is under way: wait for its end, or abort it")
            await self._rotator.drop_roots(state, (found,), state.ca_index, by=by)

    async def uptake(self) -> Uptake | None:
        rotation = self._replica.state.rotation
        if rotation is None or rotation.phase is not RotationPhase.WAIT:
            return None
        return await self._meter.measure(rotation)

    def _wanted(self, state: State, request: RotateRequest) -> tuple[Opened, CASettings]:
        """The CA, and the present settings without the operator's own key, with the type and size asked for.

        Raises: NotReady, ChangeUnderWay.
        """
        if state.active_root is None:
            raise NotReady("CA has not finished initializing: there is no root to rotate yet")
        if state.rotation is not None:
            raise ChangeUnderWay(ROTATION_UNDER_WAY)
        opened = self._parts.opener.opened(state)
        settings = without_key(opened.settings)
        changes: dict[str, object] = {}
        if request.key_type is not None:
            changes["PrivateKeyType"] = request.key_type
        bits = request.key_bits
        if bits is None and request.key_type in _DEFAULT_BITS:
            bits = _DEFAULT_BITS[request.key_type]  # the configured size may belong to another key type
        if bits is not None:
            changes["PrivateKeyBits"] = bits
        names = {name.lower() for name in changes}
        kept = {key: value for key, value in settings.config.items() if key.lower() not in names}
        return opened, CASettings(settings.provider, {**kept, **changes}, settings.secrets)

    def _checked(self, settings: CASettings) -> CommonConfig:
        try:
            return CommonConfig.parse(settings.config)
        except ConfigInvalid as error:
            raise InternalError(f"error configuring provider: {error}") from error


async def _require_new_root(candidate: Candidate, active: CARoot) -> None:
    """Raises: Refused where the provider would bring the root that is active already; InternalError."""
    if candidate.configured.chain is not None or await candidate.root_to_adopt() == active.root_id:
        raise Refused(
            f"the provider {candidate.settings.provider} keeps its root where this configuration points: change that"
            " with PUT /v1/connect/ca/configuration"
        )
