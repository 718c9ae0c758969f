"""Another certificate that signs leaves below the same root: when it is due, and what the state machine lets happen."""

from dataclasses import replace

import msgpack
import pytest

from fsm.apply import apply
from fsm.ca import BeginRotation, CARoot, Intermediate, RenewSigning, RotationPhase
from fsm.codec import dump_state, load_state
from fsm.commands import Rejected
from fsm.duties import Duty, DutyPolicy, Renewal, next_duty, next_time, renewal_time
from fsm.state import State
from tests.kit.samples import DAY, NOW, applied, provider_state, ready, root, rotation

POLICY = DutyPolicy(keep_expired_seconds=10**10)


def leaf_signer(key_id: str = "int-key", above: str = "r1-key", days: int = 100) -> Intermediate:
    return Intermediate(f"cert of {key_id}", key_id, above, NOW + days * DAY, NOW)


def with_signer(*intermediates: Intermediate, signing_key_id: str = "int-key") -> CARoot:
    return root("r1", intermediates=intermediates, signing_key_id=signing_key_id)


def renewal(state: State, **changes: object) -> RenewSigning:
    new = leaf_signer("new-key", days=200)
    command = RenewSigning(state.ca_index, "r1", "new-key", (new,), provider_state(sealed=b"renewed"))
    return replace(command, **changes)  # type: ignore[arg-type]


def duty(state: State, now: int, **known: bool) -> Duty | None:
    return next_duty(state, now, POLICY, Renewal(**known))


def test_signing_certificate_is_renewed_at_half_of_its_life() -> None:
    state = ready(with_signer(leaf_signer()))
    assert next_time(state) == NOW + 50 * DAY
    assert duty(state, NOW + 50 * DAY - 1) is None
    assert duty(state, NOW + 50 * DAY) is Duty.RENEW_SIGNING


def test_root_that_signs_itself_is_never_renewed() -> None:
    assert renewal_time(ready()) == float("inf")


def test_cross_signed_certificate_is_none_that_signs_leaves() -> None:
    cross = Intermediate("cross", "r1-key", "r0-key", NOW + DAY, NOW)
    state = ready(with_signer(leaf_signer(), cross), root("r0", is_active=False))
    assert renewal_time(state) == NOW + 50 * DAY


@pytest.mark.parametrize("above", ["r1-key", "mounted-key"])
def test_no_other_is_made_that_would_end_at_the_same_time(above: str) -> None:
    """Else the end of a root would be one renewal after the other, each half as far from it."""
    end = 3650 if above == "r1-key" else 100
    mounted = leaf_signer("mounted-key", days=100)
    state = ready(with_signer(leaf_signer(above=above, days=end), mounted))
    assert renewal_time(state) == float("inf")
    assert duty(state, NOW + DAY, is_wanted=True) is Duty.RENEW_SIGNING


def test_certificate_of_an_older_release_is_renewed_at_once() -> None:
    """It is not known how old it is."""
    state = ready(with_signer(replace(leaf_signer(), made_at=0)))
    assert duty(state, NOW) is Duty.RENEW_SIGNING


def test_lost_key_is_renewed_at_once_and_a_failure_lets_other_duties_pass() -> None:
    state = ready(with_signer(leaf_signer()))
    assert duty(state, NOW, is_wanted=True) is Duty.RENEW_SIGNING
    assert duty(state, NOW, is_wanted=True, is_put_off=True) is None
    late = NOW + 60 * DAY
    assert next_duty(state, late, DutyPolicy(0), Renewal(is_put_off=True)) is Duty.TIDY_LEDGER
    assert next_time(state, Renewal(is_put_off=True)) > late


def test_renewal_changes_the_active_root_and_its_provider_in_one() -> None:
    state = ready(with_signer(leaf_signer()), root("r2", is_active=False))
    after = applied(state, renewal(state))
    assert after.active_root is not None
    assert after.active_root.signing_key_id == "new-key"
    assert after.active_root.intermediates == (leaf_signer("new-key", days=200),)
    assert [provider.sealed for provider in after.providers] == [b"renewed"]
    assert after.roots_index == after.ca_index == after.index == state.index + 1
    assert after.config == state.config
    assert duty(after, NOW + 50 * DAY) is None


def test_renewal_does_not_wait_for_a_rotation() -> None:
    state = ready(with_signer(leaf_signer()))
    state = applied(state, BeginRotation(state.ca_index, rotation(), provider_state("p2")))
    assert state.rotation is not None
    waiting = replace(
        state,
        rotation=replace(
            state.rotation, phase=RotationPhase.WAIT, is_paused=True, root=root("r2", is_active=False), wait_seconds=60
        ),
    )
    assert duty(waiting, NOW + 50 * DAY) is Duty.RENEW_SIGNING
    assert next_time(waiting) == NOW + 50 * DAY
    after = applied(state, renewal(state))
    assert after.rotation == state.rotation
    assert {provider.provider_id for provider in after.providers} == {"p1", "p2"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"expected_index": 0}, "stale_index"),
        ({"root_id": "r2"}, "not_active"),
        ({"provider_state": provider_state("p9")}, "no_provider"),
        ({"signing_key_id": "other-key"}, "invariant"),
        ({"intermediates": (leaf_signer("new-key", above="unknown"),)}, "invariant"),
    ],
)
def test_renewal_that_does_not_fit_is_refused(changes: dict[str, object], code: str) -> None:
    state = ready(with_signer(leaf_signer()), root("r2", is_active=False))
    after, result = apply(state, renewal(state, **changes))
    assert isinstance(result, Rejected)
    assert (result.code, after) == (code, state)


def test_added_field_is_written_once_it_says_something() -> None:
    """Else nodes of the release before could not read what concerns them."""
    old, new = replace(leaf_signer(), made_at=0), leaf_signer()
    written = [msgpack.unpackb(dump_state(ready(with_signer(one))))[1][6][0][9][0] for one in (old, new)]
    assert [len(fields) for fields in written] == [4, 5]
    for one in (old, new):
        state = ready(with_signer(one))
        assert load_state(dump_state(state)) == state
