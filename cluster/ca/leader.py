"""What the elected leader does on its own: look at the state, do the next duty, look again.

Level-triggered: nothing is remembered between two looks but when to look next, so a crash anywhere is repaired by the
next leader's first look. CA trouble never costs leadership: it is reported, and tried again with growing pauses, or at
once when an operator changes the configuration.
"""

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final, NoReturn

from cluster.base.clock import Clock
from cluster.base.config import ConnectSection
from cluster.base.errors import ClusterError, InternalError
from cluster.base.log import Log
from cluster.base.signals import wait_any
from cluster.base.telemetry import Metrics
from cluster.ca.authority import Authority
from cluster.ca.candidate import Candidate
from cluster.ca.provider_watch import ProviderWatch
from cluster.ca.records import ProviderRecord, open_record, seal_record, settings_in
from cluster.ca.renewal import PutOff, Renewer
from cluster.ca.roots import expires_soon, root_of
from cluster.ca.rotation import RotationRequest, Rotator
from cluster.ca.settings import first_cluster_id, first_settings, policies_of, without_key
from cluster.ca.uptake import UptakeMeter
from cluster.raft.replica import Replica
from cluster.record.reads import LedgerReads
from cluster.signing.serials import new_intent
from fsm.commands import Command, InitConfig, InitSeal, Rejected, SetProviderState, SetRootsConfig, TidyLedger
from fsm.duties import Duty, DutyPolicy, Renewal, next_duty, next_time, tidy_time
from fsm.state import CAConfig, RotationPhase, State
from providers.api import CAChain
from providers.errors import ConfigInvalid, ProviderError
from providers.pki import verify

_COMMIT_SECONDS: Final = 10.0
#: Without any event, how often the leader looks for duties that time has brought.
_LOOK_SECONDS: Final = 30.0
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 256.0  # Consul's
_SHORTEST_PAUSE_SECONDS: Final = 0.05
#: How often clients are counted during a staged rotation, and how often in a row all must have the root.
_UPTAKE_SECONDS: Final = 2.0
_FULL_UPTAKES: Final = 3
_WARN_AGAIN_SECONDS: Final = 3600.0
#: Dropped at a time, so that no entry takes long to apply.
_TIDY_AT_MOST: Final = 5000


class DutyLost(InternalError):
    """The state moved on while a duty was done: another look will tell what is left."""


