"""What counts against a campaign, and its page, from made-up outcomes."""

from benchmarks.machine import Machine
from benchmarks.origin import Origin
from tests.continuity.campaign import Outcome, Plan
from tests.continuity.evidence import evidence_of, page_of
from tests.continuity.places import BUILT_IN, VAULT_A, VAULT_B, VAULT_GOALS, Goal, Places
from tests.continuity.rotations import Rotation
from tests.kit.vault_server import VaultServer

_MACHINE = Machine("a processor", 2, 8.0, "Linux 6", "ext4", 0.4, {"python": "3.11.7"})
_ORIGIN = Origin("2030-01-01T00:00:00+00:00", "python -m tests.continuity", 1, "0" * 40, True, _MACHINE)
_BEGAN, _UNTIL = 1000.0, 1060.0


def _outcome(*, is_forced: bool = False) -> Outcome:
    before, after = Goal("ec 256", BUILT_IN), Goal("rsa 2048", VAULT_A)
    rotation = Rotation(1, str(before), str(after), "configuration", is_forced, not is_forced, _BEGAN)
    rotation.may_fail_until = _UNTIL if is_forced else 0.0
    quick = Rotation(2, str(after), str(before), "configuration", is_forced, False, _BEGAN)
    quick.may_fail_until, quick.seconds = rotation.may_fail_until, 0.5
    return Outcome(Plan(2, 0, 1, goals=VAULT_GOALS), [rotation, quick], vault="2.9")


def test_failures_are_allowed_in_the_window_of_a_forced_rotation_only() -> None:
    outcome = _outcome(is_forced=True)
    outcome.tally.failed_at = [_BEGAN + 1, _UNTIL]
    outcome.tally.rejected_at = [_UNTIL - 1]
    outcome.tally.violations = ["a chain"]
    assert (outcome.outside_of_windows, outcome.is_good) == (0, True)
    outcome.tally.failed_at = [_BEGAN - 1, _UNTIL + 10]
    outcome.tally.rejected_at = [_UNTIL + 11]
    assert (outcome.outside_of_windows, outcome.is_good) == (3, False)


def test_no_failure_is_allowed_without_force() -> None:
    outcome = _outcome()
    assert outcome.is_good
    outcome.tally.failed_at = [_BEGAN + 1]
    assert not outcome.is_good


def test_violations_that_are_no_rejected_chains_are_never_allowed() -> None:
    outcome = _outcome(is_forced=True)
    outcome.tally.violations = ["the roots are others"]
    assert not outcome.is_good


def test_page_tells_of_vault_and_of_what_was_forced() -> None:
    forced = _outcome(is_forced=True)
    forced.tally.failed_at = [_BEGAN + 1, _UNTIL + 10]
    forced.tally.failures = ["one", "two"]
    evidence = evidence_of(_outcome(), _ORIGIN, forced)
    assert evidence["rotations"]["by_way"] == {"configuration, staged": 1, "configuration": 1}
    assert evidence["rotations"]["median_seconds"] == 0.5
    page = " ".join(page_of(evidence, "x.json").split())
    assert page.startswith("# Trust continuity between providers")
    assert "OpenBao 2.9" in page
    assert "| built-in ec 256 | 0 | 0 | 0 | 1 | 0 | 0 |" in page
    assert "each watched to the end of the 60.0 s and 60.0 s" in page
    assert "**Outside of them: 1**" in page


def test_page_of_one_provider_is_silent_about_others() -> None:
    outcome = Outcome(Plan(1, 0, 1), [Rotation(1, "ec 256", "ec 384", "rotate", False, False, _BEGAN)])
    page = page_of(evidence_of(outcome, _ORIGIN), "x.json")
    assert page.startswith("# Trust continuity\n")
    assert "OpenBao" not in page
    assert "## Forced" not in page


def test_each_root_has_its_own_path_and_the_intermediates_of_a_place_share_theirs() -> None:
    places = Places({"LeafCertTTL": "30s"}, VaultServer("https://127.0.0.1:1", "token", ""))
    first = places.configuration(Goal("ec 256", VAULT_A), 1)
    assert places.configuration(Goal("ec 256", VAULT_A), 1) == first
    later, other = (places.configuration(Goal("ec 256", place), 2) for place in (VAULT_A, VAULT_B))
    configs = [body["Config"] for body in (first, later, other)]
    assert all(isinstance(config, dict) and config["LeafCertTTL"] == "30s" for config in configs)
    assert len({config["RootPKIPath"] for config in configs if isinstance(config, dict)}) == 3
    shared = [config["IntermediatePKIPath"] for config in configs if isinstance(config, dict)]
    assert shared[0] == shared[1] != shared[2]
    built_in = places.configuration(Goal("rsa 2048", BUILT_IN), 3)
    assert built_in == {
        "Provider": "consul",
        "Config": {"LeafCertTTL": "30s", "PrivateKeyType": "rsa", "PrivateKeyBits": 2048},
    }
