"""What the leader should do next, from the state alone.

Level-triggered: a duty is found again as long as the state asks for it, so a crash anywhere is repaired by the next
leader's first look, and no progress lives in a process.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from fsm.state import State

TIDY_INTERVAL_SECONDS: Final = 3600


class Duty(Enum):
    """In the order in which a new CA meets them."""

    INIT_SEAL = auto()  # make and wrap the data key
    INIT_CONFIG = auto()  # choose the trust domain; take the first configuration from the node's file
    PREPARE_ROOT = auto()  # have the provider make its key; record the intent
    GENERATE_ROOT = auto()  # have the provider sign the root; verify it; commit roots and configuration
    TIDY_LEDGER = auto()  # drop long expired records


@dataclass(frozen=True, slots=True)
class DutyPolicy:
    """What operators may set about duties."""

    keep_expired_seconds: int


def next_duty(state: State, now: int, policy: DutyPolicy) -> Duty | None:
    """The most urgent duty at `now` (Unix seconds), or None."""
    if state.seal is None:
        return Duty.INIT_SEAL
    if state.config is None:
        return Duty.INIT_CONFIG
    if state.active_root is None:
        provider = state.provider_state(state.config.provider_id)
        return Duty.GENERATE_ROOT if provider is not None and provider.is_prepared else Duty.PREPARE_ROOT
    if tidy_time(now, policy) - state.tidied_before >= TIDY_INTERVAL_SECONDS:
        return Duty.TIDY_LEDGER
    return None


def tidy_time(now: int, policy: DutyPolicy) -> int:
    """Records of certificates that expired before this time are no longer kept."""
    return now - policy.keep_expired_seconds