class Leader:
    """`run` for as long as the node lives."""

    def __init__(
        self,
        replica: Replica,
        authority: Authority,
        rotator: Rotator,
        renewer: Renewer,
        watch: ProviderWatch,
        meter: UptakeMeter,
        ledger: LedgerReads,
        connect: ConnectSection,
        policy: DutyPolicy,
        clock: Clock,
        log: Log,
        metrics: Metrics,
    ) -> None:
        self._replica = replica
        self._authority = authority
        self._rotator = rotator
        self._renewer = renewer
        self._watch = watch
        self._meter = meter
        self._full_uptakes = 0
        self._ledger = ledger
        self._connect = connect
        self._policy = policy
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self._duties: Mapping[Duty, Callable[[State], Awaitable[None]]] = {
            Duty.INIT_SEAL: self._init_seal,
            Duty.INIT_CONFIG: self._init_config,
            Duty.PREPARE_ROOT: self._prepare_root,
            Duty.GENERATE_ROOT: self._generate_root,
            Duty.ROTATE_BEGIN: self._begin_rotation,
            Duty.ROTATE_GENERATE: rotator.generate,
            Duty.ROTATE_CROSS_SIGN: rotator.cross_sign,
            Duty.ROTATE_PUBLISH: rotator.publish,
            Duty.ROTATE_ACTIVATE: rotator.activate,
            Duty.PRUNE_ROOTS: rotator.prune,
            Duty.RENEW_SIGNING: renewer.renew,
        }
        self._warned_at = -math.inf
        self.last_look = clock.monotonic()

    async def run(self) -> NoReturn:
        while True:
            leadership = self._replica.leadership
            if not leadership.is_ready:
                await self._replica.leadership_changed.wait()
                continue
            self._log("leader.elected", term=leadership.term)
            try:
                await self._lead(leadership.term)
            finally:
                await self._authority.drop()
                self._renewer.forget()
                self._watch.forget()
                self._log("leader.lost", term=leadership.term)

    def _leads(self, term: int) -> bool:
        leadership = self._replica.leadership
        return leadership.is_ready and leadership.term == term

    async def _lead(self, term: int) -> None:
        if self._connect.enabled and self._replica.state.config is not None:
            self._log("ca.config_ignored", reason="the CA is initialised: [connect] in the node's file has no effect")
        pause = _FIRST_PAUSE_SECONDS
        while self._leads(term):
            state = self._replica.state
            self.last_look = self._clock.monotonic()
            known = self._renewer.known(state)
            duty = next_duty(state, int(self._clock.now()), self._policy, known) if self._connect.enabled else None
            name = duty.name.lower() if duty else "adopt"
            self._warn_of_expiry(state)
            try:
                if await self._step(state, duty):
                    pause = _FIRST_PAUSE_SECONDS
                    continue
                self._authority.trouble = ""
                await self._watch.look(state, self._renewer.warnings)
                wait = self._until_next_look(state, known)
            except PutOff:
                continue
            except (ProviderError, ClusterError) as error:
                if not self._leads(term):
                    return
                self._authority.trouble = str(error)
                self._metrics.ca_duty_failures.labels(name).inc()
                self._log("duty.failed", duty=name, reason=str(error), again_in_seconds=pause)
                wait, pause = pause, min(2 * pause, _LONGEST_PAUSE_SECONDS)
            await self._changed(term, state, known, wait)

    async def _step(self, state: State, duty: Duty | None) -> bool:
        """One duty; whether there may be more to do at once."""
        if state.seal is not None:
            self._authority.sealer.unlock(state.seal)
        if state.active_root is not None and self._connect.enabled:
            await self._authority.adopt(state)
        if duty is None:
            return await self._clients_are_ready(state)
        started = time.monotonic()
        if duty is Duty.TIDY_LEDGER:
            await self._tidy_ledger()  # changes nothing of the CA: an operator need not wait for it
        else:
            busy = "INITIALIZING" if state.active_root is None else "RECONFIGURING"
            async with self._authority.change(busy, is_duty=True):
                if self._replica.state.ca_index != state.ca_index:
                    return True  # an operator was faster
                await self._duties[duty](state)
        elapsed_ms = round(1000 * (time.monotonic() - started))
        self._log("duty.done", duty=duty.name.lower(), ms=elapsed_ms, index=self._replica.state.index)
        return True

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
        async with self._authority.change("RECONFIGURING", is_duty=True):
            if self._replica.state.ca_index == state.ca_index:
                await self._rotator.set_waiting(state, is_over=True)
        return True

    def _until_next_look(self, state: State, known: Renewal) -> float:
        longest = _LOOK_SECONDS
        if state.rotation is not None and state.rotation.phase is RotationPhase.WAIT:
            longest = _UPTAKE_SECONDS
        if known.is_put_off:
            longest = min(longest, self._renewer.seconds_put_off(state))
        return max(_SHORTEST_PAUSE_SECONDS, min(longest, next_time(state, known) - self._clock.now()))

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
        """Until leadership is lost, the CA's state changes, a renewal is wanted, or the time is over."""
        signals = (self._replica.leadership_changed, self._replica.ca_changed, self._authority.renewal_wanted)

        def is_same() -> bool:
            is_news = self._renewer.known(state) != known
            return self._leads(term) and self._replica.state.ca_index == state.ca_index and not is_news

        try:
            async with asyncio.timeout(seconds):
                while is_same():
                    await wait_any(signals, is_same)
        except TimeoutError:
            pass

    async def _commit(self, command: Command) -> None:
        result = await self._replica.propose(command, timeout=_COMMIT_SECONDS)
        if isinstance(result, Rejected):
            raise DutyLost(f"{type(command).__name__} was refused: {result.code}: {result.detail}")

    # -- duties

    async def _init_seal(self, _state: State) -> None:
        # Off the loop: a passphrase is stretched for a quarter of a second.
        seal = await asyncio.to_thread(self._authority.sealer.new_data_key)
        await self._commit(InitSeal(seal))

    async def _init_config(self, _state: State) -> None:
        settings = first_settings(self._connect)
        provider_id = secrets.token_hex(8)
        record = ProviderRecord(settings.secrets, b"", settings.config_json)
        config = CAConfig(first_cluster_id(self._connect), settings.provider, provider_id, settings.config_json)
        with contextlib.suppress(ConfigInvalid):  # the next duty says what is wrong with it
            policies = policies_of(settings)
            config = replace(
                config,
                leaf_ttl_seconds=policies.leaf_ttl_seconds,
                auto_rotate_percent=policies.auto_rotate_percent,
            )
        sealed = seal_record(self._authority.sealer, provider_id, settings.provider, record, is_prepared=False)
        await self._commit(InitConfig(config, sealed))

    async def _prepare_root(self, state: State) -> None:
        """Commit key and intent before anything is signed with them."""
        config, record = self._stored(state)
        await self._configure(state)
        intent = new_intent(int(self._clock.now()))
        prepared = replace(record, state=await self._authority.pool.prepare_root(config.provider_id, intent))
        sealed = seal_record(self._authority.sealer, config.provider_id, config.provider, prepared, is_prepared=True)
        await self._commit(SetProviderState(state.ca_index, sealed))

    async def _generate_root(self, state: State) -> None:
        """Roots and configuration in one command: there is never one without the other."""
        config, record = self._stored(state)
        await self._configure(state)
        self._log("ca.signing", profile="root", provider=config.provider, by="leader")
        chain, provider_state = await self._authority.pool.generate_root(config.provider_id)
        self._verify(chain, state)
        root = root_of(chain, config, is_active=True, made_at=int(self._clock.now()))
        configured = await self._authority.pool.configure(
            config.provider_id,
            self._authority.setup(config.cluster_id, settings_in(config, record), provider_state),
        )
        sealed = seal_record(
            self._authority.sealer,
            config.provider_id,
            config.provider,
            replace(record, state=provider_state),
            is_prepared=True,
        )
        config = replace(config, public_state=tuple(sorted(configured.public_state.items())))
        await self._commit(SetRootsConfig(state.ca_index, (root,), config, (sealed,)))
        self._log("ca.signed", profile="root", provider=config.provider, root=root.root_id, by="leader")

    async def _begin_rotation(self, state: State) -> None:
        """AutoRotateRoot: a fresh key in good time, as an operator would ask for it."""
        config, record = self._stored(state)
        settings = without_key(settings_in(config, record))
        now = int(self._clock.now())
        async with Candidate(self._authority, config.cluster_id, settings, b"") as candidate:
            provider_state = await candidate.prepare_root(now)
        target = replace(config, provider_id=secrets.token_hex(8), config_json=settings.config_json)
        await self._rotator.begin(RotationRequest(target, settings, provider_state, state.ca_index))

    async def _tidy_ledger(self) -> None:
        until = tidy_time(int(self._clock.now()), self._policy)
        until = await self._ledger.call(lambda reader: reader.tidy_time(until, _TIDY_AT_MOST))
        await self._commit(TidyLedger(until))

    def _stored(self, state: State) -> tuple[CAConfig, ProviderRecord]:
        assert state.config is not None
        sealed = state.provider_state(state.config.provider_id)
        assert sealed is not None
        return state.config, open_record(self._authority.sealer, sealed)

    async def _configure(self, state: State) -> None:
        try:
            await self._authority.configure_stored(state)
        except ConfigInvalid as error:
            raise InternalError(f"error configuring provider: {error}") from error

    def _verify(self, chain: CAChain, state: State) -> None:
        """Whatever the provider says: no chain is committed that was not verified here."""
        verify.verify_ca(chain, trust_domain=state.trust_domain, now=int(self._clock.now()))
