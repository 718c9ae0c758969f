"""An operator's change of the CA configuration, on the leader: check everything first, then one command.

The order of checks and their texts are Consul's (spec 4.2, 5.5), but for design 9: secrets that are left out keep their
stored values, and a stale ModifyIndex is a conflict.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cluster.api import ConfigUpdate
from cluster.authority import Authority, ProviderRecord, open_record, seal_record, settings_in
from cluster.ca_config import CASettings, keep_secrets, settings_of
from cluster.clock import Clock
from cluster.errors import (
    AnswerLost,
    BadRequest,
    ClusterError,
    CommitUnknown,
    InternalError,
    NotLeader,
    NotReady,
    Refused,
    StaleIndex,
)
from cluster.leader import new_intent
from cluster.raft.guard import Log
from cluster.raft.replica import Replica
from cluster.waiting import wait_any
from cluster.workers import Configured
from fsm.apply import STALE_INDEX
from fsm.commands import Rejected, SetConfig
from fsm.state import CAConfig, State
from providers import x509
from providers.errors import ConfigInvalid, ProviderError
from providers.registry import create_provider

_COMMIT_SECONDS: Final = 10.0
#: How long a repair of a CA that never came up is waited for.
_REPAIR_SECONDS: Final = 10.0
_READ_ONLY: Final = "Provider State is read-only. It must be omitted or identical to the current value"
_NO_ROTATION: Final = (
    "this configuration means a new root certificate (another key, root or provider), and changing the root is not"
    " supported yet: keep Provider, PrivateKey, RootCert, PrivateKeyType and PrivateKeyBits as they are"
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which write this is. A write that was sent again keeps id and index, so that it takes effect at most once."""

    request_id: bytes
    ca_index: int  # of the state that the first node saw before it sent anything
    is_repeat: bool


