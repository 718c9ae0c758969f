"""No bytes make a decoder, PUT snapshot or an operation do anything but understand or refuse them: a short run for
each, and the kept inputs.

FUZZ_SECONDS is the time for each decoder, FUZZ_SEED another course. `make fuzz SECONDS=600` and `make cases` are the
long campaigns.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cluster.raft.machine import ReplicatedMachine
from tests.fuzz.__main__ import main
from tests.fuzz.campaign import Finding, Result, changed, run, run_corpus
from tests.fuzz.nodes import VERSIONS, Ended, Requests
from tests.fuzz.targets import Target, targets

SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "2.5"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))
ROOT: Final = Path(__file__).parents[2]
NAMES: Final = (
    "frames",
    "message",
    "entry",
    "journal",
    "journal-records",
    "snapshot",
    "snapshot-sealed",
    "backup",
    "backup-contents",
    "command",
    "state",
    "applied",
    "saved-state",
    "marks",
    "ledger-rows",
    "rpc-messages",
    "rpc-body",
    "put-snapshot",
    "rpc-operations",
    "csr",
    "csr-intermediate",
    "http-requests",
    "acl-rules",
    "acl-selector",
    "acl-bind-name",
    "acl-input",
    "acl-method",
    "jwt",
    "jwt-signed",
    "jwk-set",
    "oidc-discovery",
    "kubernetes-review",
    "rpc-tokens",
)
#: Changed inputs that are enough to meet a refusal. A decoder that refuses none of them says nothing to anybody: its
#: target has swallowed the verdict.
_FEW: Final = 200
#: Of the ways to refuse that a decoder has, the few meet this many. What a checksum protects has hardly another, and
#: one that answers with a status has one text for all.
_REASONS: Final = {"journal": 1, "snapshot": 2, "rpc-body": 1}

pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length")


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Target]]:
    made = targets()
    yield made
    for target in made.values():
        target.close()


def test_names_are_those_of_the_targets(found: dict[str, Target]) -> None:
    assert tuple(found) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_kept_inputs_are_understood_or_refused(found: dict[str, Target], name: str) -> None:
    result = run_corpus(found[name])
    assert result.accepted > 0


@pytest.mark.parametrize("name", NAMES)
def test_target_gives_the_verdict_of_its_decoder(found: dict[str, Target], name: str) -> None:
    """Seeds are understood, and a change that no decoder can miss is among a few hundred."""
    target = found[name]
    for seed in target.seeds():
        target.decode(seed)
    result = run(target, 1, inputs=_FEW)
    assert result.accepted + result.refused == result.inputs == _FEW
    assert result.refused > 0
    assert len(result.reasons) >= _REASONS.get(name, 3)
    assert sum(result.reasons.values()) == result.refused


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_changed_inputs_are_understood_or_refused(found: dict[str, Target], name: str) -> None:
    result = run(found[name], SEED, seconds=SECONDS)
    assert result.inputs > 20
    assert result.refused > 0


def test_broken_rule_ends_the_run_and_what_was_counted_until_then_stays() -> None:
    def decode(data: bytes) -> None:
        if data.startswith(b"\xff"):
            raise KeyError("not documented")

    result = Result()
    with pytest.raises(Finding, match="KeyError"):
        run(Target("fragile", lambda: [b"seed"], decode, ()), 1, inputs=10_000, into=result)
    assert 0 < result.inputs == result.accepted < 10_000


def test_reasons_are_bounded() -> None:
    result = Result()
    for number in range(1000):
        result.count_refusal(ValueError(), f"reason {number}")
    assert len(result.reasons) < 100
    assert sum(result.reasons.values()) == result.refused == 1000


def digests(count: int) -> dict[str, str]:
    """Of the first changed inputs of every decoder."""
    return {
        name: hashlib.sha256(repr(list(itertools.islice(changed(target, 7), count))).encode()).hexdigest()
        for name, target in targets().items()
    }


@pytest.mark.slow
def test_seed_gives_the_same_inputs_in_every_process() -> None:
    here = digests(300)
    code = "import json; from tests.fuzz.test_fuzz import digests; print(json.dumps(digests(300)))"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout) == here


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--seconds", f"{0.1 * len(NAMES)}"), ("--cases", f"{30 * len(NAMES) - 1}")])
def test_one_run_of_all_decoders_is_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, str]
) -> None:
    output = tmp_path / "fuzz.json"
    monkeypatch.setattr(sys, "argv", ["fuzz", *options, "--seed", "5", "--output", str(output)])
    assert main() == 0
    evidence = json.loads(output.read_text())
    assert tuple(evidence["decoders"]) == NAMES
    assert evidence["findings"] == []
    assert evidence["origin"]["seed"] == 5
    for name, decoder in evidence["decoders"].items():
        assert decoder["seconds"] >= 0.1 or decoder["inputs"] == 30, name
        assert decoder["accepted"] + sum(decoder["errors"].values()) == decoder["inputs"], name


def test_entry_that_cannot_be_applied_is_found_whatever_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    is_broken = False
    commit = ReplicatedMachine.commit

    def commit_or_fail(machine: ReplicatedMachine, log_index: int) -> None:
        if is_broken:
            raise OverflowError("a number that SQLite has no room for")
        commit(machine, log_index)

    monkeypatch.setattr(ReplicatedMachine, "commit", commit_or_fail)
    requests = Requests()
    try:
        rows = requests.seeds()[len(VERSIONS) * Requests.NAMES.index("restore_proven_rows") + 1]
        requests(rows)
        is_broken = True
        with pytest.raises(Ended, match="SQLite"):
            requests(rows)
    finally:
        is_broken = False
        requests.close()


def test_some_decoders_alone_leave_no_evidence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    untouched = tmp_path / "fuzz.json"
    monkeypatch.setattr("tests.fuzz.__main__.DEFAULT_EVIDENCE", untouched)
    monkeypatch.setattr(sys, "argv", ["fuzz", "--seconds", "0.05", "--only", "message"])
    assert main() == 0
    assert not untouched.exists()
