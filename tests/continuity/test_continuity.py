"""Rotations under a mesh, as `make continuity` does many of; and that the mesh notices when trust is broken."""

import itertools
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.continuity.campaign import Plan, broken_plan, clocks_plan, run
from tests.continuity.listing import Listing, Root, is_promised
from tests.continuity.places import BUILT_IN, VAULT_A, VAULT_B, VAULT_GOALS, Goal
from tests.continuity.rotations import KINDS, walk
from tests.kit import pki

ROOTS = [Root(str(order), "", order, "", "ec 256") for order in range(4)]


def test_walk_has_every_order_of_kinds_and_repeats_them_evenly() -> None:
    path = [KINDS[0], *itertools.islice(walk(random.Random(1), KINDS), 100)]
    pairs = Counter(itertools.pairwise(path))
    assert pairs == dict.fromkeys(itertools.product(KINDS, KINDS), 4)


@pytest.mark.parametrize(
    ("trusted", "issuer", "is_expected"),
    [
        ([1], 1, True),
        ([1], 3, True),  # cross-signed
        ([3], 1, False),  # the leaf is of before
        ([1, 2, 3], 1, True),
        ([0], 3, False),  # not listed any more
        ([0, 3], 2, False),
    ],
)
def test_promise_is_by_listed_roots_that_did_not_come_after_the_leaf(
    trusted: list[int], issuer: int, *, is_expected: bool
) -> None:
    listing = Listing(7, tuple(ROOTS[1:]), ROOTS[3], "")
    assert is_promised([ROOTS[order] for order in trusted], ROOTS[issuer], listing) is is_expected


@pytest.mark.slow
@pki.needs_openssl
async def test_no_handshake_fails_in_eight_rotations_with_two_leaders_killed(tmp_path: Path) -> None:
    outcome = await run(tmp_path, Plan(rotations=8, kills=2, seed=8))
    tally = outcome.tally
    assert (tally.failures, tally.violations) == ([], [])
    assert len(outcome.rotations) >= 8
    assert outcome.kills == 2
    assert outcome.most_in_one_lifetime > 1
    # It has looked where it matters.
    assert tally.by_cross_signed > 50
    assert all(tally.verifiers[name] > 10 for name in ("PROMPT", "SLOW", "OLDEST", "ACTIVE"))
    assert min(outcome.verified.values()) > 30


def test_nothing_is_promised_across_a_break_of_trust_and_by_roots_that_have_expired() -> None:
    listing = Listing(7, tuple(ROOTS), ROOTS[3], "", breaks=frozenset({1}))
    assert not is_promised(ROOTS[:2], ROOTS[2], listing)
    assert is_promised(ROOTS[:2], ROOTS[1], listing)
    assert is_promised(ROOTS[2:3], ROOTS[3], listing)
    expired = replace(ROOTS[2], not_after=time.time() - 1)
    listing = replace(listing, roots=(*ROOTS[:2], expired, ROOTS[3]))
    assert not is_promised([expired], ROOTS[3], listing)


@pytest.mark.slow
@pki.needs_openssl
async def test_no_promised_handshake_fails_over_broken_trust_and_odd_roots(tmp_path: Path) -> None:
    outcome = await run(tmp_path, broken_plan(seed=3))
    tally = outcome.tally
    assert (tally.failures, tally.violations) == ([], [])
    assert outcome.is_good
    assert tally.by_cross_signed > 50
    assert [rotation.is_forced for rotation in outcome.rotations].count(True) == 1


@pytest.mark.slow
@pki.needs_openssl
async def test_no_handshake_fails_for_clients_whose_clocks_are_wrong(tmp_path: Path) -> None:
    outcome = await run(tmp_path, clocks_plan(seed=4))
    assert (outcome.tally.failures, outcome.tally.violations) == ([], [])
    assert min(outcome.verified.values()) > 3 * len(outcome.rotations)


@pytest.mark.slow
@pki.needs_openssl
async def test_rotation_without_cross_signing_is_noticed(tmp_path: Path) -> None:
    """The same harness, and trust that is broken: pinned clients refuse new leaves."""
    outcome = await run(tmp_path, Plan(rotations=2, kills=0, seed=2, nodes=1, leaf_ttl_seconds=10, is_forced=True))
    tally = outcome.tally
    assert tally.pinned_failures > 0
    assert any("openssl verify" in text for text in tally.violations)
    assert any("cryptography" in text for text in tally.violations)


@pytest.mark.slow
@pki.needs_openssl
async def test_no_handshake_fails_while_the_keys_move_between_providers(tmp_path: Path) -> None:
    route = (
        Goal("rsa 2048", VAULT_A),
        Goal("ec 256", VAULT_B),
        Goal("rsa 2048", BUILT_IN),
        Goal("ec 256", VAULT_A),
        Goal("ec 256", VAULT_A),
        Goal("ec 256", BUILT_IN),
    )
    plan = Plan(rotations=6, kills=1, staged=1, seed=2, goals=VAULT_GOALS, route=route)
    outcome = await run(tmp_path, plan)
    tally = outcome.tally
    assert (tally.failures, tally.violations) == ([], [])
    assert [rotation.after for rotation in outcome.rotations] == [str(goal) for goal in route]
    assert outcome.kills == 1
    assert [rotation.after for rotation in outcome.rotations if rotation.is_staged] == ["vault a ec 256"]
    assert tally.by_cross_signed > 50
    assert min(outcome.verified.values()) > 20


@pytest.mark.slow
@pki.needs_openssl
async def test_move_by_force_breaks_trust_in_the_reported_time(tmp_path: Path) -> None:
    """That it does so in no other time takes minutes to see: `make continuity-vault`."""
    plan = Plan(
        rotations=2,
        kills=0,
        seed=4,
        nodes=1,
        leaf_ttl_seconds=6,
        is_forced=True,
        goals=VAULT_GOALS,
        route=(Goal("rsa 2048", VAULT_A), Goal("ec 256", BUILT_IN)),
    )
    outcome = await run(tmp_path, plan)
    assert outcome.tally.pinned_failures > 0
    assert outcome.outside_of_windows == 0
    assert outcome.is_good
