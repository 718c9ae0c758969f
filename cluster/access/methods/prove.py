"""One door for all methods: each takes a bearer token."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from cluster.access.methods.config import (
    JwtConfig,
    KubernetesConfig,
    KubernetesOfflineConfig,
    MethodConfig,
    TlsConfig,
)
from cluster.access.methods.fetching import Fetch
from cluster.access.methods.jwt import proved_by_jwt
from cluster.access.methods.key_sets import JwksUrl, KeySetRefused, KeySets
from cluster.access.methods.kubernetes import proved_by_keys, proved_by_review
from cluster.access.methods.refusal import MethodInvalid
from cluster.access.methods.tls import Trust, proved_by_proof
from cluster.access.methods.used_proofs import UsedProofs
from cluster.access.selector import Proved
from cluster.base.clock import Clock

#: Failed logins are answered this long after they came, or twice, three times as long: not when the cause was found.
REFUSED_AFTER_SECONDS: Final = 0.25


class Prover:
    def __init__(self, fetch: Fetch, keys: KeySets, clock: Clock, trust: Callable[[], Trust]) -> None:
        """`trust`: whom the cluster trusts, as of the moment of the call."""
        self._fetch = fetch
        self._keys = keys
        self._clock = clock
        self._trust = trust
        self._used = UsedProofs()

    async def check(self, config: MethodConfig) -> None:
        """When a method is written: that its key set answers. Raises: MethodInvalid."""
        if not isinstance(config, JwtConfig | KubernetesOfflineConfig):
            return
        source = config.check.source
        try:
            await self._keys.check(source)
        except KeySetRefused as error:
            name = "JWKSURL" if isinstance(source, JwksUrl) else "OIDCDiscoveryURL"
            raise MethodInvalid(f"error checking {name}: {error}") from error

    async def proved(self, method: str, config: MethodConfig, bearer_token: str) -> Proved:
        """`method` is the name of that with this configuration. Raises: LoginRefused."""
        match config:
            case JwtConfig():
                return await proved_by_jwt(bearer_token, config, self._keys, self._clock.now())
            case KubernetesConfig():
                return await proved_by_review(bearer_token, config, self._fetch)
            case KubernetesOfflineConfig():
                return await proved_by_keys(bearer_token, config, self._keys, self._clock.now())
            case TlsConfig():
                return proved_by_proof(bearer_token, method, config, self._trust(), self._used, self._clock.now())


async def hold_refusal(began: float, clock: Clock, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
    """Before a failed login is answered; `began` is when it came, on the monotonic clock. What a wrong signature costs
    more than a wrong kid, or a wrong audience more than both, cannot be measured from outside then.
    """
    passed = max(clock.monotonic() - began, 0.0)
    await sleep(REFUSED_AFTER_SECONDS - passed % REFUSED_AFTER_SECONDS)
