"""Rotation as the state machine sees it: phases, what may not happen beside it, and what each end leaves behind."""

from dataclasses import replace
from typing import Any

import pytest

from fsm.apply import apply
from fsm.ca import AbortRotation, AdvanceRotation, BeginRotation, FinishRotation, RotationPhase, SetConfig, SetRoots
from fsm.commands import Command, Rejected, RestoreCA
from fsm.duties import Duty, DutyPolicy, next_duty, prunable
from fsm.leaves import RecordLeaves
from fsm.state import State
from tests.kit import samples
from tests.kit.samples import DAY, NOW, applied, config, outcome, provider_state, ready, root, rotation

POLICY = DutyPolicy(keep_expired_seconds=DAY)


def begun(**changes: Any) -> State:
    state = ready()
    return applied(state, BeginRotation(state.ca_index, rotation(**changes), provider_state("p2")))


def advanced(state: State, phase: RotationPhase, **changes: Any) -> State:
    assert state.rotation is not None
    step = replace(
        state.rotation, phase=phase, root=root("r2", is_active=False, provider_id="p2"), phase_since=NOW, **changes
    )
    return applied(state, AdvanceRotation(state.ca_index, step, provider_state("p2")))


def published(**changes: Any) -> State:
    state = advanced(begun(is_staged=True), RotationPhase.PUBLISH)
    assert state.rotation is not None
    step = replace(state.rotation, phase=RotationPhase.WAIT, wait_seconds=60, **changes)
    roots = (*state.roots, root("r2", is_active=False, provider_id="p2"))
    return applied(state, AdvanceRotation(state.ca_index, step, provider_state("p2"), roots))


def finish(state: State) -> FinishRotation:
    old = replace(root("r1", is_active=False), rotated_out_at=NOW, prune_at=NOW + DAY)
    new = root("r2", intermediates=(samples.intermediate("r2-key", "r1-key"),), provider_id="p2")
    providers = (provider_state("p1"), provider_state("p2"))
    return FinishRotation(state.ca_index, (old, new), config("p2"), providers, outcome())


def refused(state: State, command: Command, code: str) -> None:
    after, result = apply(state, command)
    assert isinstance(result, Rejected), result
    assert result.code == code
    assert after is state


def test_rotation_replaces_root_config_and_provider_in_one_command() -> None:
    state = advanced(begun(), RotationPhase.ACTIVATE)
    after = applied(state, finish(state))
    assert after.active_root is not None
    assert after.active_root.root_id == "r2"
    assert after.config is not None
    assert after.config.provider_id == "p2"
    assert (after.config.modify_index, after.roots_index) == (after.index, after.index)
    assert after.config.create_index == state.config.create_index if state.config else False
    assert after.rotation is None
    assert after.last_rotation == outcome()
    assert [record.provider_id for record in after.providers] == ["p1", "p2"]


def test_until_it_is_finished_nothing_that_clients_see_changes() -> None:
    before = ready()
    state = advanced(begun(), RotationPhase.ACTIVATE)
    assert (state.roots, state.config, state.roots_index) == (before.roots, before.config, before.roots_index)
    assert state.roots_watch_index == before.roots_watch_index


def test_abort_leaves_everything_as_it_was() -> None:
    before = ready()
    for state in (begun(), advanced(begun(), RotationPhase.CROSS_SIGN)):
        after = applied(state, AbortRotation(state.ca_index, outcome(root_id="", reason="why")))
        assert (after.roots, after.config, after.providers) == (before.roots, before.config, before.providers)
        assert after.rotation is None
        assert after.last_rotation == outcome(root_id="", reason="why")


def test_abort_of_a_published_root_takes_it_back() -> None:
    state = published()
    assert [root.root_id for root in state.roots] == ["r1", "r2"]
    after = applied(state, AbortRotation(state.ca_index, outcome(root_id="")))
    assert [root.root_id for root in after.roots] == ["r1"]
    assert after.roots_index == after.index


def test_publication_says_which_index_clients_must_have_seen() -> None:
    state = published()
    assert state.rotation is not None
    assert state.rotation.published_index == state.roots_index == state.index


def test_nothing_else_of_the_ca_changes_meanwhile() -> None:
    state = begun()
    refused(state, BeginRotation(state.ca_index, rotation(), provider_state("p3")), "rotation_under_way")
    refused(state, SetConfig(state.ca_index, config(), provider_state()), "rotation_under_way")
    refused(state, SetRoots(state.ca_index, state.roots, state.providers), "rotation_under_way")
    refused(state, samples.set_roots(state, root("r9")), "rotation_under_way")


def test_leaves_are_signed_meanwhile() -> None:
    applied(begun(), RecordLeaves(samples.ISSUER, (samples.record(1),)))


def test_a_step_made_from_an_older_state_is_refused() -> None:
    state = begun()
    step = AdvanceRotation(state.ca_index - 1, rotation(RotationPhase.CROSS_SIGN), provider_state("p2"))
    refused(state, step, "stale_index")


