"""What must hold, and whether it did.

A revocation counts once its request was acknowledged, by whichever node it was sent to. From then on, by the clock of
the one client that has sent everything:

* at most one second later no node gives out anything for it: neither to new requests, nor to those that were under way
  (open blocking queries, requests for signatures that waited for the limiter, or in a follower's batch);
* a blocking query that was open has ended by then;
* where a node knew no leader for a while, its second begins when it knows one again: each node is asked every 20 ms,
  and to name a leader that was killed is to know none.

"Given out" is every answer 200 that has arrived, whenever its request was sent. What expires by itself counts as
acknowledged at its ExpirationTime.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.revocation.probes import Seen, What

BOUND_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one round."""

    #: From when a node must be up to date until it gave something for the last time; 0.0: not any more by then.
    longest_seconds: float
    by_what: Mapping[What, float]
    violations: tuple[str, ...]


def judge(seen: Mapping[tuple[What, str], Seen], since: Mapping[str, float]) -> Verdict:
    """`since`: for each node, when the revocation counts there: it was acknowledged, and a leader was known."""
    by_what: dict[What, float] = {}
    violations = []
    for (what, name), found in seen.items():
        late = max(0.0, found.last_given - since[name])
        by_what[what] = max(late, by_what.get(what, 0.0))
        if late > BOUND_SECONDS:
            violations.append(f"{what} at {name}: given {late:.3f} s after it was revoked")
    return Verdict(max(by_what.values(), default=0.0), by_what, tuple(violations))