class Reconfigurer:
    """The leader's side of PUT configuration."""

    def __init__(self, replica: Replica, authority: Authority, clock: Clock, log: Log) -> None:
        self._replica = replica
        self._authority = authority
        self._clock = clock
        self._log = log

    async def apply(self, update: ConfigUpdate, attempt: Attempt) -> None:
        """Raises: BadRequest, StaleIndex, Refused, InternalError, NotReady (no effect); CommitUnknown, NotLeader."""
        async with self._authority.change("RECONFIGURING", wait=False):
            state = self._replica.state
            if state.ca_index < attempt.ca_index:
                # Another leader's write has been seen: nothing may be judged, or found to be the same, from here.
                raise NotLeader("this node does not lead any more")
            config = state.config
            if config is None:
                raise NotReady(f"CA has not finished initializing: {self._authority.trouble or 'no configuration yet'}")
            if attempt.is_repeat and config.request_id == attempt.request_id:
                return
            self._check(update, config, state, attempt)
            await self._change(update, config, state, attempt)

    def _check(self, update: ConfigUpdate, config: CAConfig, state: State, attempt: Attempt) -> None:
        if attempt.is_repeat and state.ca_index != attempt.ca_index:
            raise AnswerLost("the answer to this write was lost, and the configuration has changed since: read it")
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

    async def _change(self, update: ConfigUpdate, config: CAConfig, state: State, attempt: Attempt) -> None:
        record = self._record(config, state)
        is_same_provider = update.provider == config.provider
        try:
            settings = settings_of(update.provider, update.config)
        except ConfigInvalid as error:
            raise InternalError(str(error)) from error
        if is_same_provider:
            settings = keep_secrets(settings, record.secrets)
            if _are_same(settings, settings_in(config, record)):
                return
        async with _Candidate(self._authority, config, settings, record if is_same_provider else None) as candidate:
            if state.active_root is None:
                await self._repair(candidate, update, config, attempt)
            else:
                await self._keep_root(candidate, update, config, state, attempt)

    def _record(self, config: CAConfig, state: State) -> ProviderRecord:
        sealed = state.provider_state(config.provider_id)
        assert sealed is not None  # an invariant of the state
        assert state.seal is not None
        self._authority.sealer.unlock(state.seal)
        return open_record(self._authority.sealer, sealed)

    async def _keep_root(
        self, candidate: "_Candidate", update: ConfigUpdate, config: CAConfig, state: State, attempt: Attempt
    ) -> None:
        chain = candidate.configured.chain
        root = state.active_root
        assert root is not None
        if update.provider != config.provider or chain is None or x509.root_id(chain.root_pem) != root.root_id:
            raise Refused(_NO_ROTATION)
        await self._commit(candidate, update, config, attempt, config.provider_id, candidate.state, is_prepared=True)
        await self._take_into_use()

    async def _take_into_use(self) -> None:
        """At once, so that whoever made the change meets it. What fails here is the leader's duty (leader.py)."""
        if self._replica.leadership.is_ready:  # else it has been dropped, and stays so
            with contextlib.suppress(ProviderError, ClusterError):
                await self._authority.adopt(self._replica.state)

    async def _repair(self, candidate: "_Candidate", update: ConfigUpdate, config: CAConfig, attempt: Attempt) -> None:
        """The CA never came up: any usable configuration may take the place of the one that failed."""
        provider_state = await candidate.prepare_root(int(self._clock.now()))
        provider_id = secrets.token_hex(8)
        await self._commit(candidate, update, config, attempt, provider_id, provider_state, is_prepared=True)
        self._authority.trouble = ""

    async def _commit(
        self,
        candidate: "_Candidate",
        update: ConfigUpdate,
        config: CAConfig,
        attempt: Attempt,
        provider_id: str,
        provider_state: bytes,
        *,
        is_prepared: bool,
    ) -> None:
        settings = candidate.settings
        record = ProviderRecord(settings.secrets, provider_state)
        changed = replace(
            config,
            provider=settings.provider,
            provider_id=provider_id,
            config_json=settings.config_json,
            public_state=tuple(sorted(candidate.configured.public_state.items())),
            force_without_cross_signing=update.force_without_cross_signing,
            request_id=attempt.request_id,
        )
        sealed = seal_record(self._authority.sealer, provider_id, settings.provider, record, is_prepared=is_prepared)
        result = await self._replica.propose(SetConfig(attempt.ca_index, changed, sealed), timeout=_COMMIT_SECONDS)
        if isinstance(result, Rejected):
            if result.code == STALE_INDEX:
                raise InternalError("could not atomically update roots and config")
            raise Refused(f"{result.code}: {result.detail}")
        self._log("ca.configured", provider=settings.provider, index=result.index)

    async def wait_for_root(self) -> None:
        """Behind a repair: until the leader has made the root.

        Raises: InternalError when it has found out why it cannot; CommitUnknown when it is lost meanwhile.
        """
        signals = (self._authority.trouble_found, self._replica.ca_changed, self._replica.leadership_changed)

        def is_open() -> bool:
            return self._replica.state.active_root is None and not self._authority.trouble

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
            raise InternalError(self._authority.trouble)


class _Candidate:
    """A provider with the new configuration, under a key of its own in the workers, gone again at the end."""

    def __init__(
        self, authority: Authority, config: CAConfig, settings: CASettings, stored: ProviderRecord | None
    ) -> None:
        self._authority = authority
        self._cluster_id = config.cluster_id
        self._key = f"candidate-{secrets.token_hex(8)}"
        self.settings = settings
        self.state = stored.state if stored else b""
        self.configured = Configured(None, {})

    async def __aenter__(self) -> "_Candidate":
        """Raises: InternalError with the provider's reason, as Consul words it."""
        setup = self._authority.setup(self._cluster_id, self.settings, self.state)
        try:
            self.configured = await self._authority.pool.configure(self._key, setup)
        except BaseException as error:  # being cancelled too: some workers may have it already
            await self._authority.pool.forget(self._key)
            if isinstance(error, ProviderError):
                raise InternalError(f"error configuring provider: {error}") from error
            raise
        return self

    async def prepare_root(self, now: int) -> bytes:
        try:
            return await self._authority.pool.prepare_root(self._key, new_intent(now))
        except ProviderError as error:
            raise InternalError(f"error generating CA root certificate: {error}") from error

    async def __aexit__(self, *_: object) -> None:
        await self._authority.pool.forget(self._key)


def _are_same(one: CASettings, other: CASettings) -> bool:
    def secrets_of(settings: CASettings) -> Mapping[str, Any]:
        return {key.lower(): value for key, value in settings.secrets.items() if value != ""}

    return one.config_json == other.config_json and secrets_of(one) == secrets_of(other)
