"""Every handler: what it changes, when it refuses, and that a refusal changes nothing."""

from dataclasses import replace

import pytest

from fsm.apply import STALE_INDEX, apply
from fsm.ca import (
    CARoot,
    InitConfig,
    InitSeal,
    ProviderState,
    Reseal,
    SealKey,
    SetConfig,
    SetProviderState,
    SetRootsConfig,
)
from fsm.ca_rules import broken_invariant
from fsm.commands import Applied, Command, Rejected
from fsm.leaves import RecordLeaves, TidyLedger
from fsm.state import State
from tests.kit import samples
from tests.kit.samples import applied, config, intermediate, provider_state, root, set_roots


def assert_refused(state: State, command: Command, code: str, text: str = "") -> None:
    """Refused, and the very same state is still there."""
    before = replace(state)
    after, result = apply(state, command)
    assert isinstance(result, Rejected)
    assert result.code == code
    assert text in result.detail
    assert after is state
    assert state == before


# -- seal and first configuration


def test_first_seal_is_kept() -> None:
    state, result = apply(State(), InitSeal(samples.SEAL))
    assert result == Applied(1)
    assert state == State(index=1, ca_index=1, seal=samples.SEAL)


def test_second_seal_is_refused() -> None:
    state = applied(State(), InitSeal(samples.SEAL))
    assert_refused(state, InitSeal(replace(samples.SEAL, wrapped_key=b"another")), "already_initialised")


def test_first_configuration_is_stamped_with_its_index() -> None:
    state = applied(State(), InitSeal(samples.SEAL))
    after = applied(state, InitConfig(config(create_index=77, modify_index=88), provider_state(modify_index=99)))
    assert after.config == config(create_index=2, modify_index=2)
    assert after.providers == (provider_state(modify_index=2),)
    assert (after.index, after.ca_index, after.roots_index) == (2, 2, 0)
    assert after.trust_domain == f"{samples.CLUSTER_ID}.consul"


def test_second_first_configuration_is_refused() -> None:
    """Two leaders may both try to initialise; the first one counts."""
    second = InitConfig(config(cluster_id=samples.OTHER_CLUSTER_ID), provider_state())
    assert_refused(samples.configured(), second, "already_initialised")


def test_first_configuration_without_its_provider_state_is_refused() -> None:
    assert_refused(State(), InitConfig(config("p1"), provider_state("p2")), "invariant", "p1")


# -- provider state before the first root


def test_provider_state_is_replaced_before_the_first_root() -> None:
    state = samples.configured()
    prepared = provider_state(sealed=b"key and intent", modify_index=55)
    after = applied(state, SetProviderState(state.ca_index, prepared))
    assert after.providers == (replace(prepared, modify_index=state.index + 1),)
    assert after.ca_index == after.index == state.index + 1


def test_provider_state_of_another_id_is_added() -> None:
    state = samples.configured()
    after = applied(state, SetProviderState(state.ca_index, provider_state("p2")))
    assert [record.provider_id for record in after.providers] == ["p1", "p2"]


def test_provider_state_is_refused_once_there_is_a_root() -> None:
    state = samples.ready()
    assert_refused(state, SetProviderState(state.ca_index, provider_state()), "already_initialised")


# -- roots and configuration


def test_roots_and_configuration_change_as_one() -> None:
    state = samples.configured()
    new_config = config("p2", config_json='{"new":1}', create_index=70, modify_index=71)
    after = applied(
        state,
        SetRootsConfig(
            state.ca_index, (root("r1", create_index=70, modify_index=71),), new_config, (provider_state("p2"),)
        ),
    )
    index = state.index + 1
    assert after == replace(
        state,
        index=index,
        ca_index=index,
        roots_index=index,
        roots=(root("r1", create_index=index, modify_index=index),),
        config=replace(new_config, create_index=2, modify_index=index),
        providers=(provider_state("p2", modify_index=index),),
    )


def test_known_root_keeps_its_create_index_and_roots_are_listed_in_id_order() -> None:
    state = samples.ready()
    rotated = set_roots(state, root("r2"), root("r1", is_active=False), root("a0", is_active=False))
    after = applied(state, rotated)
    assert [(found.root_id, found.create_index, found.modify_index) for found in after.roots] == [
        ("a0", 4, 4),
        ("r1", 3, 4),
        ("r2", 4, 4),
    ]
    assert after.active_root is not None
    assert after.active_root.root_id == "r2"


