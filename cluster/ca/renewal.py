"""Another certificate that signs leaves, below the same root: made by the provider, proved, and committed as one.

Whoever is cut off before the commit has changed nothing: the provider finds what it has made when it is asked again
from the same state. A failure does not hold up the leader's other duties; it is reported, and tried again with
growing pauses.
"""

from dataclasses import replace
from typing import Final

from cluster.base.errors import ClusterError, InternalError, Refused
from cluster.base.log import Reports, audited_signature
from cluster.ca.candidate import Candidate
from cluster.ca.commit import commit
from cluster.ca.parts import Parts
from cluster.ca.proof import prove
from cluster.ca.roots import intermediates_of
from cluster.ca.settings import CASettings
from fsm.ca import CARoot, RenewSigning
from fsm.duties import Duty, Renewal
from fsm.links import links_of, trusted_through
from fsm.state import State
from providers.api import CAChain
from providers.errors import ChainInvalid, ProviderError
from providers.pki import verify, x509
from providers.texts import one_line

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 256.0


class PutOff(ClusterError):
    """A renewal failed; this has been logged, and the loop tries it again later."""


class Renewer:
    """Renews the certificate that signs leaves, on the leader, and puts off the next try after a failure."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._authority = parts.authority
        self._clock = parts.clock
        self._log = parts.log
        self.forget()

    def forget(self) -> None:
        """At the end of leadership."""
        self._pause = _FIRST_PAUSE_SECONDS
        self._put_off_until = 0.0
        self._put_off_index = -1
        self._trouble = ""
        self._reports = Reports()

    @property
    def warnings(self) -> tuple[str, ...]:
        return (self._trouble,) if self._trouble else ()

    def known(self, state: State) -> Renewal:
        """For `next_duty`. A change of the CA ends the pause after a failure."""
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
        except (ProviderError, InternalError, Refused) as error:
            if not self._parts.replica.leadership.is_ready:
                raise
            name = Duty.RENEW_SIGNING.name.lower()
            self._parts.metrics.ca_duty_failures.labels(name).inc()
            reason = self._reports.reason(name, error)
            self._log("duty.failed", duty=name, reason=reason, again_in_seconds=self._pause)
            self._trouble = f"the certificate that signs leaves cannot be renewed: {one_line(error)}"
            self._put_off_index = state.ca_index
            self._put_off_until = self._clock.monotonic() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            raise PutOff(self._trouble) from error
        self.forget()
        await self._authority.adopt(self._parts.replica.state)

    async def _renew(self, state: State) -> None:
        opened = self._parts.opener.opened(state)
        config = opened.config
        self._log("ca.signing", profile="intermediate", provider=config.provider, by="leader")
        with audited_signature(self._log, profile="intermediate", provider=config.provider, by="leader"):
            renewed, provider_state = await proved_renewal(
                self._parts, state, opened.root, config.provider_id, config.cluster_id, opened.settings
            )
        sealed = self._parts.opener.resealed(config, opened.record, provider_state)
        await commit(
            self._parts.replica,
            RenewSigning(state.ca_index, renewed.root_id, renewed.signing_key_id, renewed.intermediates, sealed),
        )
        self._log(
            "ca.signed",
            profile="intermediate",
            provider=config.provider,
            root=renewed.root_id,
            signing_key=renewed.signing_key_id,
            not_after=renewed.signing_cert.not_after if renewed.signing_cert else 0,
            by="leader",
        )


async def proved_renewal(
    parts: Parts, state: State, root: CARoot, key: str, cluster_id: str, settings: CASettings
) -> tuple[CARoot, bytes]:
    """The root with another signing certificate, made by the provider that the workers have under `key`, and that
    provider's state with it. What these settings make of it is proved; nothing is committed.

    Raises: ProviderError, InternalError.
    """
    chain, provider_state = await parts.pool.renew_signing_cert(key)
    renewed = _renewed(parts, state, root, chain)
    # Nothing else may change for clients: whoever accepts leaves now accepts them from the renewed one too.
    now = parts.clock.now()
    trusted = trusted_through(renewed, state.roots, now)
    stores = {f"only {one.root_id}": [one.root_pem] for one in trusted}
    stores["all"] = [one.root_pem for one in trusted]
    async with Candidate(parts, cluster_id, settings, provider_state) as candidate:
        await prove(parts, candidate.key, state, renewed, stores, int(now))
    return renewed, provider_state


def _renewed(parts: Parts, state: State, root: CARoot, chain: CAChain) -> CARoot:
    """The root with its new signing certificate. Raises: ChainInvalid."""
    now = parts.unix_now
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
