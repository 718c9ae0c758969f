"""What the leader should do next: from the state, the time, and what the leader knows of its signing certificate
(`Renewal`).

Level-triggered: a duty is found again as long as the state asks for it, so a crash anywhere is repaired by the next
leader's first look, and no progress lives in a process.
"""

import itertools
import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from fsm.acl import MAX_DELETED
from fsm.ca import CARoot, Intermediate, Rotation, RotationPhase
from fsm.state import State

TIDY_INTERVAL_SECONDS: Final = 3600
AUTO_ROTATE_AGAIN_SECONDS: Final = 3600  # after a rotation that was given up


class Duty(Enum):
    """Which is done first is decided in `next_duty`."""

    INIT_SEAL = auto()  # make and wrap the data key
    INIT_ACL = auto()  # draw the key of tokens; make the policies and the token that every cluster has
    INIT_CONFIG = auto()  # choose the trust domain; take the first configuration from the node's file
    PREPARE_ROOT = auto()  # have the provider make its key; record the intent
    GENERATE_ROOT = auto()  # have the provider sign the root; verify it; commit roots and configuration
    ROTATE_GENERATE = auto()  # have the new provider make its root
    ROTATE_CROSS_SIGN = auto()  # have the old root sign it; verify every chain
    ROTATE_PUBLISH = auto()  # staged: let clients learn the new root first
    ROTATE_ACTIVATE = auto()  # sign with the new root
    ROTATE_BEGIN = auto()  # the root nears its end, and the configuration asks for a new one by itself
    PRUNE_ROOTS = auto()  # stop trusting roots whose retention is over
    RENEW_SIGNING = auto()  # have the provider make another certificate that signs leaves, below the same root
    REAP_TOKENS = auto()  # drop tokens that have expired
    TIDY_LEDGER = auto()  # drop long expired records


@dataclass(frozen=True, slots=True)
class DutyPolicy:
    """What operators may set about duties."""

    keep_expired_seconds: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """What the leader knows about the certificate that signs leaves, beyond the state."""

    is_wanted: bool = False  # its key is lost, or the configuration asks for it to be elsewhere
    is_put_off: bool = False  # it has failed a moment ago: other duties need not wait for it
    #: Every server knows what access control puts into the log.
    knows_acl: bool = False


NOTHING_KNOWN: Final = Renewal()


def next_duty(state: State, now: int, policy: DutyPolicy, renewal: Renewal = NOTHING_KNOWN) -> Duty | None:
    """The most urgent duty at `now` (Unix seconds), or None."""
    if state.seal is None:
        return Duty.INIT_SEAL
    if state.acl.key is None and renewal.knows_acl:
        return Duty.INIT_ACL
    if state.config is None:
        return Duty.INIT_CONFIG
    if state.active_root is None:
        provider = state.provider_state(state.config.provider_id)
        return Duty.GENERATE_ROOT if provider is not None and provider.is_prepared else Duty.PREPARE_ROOT
    if state.rotation is not None and (duty := _rotation_duty(state.rotation, now)) is not None:
        return duty
    if state.rotation is None and prunable(state, now):
        return Duty.PRUNE_ROOTS
    if not renewal.is_put_off and (renewal.is_wanted or now >= renewal_time(state)):
        return Duty.RENEW_SIGNING
    if state.rotation is None and now >= auto_rotation_time(state):
        return Duty.ROTATE_BEGIN
    if expired_tokens(state, now):
        return Duty.REAP_TOKENS
    if tidy_time(now, policy) - state.tidied_before >= TIDY_INTERVAL_SECONDS:
        return Duty.TIDY_LEDGER
    return None


def _rotation_duty(rotation: Rotation, now: int) -> Duty | None:
    match rotation.phase:
        case RotationPhase.GENERATE:
            return Duty.ROTATE_GENERATE
        case RotationPhase.CROSS_SIGN:
            return Duty.ROTATE_CROSS_SIGN
        case RotationPhase.PUBLISH:
            return Duty.ROTATE_PUBLISH
        case RotationPhase.ACTIVATE:
            return Duty.ROTATE_ACTIVATE
        case RotationPhase.WAIT:
            is_over = now >= rotation.phase_since + rotation.wait_seconds
            return Duty.ROTATE_ACTIVATE if is_over and not rotation.is_paused else None


def auto_rotation_time(state: State) -> float:
    """When the active root is to be rotated without anybody asking; infinite if never."""
    config, root = state.config, state.active_root
    if config is None or root is None or not config.auto_rotate_percent:
        return math.inf
    due = root.not_after - (root.not_after - root.not_before) * config.auto_rotate_percent / 100
    last = state.last_rotation
    return due if last is None or last.root_id else max(due, last.ended_at + AUTO_ROTATE_AGAIN_SECONDS)


def renewal_time(state: State) -> float:
    """When half of the life of the certificate that signs leaves is over; infinite if another would not live longer."""
    root = state.active_root
    signing = root.signing_cert if root is not None else None
    if root is None or signing is None:
        return math.inf
    above: CARoot | Intermediate = root
    if signing.issuer_key_id != root.key_id:
        above = next((found for found in root.intermediates if found.key_id == signing.issuer_key_id), root)
    return (signing.made_at + signing.not_after + 1) // 2 if signing.not_after < above.not_after else math.inf


def next_time(state: State, renewal: Renewal = NOTHING_KNOWN) -> float:
    """The next moment at which time alone brings a duty about the CA; infinite if there is none."""
    rotation = state.rotation
    renews_at = math.inf if renewal.is_put_off else renewal_time(state)
    expire_at = min((token.expires_at for token in state.acl.tokens if token.expires_at), default=math.inf)
    if rotation is not None:
        is_waiting = rotation.phase is RotationPhase.WAIT and not rotation.is_paused
        ends_at = rotation.phase_since + rotation.wait_seconds if is_waiting else math.inf
        return min(renews_at, expire_at, ends_at)
    prune_at = [root.prune_at for root in state.roots if root.is_retired]
    return min([renews_at, expire_at, auto_rotation_time(state), *prune_at])


def expired_tokens(state: State, now: int) -> tuple[str, ...]:
    """Accessor IDs, as many as one command drops. They are refused already: this only makes room."""
    expired = (token.accessor_id for token in state.acl.tokens if token.is_expired(now))
    return tuple(itertools.islice(expired, MAX_DELETED))


def prunable(state: State, now: int) -> tuple[CARoot, ...]:
    """Retired roots whose retention is over."""
    return tuple(root for root in state.roots if root.is_retired and now >= root.prune_at)


def tidy_time(now: int, policy: DutyPolicy) -> int:
    """Records of certificates that expired before this time are no longer kept."""
    return now - policy.keep_expired_seconds
