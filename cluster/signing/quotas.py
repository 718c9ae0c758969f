"""How many certificates there are in a second for one token, and for one SPIFFE ID.

Counted where they are signed, on the leader, which is the only place that sees all of them. The next leader begins with
full buckets.

Of a token before the CSR is looked at; of a SPIFFE ID as soon as it is known, which is before anything is signed.
Whoever brings no token is held by the limit of its address (`cluster.node.leaves`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cluster.base.errors import LostRace, NoLeader, NotLeader, NotReady, Overloaded, RateLimitReached
from cluster.base.rates import KeyedLimit
from cluster.base.telemetry import Metrics
from providers.errors import ProviderUnavailable, RateLimited

#: Nothing was done, and whoever asked can do nothing about it but come again.
_COME_AGAIN: Final = (
    LostRace,
    NoLeader,
    NotLeader,
    NotReady,
    Overloaded,
    ProviderUnavailable,
    RateLimited,
    RateLimitReached,
)


@dataclass(frozen=True, slots=True)
class Quotas:
    by_token: KeyedLimit  # by AccessorID
    by_identity: KeyedLimit

    @property
    def are_off(self) -> bool:
        return self.by_token.is_off and self.by_identity.is_off

    @contextmanager
    def of_token(self, accessor_id: str) -> Iterator[None]:
        """Around one signature; "" for whoever brings none. Raises: RateLimitReached."""
        with _counted(self.by_token, accessor_id):
            yield

    @contextmanager
    def of_identity(self, spiffe_id: str) -> Iterator[None]:
        """Around one signature. Raises: RateLimitReached."""
        with _counted(self.by_identity, spiffe_id):
            yield


@contextmanager
def _counted(limit: KeyedLimit, key: str) -> Iterator[None]:
    """Who has to come again has not had one: the limits of all would use up those of each."""
    if limit.is_off or not key:
        yield
        return
    limit.take(key)
    try:
        yield
    except _COME_AGAIN:
        limit.give_back(key)
        raise


def quotas_of(per_token: float, per_identity: float, monotonic: Callable[[], float], metrics: Metrics) -> Quotas:
    return Quotas(
        KeyedLimit(per_token, "certificates for one token", monotonic, metrics.limited.labels("token").inc),
        KeyedLimit(per_identity, "certificates of one SPIFFE ID", monotonic, metrics.limited.labels("identity").inc),
    )
