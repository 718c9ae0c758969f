"""An operator's change of the CA configuration, on the leader: check everything first, then one command.

The order of checks and their texts are Consul's (docs/consul-compat.md 4.2 and 5.5), with two exceptions: secrets that
are left out keep their stored values (consul-compat 10.1), and a stale ModifyIndex is a conflict (consul-compat 10.8).
"""

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from cluster.api.access import Judge
from cluster.api.ca import ConfigUpdate
from cluster.base.errors import (
    BadRequest,
    ChangeUnderWay,
    ClusterError,
    CommitUnknown,
    InternalError,
    LostRace,
    NotLeader,
    NotReady,
    StaleIndex,
)
from cluster.base.signals import wait_any
from cluster.ca.attempts import Arrival, Attempt, done_before, is_overtaken
from cluster.ca.candidate import Candidate
from cluster.ca.commit import commit
from cluster.ca.opened import ConfigUnreadable, Opened, Stored
from cluster.ca.parts import Parts
from cluster.ca.proof import prove
from cluster.ca.renewal import proved_renewal
from cluster.ca.rotation import SAME_ROOT, RotationRequest, Rotator
from cluster.ca.settings import CASettings, has_kept_key, keep_secrets, policies_of, settings_of, without_private_key
from cluster.seal.cover import NOTHING
from cluster.seal.keeper import CoveredRecord
from cluster.seal.sources import SealError
from fsm.ca import CAConfig, CARoot, Rotation, RotationPhase, SetConfig
from fsm.state import Area, State
from providers.config.secrets import folded
from providers.errors import ConfigInvalid, ProviderError, SigningKeyGone
from providers.pki import x509
from providers.registry import create_provider

#: How long a repair of a CA that never came up is waited for.
_REPAIR_SECONDS: Final = 10.0
ROTATION_UNDER_WAY: Final = (
    "the CA is being changed already: a rotation is under way, see /v1/connect/ca/rotation; try again when it has ended"
)
_READ_ONLY: Final = "Provider State is read-only. It must be omitted or identical to the current value"
#: How long a rotation is waited for; it goes on by itself.
_ROTATION_SECONDS: Final = 50.0


