"""So much a second of each key: of a source, a token, a SPIFFE ID. In bounded memory and constant time, without timers.

Each key has a bucket that holds `burst` and is filled again at `per_second`; what is taken when it is empty is refused,
and told when there will be one. Of a bucket only one number is kept, the moment at which it will be full again (GCRA,
the generic cell rate algorithm: ITU-T I.371, annex A, "virtual scheduling"). Taking one moves that moment by
1/per_second; it may not lie further ahead than a whole bucket takes to fill. So in any T seconds a key gets at most
burst + per_second * T.

At most `keys` buckets are kept, and what was not used for longest is forgotten: whoever comes again then finds a full
bucket. That takes `keys` other ones in between, so that among M takes of all keys one key gets at most `burst` more for
every `keys` of them. Somebody with more addresses than that is not held up by a limit of each address, forgotten or
not: together they may have keys * per_second.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from cluster.base.errors import RateLimitReached

#: Some 200 bytes each.
MAX_KEYS: Final = 16_384
#: A bucket holds what comes in this time: clients come in crowds, at the start of a host or after an outage.
BURST_SECONDS: Final = 10.0
#: Far below what a clock tells apart over a network: whoever waits as long as was said must not find a bucket that
#: lacks the rounding of a number.
_GRAIN_SECONDS: Final = 1e-6


def _nothing() -> None:
    pass


class KeyedLimit:
    """For one event loop. `per_second` 0: no limit."""

    def __init__(
        self,
        per_second: float,
        what: str,
        monotonic: Callable[[], float],
        refused: Callable[[], object] = _nothing,
        *,
        keys: int = MAX_KEYS,
    ) -> None:
        """`what` is limited, for whoever is told: "refused requests of one address". `refused` is called each time that
        somebody is.
        """
        self.per_second = per_second
        self.burst = max(1.0, per_second * BURST_SECONDS)
        self._what = what
        self._monotonic = monotonic
        self._refused = refused
        self._keys = keys
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        """Keys that it remembers."""
        return len(self._full_at)

    @property
    def is_off(self) -> bool:
        return not self.per_second

    def take(self, key: Hashable) -> None:
        """Raises: RateLimitReached, which says how long until there is one; then nothing was taken."""
        if not self.per_second:
            return
        self._full_at[key] = self._full_at_with_one_more(key)
        self._full_at.move_to_end(key)
        if len(self._full_at) > self._keys:
            self._full_at.popitem(last=False)

    def require(self, key: Hashable) -> None:
        """As `take`, and takes nothing."""
        if key in self._full_at:
            self._full_at_with_one_more(key)

    def _full_at_with_one_more(self, key: Hashable) -> float:
        now = self._monotonic()
        full_at = max(now, self._full_at.get(key, now)) + 1 / self.per_second
        wait = full_at - now - self.burst / self.per_second
        if wait > _GRAIN_SECONDS:
            self._refused()
            raise RateLimitReached(
                f"Rate limit reached, try again later: at most {self.per_second:g} {self._what} in a second", wait
            )
        return full_at

    def give_back(self, key: Hashable) -> None:
        """What was taken a moment ago."""
        if key in self._full_at:
            self._full_at[key] -= 1 / self.per_second
