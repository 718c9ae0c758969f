"""Another certificate that signs leaves, below the same root: made by the provider, proved, and committed as one.

Whoever is cut off before the commit has changed nothing: the provider finds what it has made when it is asked again
from the same state. A failure does not hold up the leader's other duties; it is said, and tried again with growing
pauses.
"""

from dataclasses import replace
from typing import Final

from cluster.base.clock import Clock
from cluster.base.errors import ClusterError, InternalError
from cluster.base.log import Log
from cluster.base.telemetry import Metrics
from cluster.ca.authority import Authority
from cluster.ca.candidate import Candidate
from cluster.ca.proof import prove
from cluster.ca.records import ProviderRecord, open_record, seal_record, settings_in
from cluster.ca.roots import intermediates_of, links_of, trusted_through
from cluster.raft.replica import Replica
from fsm.commands import Rejected, RenewSigning
from fsm.duties import Duty, Renewal
from fsm.state import CAConfig, CARoot, State
from providers.api import CAChain
from providers.errors import ChainInvalid, ProviderError
from providers.pki import verify, x509

_COMMIT_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 256.0


class PutOff(ClusterError):
    """It has failed, that has been said, and it will be tried again."""


class Renewer:
    """The leader's side. One for each node."""

    def __init__(self, replica: Replica, authority: Authority, clock: Clock, log: Log, metrics: Metrics) -> None:
        self._replica = replica
        self._authority = authority
        self._clock = clock
        self._log = log
        self._metrics = metrics
        self.forget()

    def forget(self) -> None:
        """At the end of leadership."""
        self._pause = _FIRST_PAUSE_SECONDS
        self._put_off_until = 0.0
        self._put_off_index = -1
        self._trouble = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        return (self._trouble,) if self._trouble else ()

    def known(self, state: State) -> Renewal:
        """For `next_duty`. A change of the CA ends the pause behind a failure."""
        is_wanted = self._authority.wants_renewal and not self._authority.is_behind(state)
        return Renewal(is_wanted, is_put_off=self.seconds_put_off(state) > 0)

    def seconds_put_off(self, state: State) -> float:
        if state.ca_index != self._put_off_index:
            return 0.0
        return max(0.0, self._put_off_until - self._clock.monotonic())

    async def renew(self, state: State) -> None:
        """Raises: PutOff; NotLeader, CommitUnknown."""
        try:
            await self._renew(state)
        except (ProviderError, InternalError) as error:
            if not self._replica.leadership.is_ready:
                raise
            name = Duty.RENEW_SIGNING.name.lower()
            self._metrics.ca_duty_failures.labels(name).inc()
            self._log("duty.failed", duty=name, reason=str(error), again_in_seconds=self._pause)
            self._trouble = f"the certificate that signs leaves cannot be renewed: {error}"
            self._put_off_index = state.ca_index
            self._put_off_until = self._clock.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            raise PutOff(self._trouble) from error
        self.forget()
        await self._authority.adopt(self._replica.state)

    async def _renew(self, state: State) -> None:
        config, root = state.config, state.active_root
        assert config is not None
        assert root is not None
        sealed = state.provider_state(config.provider_id)
        assert sealed is not None  # an invariant of the state
        record = open_record(self._authority.sealer, sealed)
        self._log("ca.signing", profile="intermediate", provider=config.provider, by="leader")
        chain, provider_state = await self._authority.pool.renew_signing_cert(config.provider_id)
        renewed = self._renewed(state, root, chain)
        await self._prove(state, config, record, renewed, provider_state)
        sealed = seal_record(
            self._authority.sealer,
            config.provider_id,
            config.provider,
            replace(record, state=provider_state),
            is_prepared=True,
        )
        command = RenewSigning(state.ca_index, root.root_id, renewed.signing_key_id, renewed.intermediates, sealed)
        result = await self._replica.propose(command, timeout=_COMMIT_SECONDS)
        if isinstance(result, Rejected):
            raise InternalError(f"RenewSigning was refused: {result.code}: {result.detail}")
        assert renewed.signing_cert is not None
        self._log(
            "ca.signed",
            profile="intermediate",
            provider=config.provider,
            root=root.root_id,
            signing_key=renewed.signing_key_id,
            not_after=renewed.signing_cert.not_after,
            by="leader",
        )

    def _renewed(self, state: State, root: CARoot, chain: CAChain) -> CARoot:
        """Raises: ChainInvalid."""
        now = int(self._clock.now())
        verify.verify_ca(chain, trust_domain=state.trust_domain, now=now)
        found = x509.root_id(chain.root_pem)
        if found != root.root_id:
            raise ChainInvalid(f'the renewed certificate is below root "{found}", not the active one, "{root.root_id}"')
        renewed = replace(
            root,
            signing_key_id=x509.signing_key_id(chain.signing_cert_pem),
            intermediates=(*intermediates_of(chain.intermediate_pems, now), *links_of(root)),
        )
        if renewed.signing_cert is None:
            raise ChainInvalid("the renewed certificate is not in the chain that goes with leaves")
        return renewed

    async def _prove(
        self, state: State, config: CAConfig, record: ProviderRecord, renewed: CARoot, provider_state: bytes
    ) -> None:
        """Nothing else may change for clients: whoever accepts leaves now accepts them from the renewed one too."""
        now = self._clock.now()
        trusted = trusted_through(renewed, state.roots, now)
        stores = {f"only {root.root_id}": [root.root_pem] for root in trusted}
        stores["all"] = [root.root_pem for root in trusted]
        settings = settings_in(config, record)
        async with Candidate(self._authority, config.cluster_id, settings, provider_state) as candidate:
            await prove(self._authority, candidate.key, state, renewed, stores, int(now))