class Reconfigurer:
    """The leader's side of PUT configuration."""

    def __init__(self, parts: Parts, rotator: Rotator) -> None:
        self._parts = parts
        self._replica = parts.replica
        self._authority = parts.authority
        self._health = parts.health
        self._rotator = rotator
        self._arrived: list[bytes] = []  # ids of the requests that are under way

    async def apply(self, update: ConfigUpdate, attempt: Attempt, judge: Judge | None = None) -> str:
        """Returns the id of the rotation that this began, or "" when the root stays: then everything is done. `judge`:
        whether whoever asks may still do so, once their turn has come.

        Raises: PermissionDenied, BadRequest, StaleIndex, Refused, InternalError, NotReady, ChangeUnderWay (no effect);
        CommitUnknown, NotLeader.
        """
        if attempt.request_id in self._arrived and not attempt.is_repeat:
            # It was on its way for so long that its repetition got here first, and waits.
            raise CommitUnknown("the same request is under way already; it may have taken effect")
        self._arrived.append(attempt.request_id)
        try:
            return await self._apply(update, attempt, judge)
        except ChangeUnderWay as error:
            if attempt.is_repeat:
                # Its first sending may be done, or be that change.
                raise CommitUnknown(f"{error}; it may have taken effect") from error
            raise
        finally:
            self._arrived.remove(attempt.request_id)

    async def _apply(self, update: ConfigUpdate, attempt: Attempt, judge: Judge | None) -> str:
        changes, until = self._parts.changes, self._parts.changes.deadline()
        arrival = Arrival(attempt, self._replica.leadership.term, is_overtaken(self._replica.state, attempt))
        async with changes.writing(until):
            while True:
                async with changes.turn("RECONFIGURING", is_duty=False, until=until, judge=judge) as by:
                    done = await self._in_turn(update, replace(arrival, attempt=replace(attempt, by=by)))
                if done is not None:
                    return done
                await self._rotation_over(until)

    async def _in_turn(self, update: ConfigUpdate, arrival: Arrival) -> str | None:
        try:
            return await self._apply_now(update, arrival)
        except LostRace:
            # A duty whose outcome was not known yet has been done after all, which is no operator's concern. Try once
            # more from the new state; if it was another operator's write, this second try says so.
            return await self._apply_now(update, arrival)

    async def _rotation_over(self, until: float) -> None:
        """Wait for the end of a rotation that goes on by itself. Raises: ChangeUnderWay."""
        signals = (self._replica.changed[Area.CA], self._replica.leadership_changed)

        def is_waiting() -> bool:
            rotation = self._replica.state.rotation
            return rotation is not None and _goes_on(rotation) and self._replica.leadership.is_ready

        try:
            async with asyncio.timeout_at(until):
                while is_waiting():
                    await wait_any(signals, is_waiting)
        except TimeoutError:
            raise ChangeUnderWay(ROTATION_UNDER_WAY) from None

    async def _apply_now(self, update: ConfigUpdate, arrival: Arrival) -> str | None:
        """As `apply`; None when it has to wait for a rotation that goes on by itself."""
        attempt, state = arrival.attempt, self._replica.state
        if state.ca_index < attempt.ca_index:
            # Another leader's write has been seen: nothing may be judged, or found to be the same, from here.
            raise NotLeader("this node does not lead any more")
        config = state.config
        if config is None:
            raise NotReady(f"CA has not finished initializing: {self._health.now.trouble or 'no configuration yet'}")
        if attempt.is_repeat and (done := done_before(state, attempt.request_id)) is not None:
            return done
        attempt = replace(attempt, ca_index=arrival.base_index(state, self._replica.leadership.term))
        self._check(update, config, state)
        if state.rotation is not None:
            if _goes_on(state.rotation):
                return None
            raise ChangeUnderWay(ROTATION_UNDER_WAY)
        return await self._change(update, state, attempt)

    def _check(self, update: ConfigUpdate, config: CAConfig, state: State) -> None:
        if update.state and dict(update.state) != dict(config.public_state):
            raise BadRequest(_READ_ONLY)
        if update.modify_index and update.modify_index != config.modify_index:
            raise StaleIndex(
                f"ModifyIndex {update.modify_index} is not the current one: the configuration is at"
                f" {config.modify_index}"
            )
        try:
            create_provider(update.provider)
        except ConfigInvalid as error:
            raise InternalError(f"could not initialize provider: {error}") from error

    async def _change(self, update: ConfigUpdate, state: State, attempt: Attempt) -> str:
        stored = self._parts.opener.stored(state)
        config, record = stored.config, stored.record
        is_same_provider = update.provider == config.provider
        try:
            settings = settings_of(update.provider, update.config, self._parts.opener.cover_values)
        except ConfigInvalid as error:
            raise InternalError(str(error)) from error
        if is_same_provider:
            settings = await self._with_kept_secrets(settings, stored.given)
            with contextlib.suppress(ConfigUnreadable):  # this write is the cure
                if _are_same(settings, stored.settings):
                    return ""
        kept = record.state if is_same_provider else b""
        async with Candidate(self._parts, config.cluster_id, settings, kept) as candidate:
            root = state.active_root
            if root is None:
                await self._repair(candidate, update, stored, attempt)
                return ""
            chain = candidate.configured.chain
            if is_same_provider and chain and x509.root_id(chain.root_pem) == root.root_id:
                target = self._target(candidate, update, config, attempt, config.provider_id)
                is_key_lost = await self._prove(candidate, state, root)
                await self._commit(candidate, target, attempt, candidate.state)
                await self._take_into_use()
                if is_key_lost:
                    self._authority.lose_key()
                return ""
            return await self._rotate(candidate, update, state, Opened(config, record, root), attempt)

    async def _with_kept_secrets(self, given: CASettings, stored: CASettings) -> CASettings:
        """Raises: BadRequest, InternalError."""
        settings = keep_secrets(given, stored)
        if has_kept_key(given, settings):
            try:
                fits = await self._parts.pool.private_key_fits(settings.config, settings.secrets)
            except ProviderError as error:
                raise InternalError(f"error configuring provider: {error}") from error
            if not fits:
                return without_private_key(settings)
        return settings

    async def _prove(self, candidate: Candidate, state: State, root: CARoot) -> bool:
        """That leaves are signed under this configuration, before it counts. A provider that holds a CA holds it also
        while its backend is away, so that a leader can be elected then; a change must not lead there.

        Where another signing certificate is needed, that is made: the duty that renews it finds the same one. Returns
        whether the key of the present one has been found to be gone. Raises: InternalError.
        """
        now, signing_cert, is_key_lost = self._parts.unix_now, root.signing_cert, False
        if now > root.not_after:
            return False  # nobody signs below it, whatever is configured: what helps is another root
        try:
            wants_renewal = candidate.configured.wants_renewal
            if not wants_renewal and (signing_cert is None or now <= signing_cert.not_after):
                try:
                    await prove(self._parts, candidate.key, state, root, {"active": [root.root_pem]}, now)
                    return False
                except SigningKeyGone:
                    is_key_lost = True
            config = state.config
            assert config is not None  # an invariant of the state
            await proved_renewal(self._parts, state, root, candidate.key, config.cluster_id, candidate.settings)
        except ProviderError as error:
            raise InternalError(f"error configuring provider: {error}") from error
        return is_key_lost

    async def _rotate(
        self, candidate: Candidate, update: ConfigUpdate, state: State, opened: Opened, attempt: Attempt
    ) -> str:
        """This configuration means another root: everything that can be checked is, then the intent is committed."""
        if await candidate.root_to_adopt() == opened.root.root_id:
            raise InternalError(SAME_ROOT)
        root_pem = _text(candidate.settings, "RootCert")
        provider, is_forced = candidate.settings.provider, update.force_without_cross_signing
        await self._rotator.check(state, provider, root_pem, is_forced=is_forced)
        provider_state = await candidate.prepare_root(self._parts.unix_now)
        request = RotationRequest(
            self._target(candidate, update, opened.config, attempt, secrets.token_hex(8)),
            candidate.settings,
            provider_state,
            attempt.ca_index,
            is_forced=is_forced,
            is_staged=update.is_staged,
            wait_seconds=update.wait_seconds,
            by=attempt.by,
        )
        if root_pem:
            await self._rehearse(candidate, state, request)
        return await self._rotator.begin(request)

    async def _rehearse(self, candidate: Candidate, state: State, request: RotationRequest) -> None:
        """An operator's root may say anything: what it does to chains is seen before any of it is committed."""
        chain, complete = await self._parts.pool.generate_root(candidate.key)
        async with Candidate(self._parts, request.config.cluster_id, candidate.settings, complete) as finished:
            await self._rotator.rehearse(state, request, finished.key, chain, complete)

    async def _take_into_use(self) -> None:
        """At once, so that whoever made the change meets it. What fails here is the leader's duty (leader.py)."""
        if self._replica.leadership.is_ready:  # else it has been dropped, and stays so
            with contextlib.suppress(ProviderError, ClusterError, SealError):
                await self._authority.adopt(self._replica.state)

    async def _repair(self, candidate: Candidate, update: ConfigUpdate, stored: Stored, attempt: Attempt) -> None:
        """The CA never came up: any usable configuration may take the place of the one that failed."""
        provider_state = await candidate.prepare_root(self._parts.unix_now)
        target = self._target(candidate, update, stored.config, attempt, secrets.token_hex(8))
        await self._commit(candidate, target, attempt, provider_state)

    def _target(
        self, candidate: Candidate, update: ConfigUpdate, config: CAConfig, attempt: Attempt, provider_id: str
    ) -> CAConfig:
        """The configuration that this write asks for. Raises: InternalError."""
        settings = candidate.settings
        try:
            policies = policies_of(settings)
        except ConfigInvalid as error:
            raise InternalError(f"error configuring provider: {error}") from error
        return replace(
            config,
            provider=settings.provider,
            provider_id=provider_id,
            config_json=settings.config_json,
            public_state=tuple(sorted(candidate.configured.public_state.items())),
            force_without_cross_signing=update.force_without_cross_signing,
            request_id=attempt.request_id,
            leaf_ttl_seconds=policies.leaf_ttl_seconds,
            auto_rotate_percent=policies.auto_rotate_percent,
        )

    async def _commit(self, candidate: Candidate, target: CAConfig, attempt: Attempt, provider_state: bytes) -> None:
        settings = candidate.settings
        record = CoveredRecord(settings.secrets, provider_state, settings.config_json)
        sealed = self._parts.opener.sealed(target, record)
        applied = await commit(self._replica, SetConfig(attempt.ca_index, target, sealed))
        self._parts.log("ca.configured", provider=settings.provider, by=attempt.by, index=applied.index)

    async def wait_for_rotation(self, rotation_id: str) -> None:
        """Until it is finished, or published if it is staged.

        Raises: InternalError with the reason when it was given up; CommitUnknown when the leader is lost meanwhile, or
        when it takes too long: it goes on all the same.
        """
        signals = (self._replica.changed[Area.CA], self._replica.leadership_changed)
        try:
            async with asyncio.timeout(_ROTATION_SECONDS):
                while _is_under_way(self._replica.state, rotation_id):
                    if not self._replica.leadership.is_ready:
                        raise CommitUnknown(
                            "the leader was lost while the root was being rotated; the next one goes on"
                        )
                    await wait_any(
                        signals,
                        lambda: _is_under_way(self._replica.state, rotation_id) and self._replica.leadership.is_ready,
                    )
        except TimeoutError:
            trouble = self._health.now.trouble
            raise CommitUnknown(
                "the rotation is still under way and goes on: see /v1/connect/ca/rotation"
                + (f"; it is held up: {trouble}" if trouble else "")
            ) from None
        last = self._replica.state.last_rotation
        if (
            self._replica.state.rotation is None
            and last is not None
            and last.rotation_id == rotation_id
            and last.reason
        ):
            raise InternalError(last.reason)

    async def wait_for_root(self) -> None:
        """After a repair: until the leader has made the root.

        Raises: InternalError when it has found out why it cannot; CommitUnknown when it is lost meanwhile.
        """
        signals = (self._health.changed, self._replica.changed[Area.CA], self._replica.leadership_changed)
        repaired_at = self._replica.state.ca_index

        def trouble() -> str:
            """Of the repaired configuration; what the one before it suffered from does not count."""
            health = self._health.now
            return health.trouble if health.ca_index >= repaired_at else ""

        def is_open() -> bool:
            return self._replica.state.active_root is None and not trouble()

        try:
            async with asyncio.timeout(_REPAIR_SECONDS):
                while is_open():
                    if not self._replica.leadership.is_ready:
                        raise CommitUnknown(
                            "the configuration is stored, but the leader was lost before the CA came up"
                        )
                    await wait_any(signals, lambda: is_open() and self._replica.leadership.is_ready)
        except TimeoutError:
            raise InternalError("the configuration is stored, but the CA has not come up with it yet") from None
        if self._replica.state.active_root is None:
            raise InternalError(trouble())


def _goes_on(rotation: Rotation) -> bool:
    """By itself: a published one may wait for its clients, or for an operator, for weeks."""
    return rotation.phase is not RotationPhase.WAIT


def _is_under_way(state: State, rotation_id: str) -> bool:
    rotation = state.rotation
    return rotation is not None and rotation.rotation_id == rotation_id and rotation.phase is not RotationPhase.WAIT


def _text(settings: CASettings, name: str) -> str:
    return next((str(value) for key, value in settings.config.items() if key.lower() == name.lower()), "")


def _are_same(one: CASettings, other: CASettings) -> bool:
    def secrets_of(settings: CASettings) -> Mapping[str, bytes]:
        return {folded(key): value for key, value in settings.secrets.items() if value != NOTHING}

    return one.config_json == other.config_json and secrets_of(one) == secrets_of(other)
