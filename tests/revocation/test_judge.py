"""A campaign that judges nothing would find nothing: what it says of rounds that are known."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.machine import describe_machine
from benchmarks.origin import Origin
from tests.revocation.campaign import Plan, Round, plans
from tests.revocation.evidence import evidence_of, page_of
from tests.revocation.judge import Verdict, judge
from tests.revocation.probes import Seen, What
from tests.revocation.subjects import KINDS


def seen(last_given: float) -> Seen:
    return Seen(last_given, Counter({200: 3, 403: 5}))


@pytest.mark.parametrize(
    ("last_given", "seconds", "is_violated"),
    [(0.0, 0.0, False), (99.0, 0.0, False), (100.9, 0.9, False), (101.001, 1.001, True), (160.0, 60.0, True)],
)
@pytest.mark.parametrize("what", What)
def test_what_is_given_more_than_a_second_late_is_a_violation(
    what: What, last_given: float, seconds: float, is_violated: bool
) -> None:
    verdict = judge({(what, "node-1"): seen(last_given), (what, "node-2"): seen(50.0)}, {"node-1": 100.0, "node-2": 99})
    assert verdict.longest_seconds == pytest.approx(seconds)
    assert verdict.by_what == {what: pytest.approx(seconds)}
    assert bool(verdict.violations) is is_violated


def test_second_of_a_node_begins_when_it_knows_a_leader_again() -> None:
    found = {(What.LEAF, "node-1"): seen(103.0), (What.LEAF, "node-2"): seen(103.0)}
    verdict = judge(found, {"node-1": 102.5, "node-2": 100.0})
    assert verdict.violations == ("leaf from the cache at node-2: given 3.000 s after it was revoked",)


def test_every_kind_comes_equally_often_with_a_kill_and_without() -> None:
    kinds = sorted(KINDS)
    chosen = [*plans(kinds, 4 * len(kinds), 2 * len(kinds), seed=7)]
    assert Counter(plan.kind for plan in chosen if plan.has_kill) == dict.fromkeys(kinds, 4)
    assert Counter(plan.kind for plan in chosen if not plan.has_kill) == dict.fromkeys(kinds, 2)
    assert chosen == [*plans(kinds, 4 * len(kinds), 2 * len(kinds), seed=7)]
    assert chosen != [*plans(kinds, 4 * len(kinds), 2 * len(kinds), seed=8)]


def test_page_says_what_was_found(tmp_path: Path) -> None:
    origin = Origin("2026-01-01T00:00:00+00:00", "python -m x", 7, "c" * 40, True, describe_machine(tmp_path))
    good = Verdict(0.25, {What.LEAF: 0.25}, ())
    bad = Verdict(1.5, {What.SIGN: 1.5}, ("signatures at node-2: given 1.500 s after it was revoked",))
    rounds = [
        Round(1, Plan("token deleted", True), "leader", 5.0, 0.4, good, 10, 20, {200: 10, 403: 20}, {200: 50}),
        Round(2, Plan("logged out", False), "follower", 2.0, 0.0, bad, 10, 20, {200: 10, 403: 20}, {200: 50}),
    ]
    evidence = evidence_of(rounds, origin)
    assert evidence["leader_kills"] == 1
    assert evidence["honest_certificates"] == 100
    assert evidence["violations"] == [
        {"round": 2, "kind": "logged out", "leader_killed": False, "violation": bad.violations[0]}
    ]
    page = page_of(evidence, origin)
    assert "* round 2: signatures at node-2: given 1.500 s after it was revoked" in page
    assert "| token deleted | 1 | 0.250 | 0.250 | 0.40 | 10 | 20 | 0 |" in page
    assert "Nothing was given out" in page_of(evidence_of(rounds[:1], origin), origin)