def test_a_step_of_another_rotation_is_refused() -> None:
    state = begun()
    other = rotation(RotationPhase.CROSS_SIGN, rotation_id="other")
    refused(state, AdvanceRotation(state.ca_index, other, provider_state("p2")), "no_rotation")
    refused(state, AbortRotation(state.ca_index, outcome(rotation_id="other")), "no_rotation")
    refused(state, replace(finish(state), outcome=outcome(rotation_id="other")), "no_rotation")


def test_rotation_begins_with_a_root_and_a_new_provider_only() -> None:
    bare = samples.configured()
    refused(bare, BeginRotation(bare.ca_index, rotation(), provider_state("p2")), "not_initialised")
    state = ready()
    same = rotation(config=config("p1"))
    refused(state, BeginRotation(state.ca_index, same, provider_state("p1")), "provider_exists")


def test_phases_and_roots_of_a_rotation_belong_together() -> None:
    state = begun()
    refused(
        state,
        AdvanceRotation(state.ca_index, rotation(RotationPhase.CROSS_SIGN, root=None), provider_state("p2")),
        "invariant",
    )


def test_finishing_with_two_active_roots_or_none_is_refused() -> None:
    state = advanced(begun(), RotationPhase.ACTIVATE)
    command = finish(state)
    old, new = command.roots
    refused(state, replace(command, roots=(replace(old, is_active=True, rotated_out_at=0), new)), "invariant")
    refused(state, replace(command, roots=(old, replace(new, is_active=False))), "invariant")
    refused(state, replace(command, roots=(old, replace(new, rotated_out_at=NOW))), "invariant")
    refused(state, replace(command, providers=(provider_state("p1"),)), "invariant")


def test_the_largest_ttl_while_active_is_remembered() -> None:
    state = ready()
    for ttl, largest in ((DAY, DAY), (9 * DAY, 9 * DAY), (DAY, 9 * DAY)):
        changed = config(leaf_ttl_seconds=ttl)
        roots_index = state.roots_index
        state = applied(state, SetConfig(state.ca_index, changed, provider_state()))
        assert state.active_root is not None
        assert state.active_root.leaf_ttl_max_seconds == largest
        assert state.roots_index == roots_index


@pytest.mark.parametrize(
    ("phase", "duty"),
    [
        (RotationPhase.CROSS_SIGN, Duty.ROTATE_CROSS_SIGN),
        (RotationPhase.PUBLISH, Duty.ROTATE_PUBLISH),
        (RotationPhase.ACTIVATE, Duty.ROTATE_ACTIVATE),
    ],
)
def test_every_phase_is_a_duty(phase: RotationPhase, duty: Duty) -> None:
    assert next_duty(begun(), NOW, POLICY) is Duty.ROTATE_GENERATE
    assert next_duty(advanced(begun(), phase), NOW, POLICY) is duty


def test_published_root_is_activated_when_the_wait_is_over_unless_paused() -> None:
    state = replace(published(), tidied_before=NOW)
    assert next_duty(state, NOW + 59, POLICY) is None
    assert next_duty(state, NOW + 60, POLICY) is Duty.ROTATE_ACTIVATE
    assert next_duty(replace(published(is_paused=True), tidied_before=NOW), NOW + 600, POLICY) is None


def test_roots_are_pruned_when_their_retention_is_over_and_not_during_a_rotation() -> None:
    state = advanced(begun(), RotationPhase.ACTIVATE)
    state = replace(applied(state, finish(state)), tidied_before=NOW + DAY)
    assert next_duty(state, NOW + DAY - 1, POLICY) is None
    assert next_duty(state, NOW + DAY, POLICY) is Duty.PRUNE_ROOTS
    assert [root.root_id for root in prunable(state, NOW + DAY)] == ["r1"]
    again = rotation(config=config("p3"), rotation_id="rotation-3")
    under_way = applied(state, BeginRotation(state.ca_index, again, provider_state("p3")))
    assert next_duty(under_way, NOW + DAY, POLICY) is Duty.ROTATE_GENERATE


# -- restore


def test_restored_ca_takes_the_place_of_the_present_one_and_indexes_go_on() -> None:
    saved = published()
    state = applied(ready(), RecordLeaves(samples.ISSUER, (samples.record(1), samples.record(2))))
    other = replace(state, config=replace(config(), cluster_id=samples.OTHER_CLUSTER_ID))
    after = applied(other, RestoreCA(other.ca_index, saved))
    index = other.index + 1
    assert (after.index, after.ca_index, after.roots_index) == (index, index, index)
    assert after.leaf_index == other.leaf_index
    assert after.trust_domain == saved.trust_domain
    assert [root.root_id for root in after.roots] == [root.root_id for root in saved.roots]
    assert {root.modify_index for root in after.roots} == {index}
    assert after.config is not None
    assert (after.config.create_index, after.config.modify_index) == (index, index)
    assert after.rotation == saved.rotation
    assert after.seal == saved.seal


def test_what_holds_no_ca_or_none_that_can_be_is_not_restored() -> None:
    state = ready()
    refused(state, RestoreCA(state.ca_index, State()), "not_initialised")
    refused(state, RestoreCA(state.ca_index - 1, state), "stale_index")
    refused(state, RestoreCA(state.ca_index, replace(state, providers=())), "invariant")
