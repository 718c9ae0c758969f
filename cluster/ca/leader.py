"""What the elected leader does on its own: look at the state, do the next duty, look again.

Level-triggered: no progress is kept here: only pauses, counters and what has been logged. So a crash anywhere is
repaired by the next leader's first look. CA trouble never costs leadership: it is reported, and tried again with
growing pauses, or at once when an operator changes the configuration. So is whatever else goes wrong in a duty.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final, NoReturn

from cluster.base.background import describe, is_outlived
from cluster.base.errors import ClusterError, NotLeader
from cluster.base.log import Reports
from cluster.base.signals import wait_any
from cluster.ca.bootstrap import Bootstrap
from cluster.ca.candidate import Candidate
from cluster.ca.chain_limits import stuck
from cluster.ca.commit import commit
from cluster.ca.health import CAHealth
from cluster.ca.parts import Parts
from cluster.ca.provider_watch import ProviderWatch
from cluster.ca.renewal import PutOff, Renewer
from cluster.ca.roots import begins_just_now, early_ends, ends_before_leaves, expires_soon
from cluster.ca.rotation import RotationRequest, Rotator
from cluster.ca.settings import without_key
from cluster.ca.uptake import UptakeMeter
from cluster.seal.sources import SealError
from fsm.acl import DeleteTokens
from fsm.ca import RotationPhase
from fsm.duties import Duty, Renewal, expired_tokens, next_duty, next_time, tidy_time
from fsm.fields import as_reason
from fsm.leaves import TidyLedger
from fsm.state import Area, State
from providers.errors import ProviderError

#: Without any event, how often the leader looks for duties that time has brought.
_LOOK_SECONDS: Final = 30.0
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 256.0  # Consul's
_SHORTEST_PAUSE_SECONDS: Final = 0.05
#: How often it looks whether all servers know access control by now.
_PINNING_SECONDS: Final = 2.0
#: How often clients are counted during a staged rotation, and how often in a row all must have the root.
_UPTAKE_SECONDS: Final = 2.0
_FULL_UPTAKES: Final = 3
_BESIDE_THE_CA: Final = frozenset({Duty.INIT_ACL, Duty.REAP_TOKENS, Duty.TIDY_LEDGER})
_WARN_AGAIN_SECONDS: Final = 3600.0
_OF_THE_NEXT_ROOT: Final = frozenset(
    {Duty.ROTATE_GENERATE, Duty.ROTATE_CROSS_SIGN, Duty.ROTATE_PUBLISH, Duty.ROTATE_ACTIVATE}
)
#: Dropped at a time, so that no entry takes long to apply.
_TIDY_AT_MOST: Final = 5000


class Leader:
    """`run` for as long as the node lives."""

    def __init__(
        self,
        parts: Parts,
        bootstrap: Bootstrap,
        rotator: Rotator,
        renewer: Renewer,
        watch: ProviderWatch,
        meter: UptakeMeter,
    ) -> None:
        self._parts = parts
        self._replica = parts.replica
        self._authority = parts.authority
        self._health = parts.health
        self._is_enabled = parts.first.is_enabled
        self._clock = parts.clock
        self._log = parts.log
        self._rotator = rotator
        self._renewer = renewer
        self._watch = watch
        self._meter = meter
        self._full_uptakes = 0
        self._reports = Reports()
        self._duties: Mapping[Duty, Callable[[State], Awaitable[None]]] = {
            Duty.INIT_SEAL: bootstrap.init_seal,
            Duty.INIT_ACL: bootstrap.init_acl,
            Duty.INIT_CONFIG: bootstrap.init_config,
            Duty.PREPARE_ROOT: bootstrap.prepare_root,
            Duty.GENERATE_ROOT: bootstrap.generate_root,
            Duty.ROTATE_BEGIN: self._begin_rotation,
            Duty.ROTATE_GENERATE: rotator.generate,
            Duty.ROTATE_CROSS_SIGN: rotator.cross_sign,
            Duty.ROTATE_PUBLISH: rotator.publish,
            Duty.ROTATE_ACTIVATE: rotator.activate,
            Duty.PRUNE_ROOTS: rotator.prune,
            Duty.REAP_TOKENS: self._reap_tokens,
            Duty.RENEW_SIGNING: renewer.renew,
            Duty.TIDY_LEDGER: self._tidy_ledger,
        }
        self._warned_at = -math.inf
        self.last_look = parts.clock.monotonic()

    async def run(self) -> NoReturn:
        while True:
            leadership = self._replica.leadership
            if not leadership.is_ready:
                await self._replica.leadership_changed.wait()
                continue
            self._log("leader.elected", term=leadership.term)
            self._authority.lead()
            try:
                await self._lead(leadership.term)
            finally:
                await self._authority.drop()
                self._health.show(CAHealth())
                self._reports = Reports()
                self._renewer.forget()
                self._watch.forget()
                self._log("leader.lost", term=leadership.term)

    def _known(self, state: State) -> Renewal:
        return replace(self._renewer.known(state), knows_acl=self._replica.is_acl_known)

    def _leads(self, term: int) -> bool:
        leadership = self._replica.leadership
        return leadership.is_ready and leadership.term == term

    async def _lead(self, term: int) -> None:
        if self._is_enabled and self._replica.state.config is not None:
            self._log("ca.config_ignored", reason="the CA is initialised: [connect] in the node's file has no effect")
        pause = _FIRST_PAUSE_SECONDS
        while self._leads(term):
            state = self._replica.state
            self.last_look = self._clock.monotonic()
            known = self._known(state)
            name = "look"
            try:
                self._warn_of_expiry(state)
                duty = next_duty(state, int(self._clock.now()), self._parts.policy, known) if self._is_enabled else None
                name = duty.name.lower() if duty else "adopt"
                if await self._step(state, duty):
                    pause = _FIRST_PAUSE_SECONDS
                    self._reports.forget(name)
                    continue
                self._health.show(replace(self._health.now, trouble=""))
                warnings = await self._watch.look(state, (*self._renewer.warnings, *self._of_root(state)))
                self._health.show(CAHealth(warnings=warnings))
                wait = self._until_next_look(state, known)
            except PutOff:
                continue
            except BaseException as error:
                if not is_outlived(error):
                    raise
                # Also what nobody foresaw: a leader that ends at what is in the state takes every node with it, one
                # after the other. The next change of the CA may be the cure, and is waited for.
                if not self._leads(term):
                    return
                is_foreseen = isinstance(error, ProviderError | ClusterError | SealError)
                shown = (
                    as_reason(str(error))
                    if is_foreseen
                    else f"internal error ({type(error).__name__}): see the leader's log"
                )
                self._health.show(replace(self._health.now, trouble=shown, ca_index=state.ca_index))
                self._parts.metrics.ca_duty_failures.labels(name).inc()
                reason = self._reports.reason(name, error) if is_foreseen else describe(error)
                self._log("duty.failed", duty=name, reason=reason, again_in_seconds=pause)
                wait, pause = pause, min(2 * pause, _LONGEST_PAUSE_SECONDS)
            await self._changed(term, state, known, wait)

    async def _step(self, state: State, duty: Duty | None) -> bool:
        """One duty; whether there may be more to do at once."""
        # Off the loop: a passphrase is stretched for a quarter of a second.
        await asyncio.to_thread(self._parts.opener.unlock, state)
        if state.active_root is not None and self._is_enabled:
            await self._adopt(state, duty)
        if duty is None:
            return await self._clients_are_ready(state)
        started = time.monotonic()
        if duty in _BESIDE_THE_CA:
            await self._duties[duty](state)  # changes nothing of the CA: an operator need not wait for it
        else:
            busy = "INITIALIZING" if state.active_root is None else "RECONFIGURING"
            async with self._parts.changes.turn(busy, is_duty=True):
                if self._replica.state.ca_index != state.ca_index:
                    return True  # an operator was faster
                await self._duties[duty](state)
        elapsed_ms = round(1000 * (time.monotonic() - started))
        self._log("duty.done", duty=duty.name.lower(), ms=elapsed_ms, index=self._replica.state.index)
        return True

    async def _adopt(self, state: State, duty: Duty | None) -> None:
        """A rotation goes on without the active root's provider, which may be why it was begun: a step that needs it
        fails by itself.
        """
        try:
            await self._authority.adopt(state)
        except NotLeader:
            raise
        except (ProviderError, ClusterError) as error:
            if duty not in _OF_THE_NEXT_ROOT:
                raise
            self._log("ca.not_adopted", reason=str(error), duty=duty.name.lower())

    async def _clients_are_ready(self, state: State) -> bool:
        """Staged rotation: once all clients have the published root, there is no reason to wait longer."""
        rotation = state.rotation
        if rotation is None or rotation.phase is not RotationPhase.WAIT or rotation.is_paused:
            self._full_uptakes = 0
            return False
        uptake = await self._meter.measure(rotation)
        self._full_uptakes = self._full_uptakes + 1 if uptake.percent == 100 else 0
        if self._full_uptakes < _FULL_UPTAKES:
            return False
        async with self._parts.changes.turn("RECONFIGURING", is_duty=True):
            if self._replica.state.ca_index == state.ca_index:
                await self._rotator.set_waiting(state, is_over=True)
        return True

    def _until_next_look(self, state: State, known: Renewal) -> float:
        longest = _LOOK_SECONDS if state.acl.key is not None else min(_LOOK_SECONDS, _PINNING_SECONDS)
        if state.rotation is not None and state.rotation.phase is RotationPhase.WAIT:
            longest = _UPTAKE_SECONDS
        if known.is_put_off:
            longest = min(longest, self._renewer.seconds_put_off(state))
        return max(_SHORTEST_PAUSE_SECONDS, min(longest, next_time(state, known) - self._clock.now()))

    def _of_root(self, state: State) -> tuple[str, ...]:
        """What to warn of."""
        root, config = state.active_root, state.config
        if root is None or config is None:
            return ()
        now = self._clock.now()
        said = (begins_just_now(root, config, now), ends_before_leaves(root, config, now), stuck(root))
        return (*filter(None, said), *early_ends(state.roots, now))

    def _warn_of_expiry(self, state: State) -> None:
        """Loudly, and in good time: a root that ends unnoticed ends the mesh."""
        root, now = state.active_root, self._clock.now()
        if root is None or now - self._warned_at < _WARN_AGAIN_SECONDS:
            return
        if expires_soon(root, now):
            self._warned_at, left = now, root.not_after - now
            event = "root.expires_soon" if left > 0 else "root.expired"
            self._log(event, root=root.root_id, not_after=root.not_after, days_left=int(left // 86_400))

    async def _changed(self, term: int, state: State, known: Renewal, seconds: float) -> None:
        """Until leadership or the time is over, the CA changes, access control may begin, or a renewal is wanted."""
        replica = self._replica
        news = (replica.changed[Area.CA], replica.acl_known, self._authority.renewal_wanted)
        signals = (replica.leadership_changed, *news)

        def is_same() -> bool:
            is_news = self._known(state) != known
            return self._leads(term) and self._replica.state.ca_index == state.ca_index and not is_news

        try:
            async with asyncio.timeout(seconds):
                while is_same():
                    await wait_any(signals, is_same)
        except TimeoutError:
            pass

    # -- duties

    async def _begin_rotation(self, state: State) -> None:
        """AutoRotateRoot: a fresh key in good time, as an operator would ask for it."""
        opened = self._parts.opener.opened(state)
        settings = without_key(opened.settings)
        async with Candidate(self._parts, opened.config.cluster_id, settings, b"") as candidate:
            provider_state = await candidate.prepare_root(self._parts.unix_now)
        target = replace(opened.config, provider_id=secrets.token_hex(8), config_json=settings.config_json)
        await self._rotator.begin(RotationRequest(target, settings, provider_state, state.ca_index))

    async def _reap_tokens(self, state: State) -> None:
        await commit(self._replica, DeleteTokens(expired_tokens(state, self._parts.unix_now)))

    async def _tidy_ledger(self, _state: State) -> None:
        until = tidy_time(self._parts.unix_now, self._parts.policy)
        until = await self._parts.ledger.call(lambda reader: reader.tidy_time(until, _TIDY_AT_MOST))
        await commit(self._replica, TidyLedger(until))