@pytest.mark.parametrize(
    ("roots", "text"),
    [
        ((root("r1"), root("r2")), "exactly one active"),
        ((root("r1", is_active=False),), "exactly one active"),
        ((root("r1"), root("r1", is_active=False)), "unique"),
        ((root("r1"), root("r1")), "unique"),
        ((root(""),), "not empty"),
        ((root("r1", intermediates=(intermediate("i", "stranger"),)),), "does not lead to a listed root"),
        ((root("r1", intermediates=(intermediate("i", "i"),)),), "does not lead to a listed root"),
        (
            (root("r1", intermediates=(intermediate("a", "b"), intermediate("b", "a"))),),
            "does not lead to a listed root",
        ),
        (
            # The link is in the list of another root, which does not go along with this root's leaves.
            (
                root("r1", intermediates=(intermediate("i", "r1-key"),)),
                root("r2", is_active=False, intermediates=(intermediate("j", "i"),)),
            ),
            "does not lead to a listed root",
        ),
        ((root("r1", signing_key_id="nobody"),), "has no certificate"),
        (
            (
                root("r1", signing_key_id="i"),
                root("r2", is_active=False, intermediates=(intermediate("i", "r2-key"),)),
            ),
            "has no certificate",
        ),
    ],
)
def test_impossible_roots_are_refused(roots: tuple[CARoot, ...], text: str) -> None:
    for state in (samples.configured(), samples.ready()):
        assert_refused(state, set_roots(state, *roots), "invariant", text)


@pytest.mark.parametrize(
    "roots",
    [
        (root("r1", intermediates=(intermediate("i", "r1-key"),), signing_key_id="i"),),
        # In any order, and over several links.
        (root("r1", intermediates=(intermediate("b", "a"), intermediate("a", "r1-key")), signing_key_id="b"),),
        # Cross-signed: the new root's key under the old root.
        (root("r1", is_active=False), root("r2", intermediates=(intermediate("r2-key", "r1-key"),))),
    ],
    ids=["one link", "two links", "cross-signed"],
)
def test_chains_that_end_in_a_listed_root_are_accepted(roots: tuple[CARoot, ...]) -> None:
    state = samples.configured()
    assert len(applied(state, set_roots(state, *roots)).roots) == len(roots)


def test_roots_with_a_configuration_of_a_missing_provider_are_refused() -> None:
    state = samples.configured()
    assert_refused(state, set_roots(state, root("r1"), config=config("p9")), "invariant", "p9")


def test_two_states_of_one_provider_are_refused() -> None:
    state = samples.configured()
    twice = set_roots(state, root("r1"), providers=(provider_state(), provider_state(sealed=b"other")))
    assert_refused(state, twice, "invariant", "unique")


def test_trust_domain_is_fixed_once_there_is_a_root() -> None:
    state = samples.ready()
    other = config(cluster_id=samples.OTHER_CLUSTER_ID)
    assert_refused(state, set_roots(state, root("r1"), config=other), "invariant", "trust domain")
    assert_refused(state, SetConfig(state.ca_index, other, provider_state()), "invariant", "trust domain")


def test_all_roots_may_not_be_taken_away_from_a_new_domain() -> None:
    """Without roots in one step, another domain in the next: each step is checked against what was before it."""
    state = samples.ready()
    without = applied(state, set_roots(state))
    assert without.roots == ()
    assert without.trust_domain == state.trust_domain


# -- configuration alone


def test_configuration_changes_and_roots_stay() -> None:
    state = samples.ready()
    after = applied(state, SetConfig(state.ca_index, config(config_json='{"new":1}'), provider_state(sealed=b"new")))
    index = state.index + 1
    ttl = config().leaf_ttl_seconds  # remembered for the retention of the root, later
    assert after == replace(
        state,
        roots=tuple(replace(found, leaf_ttl_max_seconds=ttl) for found in state.roots),
        index=index,
        ca_index=index,
        config=config(config_json='{"new":1}', create_index=2, modify_index=index),
        providers=(provider_state(sealed=b"new", modify_index=index),),
    )
    assert after.roots_watch_index == index


def test_configuration_of_another_provider_keeps_the_old_provider_while_roots_hang_on_it() -> None:
    state = samples.ready()
    after = applied(state, SetConfig(state.ca_index, config("p2"), provider_state("p2")))
    assert [record.provider_id for record in after.providers] == ["p1", "p2"]


def test_configuration_of_another_provider_starts_afresh_without_a_root() -> None:
    state = samples.configured()
    after = applied(state, SetConfig(state.ca_index, config("p2"), provider_state("p2")))
    assert [record.provider_id for record in after.providers] == ["p2"]


def test_configuration_before_the_first_one_is_refused() -> None:
    assert_refused(State(), SetConfig(0, config(), provider_state()), "not_initialised")


