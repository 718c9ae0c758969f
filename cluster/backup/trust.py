"""What restoring a snapshot would do to whom the mesh trusts, and whether an operator must say that it is meant.

A snapshot whose MAC is right was saved by a cluster with this seal key, so its roots were trusted once. That is enough
on new machines, which trust nothing yet that anybody uses. On the cluster itself it is not: a root which is no longer
listed was taken away, perhaps because its key is in the wrong hands, and an old backup must not bring it back
unnoticed.

Trust that ends needs nobody's word, but is named afterwards: a restore always takes the place of another CA, on new
machines of the one that they started with.

Who may do what is never taken from a file that no seal key vouches for, also by force: a root that such a file adds is
named, and an operator can tell whose it is, but nobody can tell whose a token is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cluster.base.errors import Refused
from fsm.ca import CARoot
from fsm.ca_rules import brings_access
from fsm.state import State

_FORCE: Final = "; if you know where it comes from, restore it with ?force (quorumca snapshot restore -force)"
#: Not simply "leaves below it": where the root was cross-signed, they lead to the one before it, too.
_NO_MORE: Final = "is not trusted any more: leaves that lead to no other root are refused"


@dataclass(frozen=True, slots=True)
class TrustChange:
    """Of a snapshot that is sound, against the state that it would replace."""

    is_authentic: bool
    is_same_trust_domain: bool
    roots: tuple[CARoot, ...]  # of the snapshot, and not listed now
    removed: tuple[CARoot, ...]  # listed now, and not by the snapshot
    trust_domain: str  # of the snapshot
    #: How many the snapshot has, where its access control takes the place of this cluster's; None: what is there stays.
    tokens: int | None

    @property
    def refusal(self) -> str | None:
        """Why this needs an operator's word; None when it does not."""
        if not self.is_authentic:
            return (
                "the snapshot is not authenticated: it has no MAC, because a release before MACs has saved it or"
                f" because somebody has changed it. It {self._roots()}; {self._access()}{_FORCE}"
            )
        if self.is_same_trust_domain and self.roots:
            return (
                f"the snapshot brings back trust that was taken away here: it {self._roots()}; {self._access()}{_FORCE}"
            )
        return None

    def require(self, *, is_forced: bool) -> None:
        """Raises: Refused."""
        if self.refusal is not None and not is_forced:
            raise Refused(self.refusal)

    def notes(self) -> tuple[str, ...]:
        """What is to be said when it was done."""
        is_same = self.is_same_trust_domain
        verb = "is trusted again" if is_same else "is trusted from now on"
        warning = () if self.is_authentic else ("The snapshot is not authenticated: it has no MAC",)
        return (
            *warning,
            *(f"Root {_shown(root)} {verb}" for root in self.roots),
            *(f"Root {_shown(root)} {_NO_MORE}" for root in self.removed),
            f"The trust domain is {'still' if is_same else 'now'} {self.trust_domain}: {self._access()}",
        )

    def _access(self) -> str:
        if self.tokens is None:
            return "tokens, policies, roles and auth methods stay as they are here"
        return (
            f"tokens, policies, roles and auth methods are from now on those of the snapshot (tokens: {self.tokens});"
            " the token that this was done with is unknown unless it is one of them"
        )

    def _roots(self) -> str:
        if not self.roots:
            return "adds no root to those that are listed"
        return f"adds {', '.join(map(_shown, self.roots))} to the roots that are listed"


def trust_change(now: State, saved: State, *, is_authentic: bool) -> TrustChange:
    # By the certificate itself: two roots may be given the same id, and then one would hide behind the other.
    listed = {root.root_pem for root in now.roots}
    kept = {root.root_pem for root in saved.roots}
    return TrustChange(
        is_authentic=is_authentic,
        is_same_trust_domain=bool(now.roots) and now.trust_domain == saved.trust_domain,
        roots=tuple(root for root in _trusted(saved) if root.root_pem not in listed),
        # A root that the snapshot's rotation has not published yet is not listed at once: it counts as removed.
        removed=tuple(root for root in now.roots if root.root_pem not in kept),
        trust_domain=saved.trust_domain,
        tokens=len(saved.acl.tokens) if is_authentic and brings_access(now, saved) else None,
    )


def _trusted(saved: State) -> Iterator[CARoot]:
    """Now, and as soon as a rotation that is under way goes on: its root may not be published yet."""
    yield from saved.roots
    root = saved.rotation.root if saved.rotation is not None else None
    if root is not None and root.root_pem not in {listed.root_pem for listed in saved.roots}:
        yield root


def _shown(root: CARoot) -> str:
    """Names are whatever a snapshot says: on one line, and bounded."""
    return f"{ascii(root.root_id)[1:-1]:.80} ({ascii(root.name)[1:-1]:.80})"
