"""When a node that catches up counts as having disturbed the others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.catchup import CatchUp, Restart, Result, Signing, _copy_events, judge
from benchmarks.contact import Contact
from benchmarks.nodes import BenchError
from benchmarks.stats import Spread

CONTACT = Contact(100, 0, ("node-1",), (2,), 0.12, 0.09, 0.05, 0.06)
SIGNING = Signing(3000, 4.0, 20.0, 30.0, {})
CATCH_UP = CatchUp("came back", 300_000, 250_000, 20.0, 50_000, 10.0, 51, CONTACT, SIGNING)
QUICK = Spread.of([2.0])
RESTARTS = (
    Restart(0, 0, QUICK, QUICK),
    Restart(28_000, 4_000_000, QUICK, QUICK),
    Restart(300_000, 5_000_000, QUICK, QUICK),
)
RESULT = Result(16 << 20, RESTARTS, SIGNING, (CATCH_UP,))


def judged(**contact: object) -> list[str]:
    caught_up = replace(CATCH_UP, contact=replace(CONTACT, **contact))  # type: ignore[arg-type] # names and types vary
    return judge(replace(RESULT, catch_ups=(caught_up,)))


def test_nothing_is_wrong_with_a_quiet_run() -> None:
    assert judge(RESULT) == []
    assert CATCH_UP.rows_per_second == 5000


@pytest.mark.parametrize(
    ("contact", "text"),
    [
        ({"leaders": ("node-1", "node-2")}, "came back: leaders ('node-1', 'node-2') in terms (2,)"),
        ({"terms": (2, 3)}, "came back: leaders ('node-1',) in terms (2, 3)"),
        ({"leaders": (), "terms": ()}, "came back: leaders () in terms ()"),  # nobody answered
        ({"leader_silence_seconds": 0.5}, "came back: the leader was silent for 0.500 s"),
        ({"follower_silence_seconds": float("inf")}, "came back: the follower was silent for inf s"),
        ({"pump_seconds_after": 0.7}, "came back: a round of the leader's Raft thread took 0.700 s"),
    ],
)
def test_whatever_may_end_in_an_election_is_a_failure(contact: dict[str, object], text: str) -> None:
    assert judged(**contact) == [text]


def test_answers_that_were_errors_are_a_failure() -> None:
    signing = replace(SIGNING, failures={"503": 1})
    assert judge(replace(RESULT, catch_ups=(replace(CATCH_UP, signing=signing),))) == [
        "came back: clients were answered {'503': 1}"
    ]


def test_restart_that_depends_on_the_ledger_is_a_failure() -> None:
    slow = replace(RESTARTS[2], cpu_seconds=Spread.of([3.0]))
    assert judge(replace(RESULT, restarts=(*RESTARTS[:2], slow))) == [
        "a restart costs 3.00 s of CPU with the full ledger, and 2.00 s with a small one"
    ]


def test_only_this_run_of_the_node_counts_and_it_must_have_copied(tmp_path: Path) -> None:
    log = tmp_path / "log"
    old = json.dumps({"event": "snapshot.wanted", "bulk_position": 0}) + "\n"
    log.write_text(old + "Traceback\n" + json.dumps({"event": "snapshot.wanted", "bulk_position": 7}) + "\n")
    with pytest.raises(BenchError, match="without a snapshot"):
        _copy_events(log, len(old))
    with log.open("a") as file:
        file.write(json.dumps({"event": "bulk.copied", "position": 9}) + "\n")
    wanted, copied = _copy_events(log, len(old))
    assert (wanted["bulk_position"], copied["position"]) == (7, 9)