def test_configuration_without_its_provider_state_is_refused() -> None:
    state = samples.ready()
    assert_refused(state, SetConfig(state.ca_index, config("p9"), provider_state("p2")), "invariant", "p9")


# -- expected_index


@pytest.mark.parametrize("off", [-1, 1, 1000])
def test_command_made_from_another_index_is_refused(off: int) -> None:
    state = samples.ready()
    assert_refused(state, set_roots(state, root("r2"), expected_index=state.ca_index + off), STALE_INDEX)
    assert_refused(state, SetConfig(state.ca_index + off, config(), provider_state()), STALE_INDEX)
    new = samples.configured()
    assert_refused(new, SetProviderState(new.ca_index + off, provider_state()), STALE_INDEX)


def test_issued_leaves_do_not_make_a_rotation_stale() -> None:
    """Otherwise no rotation would ever succeed under load."""
    state = samples.ready()
    rotation = set_roots(state, root("r1", is_active=False), root("r2"))
    busy = applied(state, RecordLeaves(samples.ISSUER, (samples.record(1),)))
    busy = applied(busy, TidyLedger(5))
    assert busy.ca_index == state.ca_index
    assert isinstance(apply(busy, rotation)[1], Applied)


def test_same_command_twice_is_stale_the_second_time() -> None:
    state = samples.ready()
    rotation = set_roots(state, root("r1", is_active=False), root("r2"))
    assert_refused(applied(state, rotation), rotation, STALE_INDEX)


# -- leaves


@pytest.mark.parametrize("count", [1, 2, 7])
def test_n_records_take_n_indexes(count: int) -> None:
    state = samples.ready()
    records = tuple(samples.record(number) for number in range(1, count + 1))
    after, result = apply(state, RecordLeaves(samples.ISSUER, records))
    assert result == Applied(state.index + count)
    assert after == replace(state, index=state.index + count, leaf_index=state.index + count)


def test_records_commute() -> None:
    """They carry no expected_index, so leaves signed at the same time never refuse each other."""
    one, two = (RecordLeaves(samples.ISSUER, (samples.record(number),)) for number in (1, 2))
    assert samples.run(samples.ready(), [one, two])[0] == samples.run(samples.ready(), [two, one])[0]


# -- tidying


def test_tidy_time_never_goes_back() -> None:
    state = samples.ready()
    once = applied(state, TidyLedger(100))
    assert once == replace(state, index=state.index + 1, tidied_before=100)
    assert applied(once, TidyLedger(50)).tidied_before == 100


# -- the whole


def test_every_state_on_the_way_is_sound() -> None:
    state = State()
    for command in samples.COMMANDS.values():
        if isinstance(command, SetProviderState | SetRootsConfig | SetConfig):
            command = replace(command, expected_index=state.ca_index)
        state, _ = apply(state, command)
        assert broken_invariant(state) is None


def test_roots_without_a_configuration_are_broken() -> None:
    assert broken_invariant(replace(State(), roots=(root("r1"),))) is not None


# -- another seal

NEW_SEAL = SealKey("file", "fedcba9876543210", b"", b"another wrapped key")


def sealed_again(state: State) -> tuple[ProviderState, ...]:
    return tuple(replace(record, sealed=b"again " + record.sealed) for record in state.providers)


def test_another_seal_comes_with_everything_that_is_sealed_and_changes_nothing_else() -> None:
    state = samples.full_state()
    after = applied(state, Reseal(state.ca_index, NEW_SEAL, sealed_again(state)))
    index = state.index + 1
    providers = tuple(replace(record, modify_index=index) for record in sealed_again(state))
    assert after == replace(state, index=index, ca_index=index, seal=NEW_SEAL, providers=providers)


def test_seal_is_not_changed_without_all_that_it_opens() -> None:
    """What is left out, or is another provider's, could never be opened again."""
    state = samples.full_state()
    good = sealed_again(state)
    assert len(good) > 1
    for providers in (
        (),
        good[:-1],
        (*good, good[0]),
        good[::-1],
        (replace(good[0], provider_id="other"), *good[1:]),
        (replace(good[0], provider="other"), *good[1:]),
        (replace(good[0], is_prepared=not good[0].is_prepared), *good[1:]),
    ):
        assert_refused(state, Reseal(state.ca_index, NEW_SEAL, providers), "providers_differ")
    assert_refused(state, Reseal(state.ca_index - 1, NEW_SEAL, good), STALE_INDEX)
    assert state.seal is not None
    assert_refused(state, Reseal(state.ca_index, state.seal, good), "same_seal")
    assert_refused(State(), Reseal(0, NEW_SEAL, ()), "not_initialised")
