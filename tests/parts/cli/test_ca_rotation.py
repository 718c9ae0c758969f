import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.kit.fake_api import FakeApi
from tests.parts.cli.conftest import Run

ROTATION = "/v1/connect/ca/rotation"
ROOTS = "/v1/connect/ca/roots"
CONFIGURATION = "/v1/connect/ca/configuration"

NOW = "2027-01-15T08:00:00Z"
LATER = "2027-01-15T10:00:00Z"
UPTAKE = {"Watchers": 4, "WatchersSeen": 3, "Identities": 10, "IdentitiesRenewed": 2, "Percent": 75}
UNDER_WAY = {
    "ID": "r1",
    "Phase": "wait",
    "StartedAt": NOW,
    "PhaseSince": NOW,
    "Provider": "consul",
    "Staged": True,
    "Forced": False,
    "Paused": False,
    "WaitUntil": LATER,
    "WaitingFor": "clients to fetch the new root",
    "NewRootID": "02:aa",
    "Uptake": UPTAKE,
}
PLAN = {
    "ActiveRootID": "01:aa",
    "Provider": "consul",
    "PrivateKeyType": "ec",
    "PrivateKeyBits": 384,
    "Forced": False,
    "Staged": False,
    "ChainBytes": 5000,
    "MaxChainBytes": 32768,
    "Links": 1,
    "TrustedRoots": 2,
    "AffectedLeaves": 7,
    "RetiredUntil": LATER,
    "Risks": ["leaves change"],
}


def last(root: str = "02:aa", *, forced: bool = False, reason: str = "", number: str = "r1") -> dict[str, object]:
    return {
        "ID": number,
        "EndedAt": NOW,
        "RootID": root,
        "Reason": reason,
        "Forced": forced,
        "ClientsMayFailUntil": LATER if forced else None,
    }


def status(rotation: object = None, ended: object = None) -> dict[str, Any]:
    roots = [
        {"ID": "01:aa", "Active": False, "RotatedOutAt": NOW, "PruneAt": LATER, "NotAfter": LATER},
        {"ID": "02:aa", "Active": True, "RotatedOutAt": None, "PruneAt": None, "NotAfter": LATER},
    ]
    return {"Rotation": rotation, "Last": ended, "Roots": roots}


TABLE = (
    "ID     Active  RotatedOutAt          PruneAt               NotAfter\n"
    "01:aa  false   2027-01-15T08:00:00Z  2027-01-15T10:00:00Z  2027-01-15T10:00:00Z\n"
    "02:aa  true    -                     -                     2027-01-15T10:00:00Z\n"
)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.cli.ca_rotation._LOOK_AGAIN_SECONDS", 0.0)


# -- status and steering


def test_status_without_any_rotation(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROTATION, status())
    result = run("ca rotation -stale")
    assert (result.code, result.out, result.err) == (0, "No rotation is under way.\n" + TABLE, "")
    assert api.last.query == {"stale": ""}
    assert json.loads(run("ca rotation -format json").out) == status()


def test_status_of_a_rotation_under_way(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROTATION, status(UNDER_WAY))
    assert run("ca rotation").out == (
        "A rotation is under way.\n"
        "Field       Value\n"
        "ID          r1\n"
        "Phase       wait\n"
        "StartedAt   2027-01-15T08:00:00Z\n"
        "PhaseSince  2027-01-15T08:00:00Z\n"
        "Provider    consul\n"
        "NewRootID   02:aa\n"
        "Staged      true\n"
        "Forced      false\n"
        "Paused      false\n"
        "WaitUntil   2027-01-15T10:00:00Z\n"
        "WaitingFor  clients to fetch the new root\n"
        "Uptake      75 %: 3 of 4 watchers, 2 of 10 identities\n" + TABLE
    )


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        (last(), "The last one ended at 2027-01-15T08:00:00Z: root 02:aa\n"),
        (last("", reason="no key"), "The last one was given up at 2027-01-15T08:00:00Z: no key\n"),
    ],
)
def test_status_says_how_the_last_one_ended(run: Run, api: FakeApi, ended: dict[str, object], text: str) -> None:
    api.answer("GET", ROTATION, status(None, ended))
    result = run("ca rotation")
    assert (result.out, result.err) == (f"No rotation is under way.\n{text}{TABLE}", "")


def test_status_warns_behind_a_forced_rotation(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROTATION, status(None, last(forced=True)))
    result = run("ca rotation")
    assert result.err.startswith("It was forced: clients that have not fetched the new root refuse")
    assert result.err.endswith("until 2027-01-15T10:00:00Z\n")


@pytest.mark.parametrize("action", ["pause", "resume", "activate", "abort"])
def test_steering(run: Run, api: FakeApi, action: str) -> None:
    api.answer("PUT", ROTATION, status(None, last()))
    result = run(f"ca rotation {action}")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("No rotation is under way.")
    assert api.last.body == {"Action": action}


def test_steering_that_is_refused(run: Run, api: FakeApi) -> None:
    api.answer("PUT", ROTATION, "no rotation is under way", status=422)
    result = run("ca rotation pause")
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "Error asking to pause the rotation: Unexpected response code: 422 (no rotation is under way)\n"
    )


# -- rotate


def test_dry_run_shows_the_plan(run: Run, api: FakeApi) -> None:
    api.answer("PUT", ROTATION, PLAN)
    result = run("ca rotate --dry-run -key-type ec -key-bits 384")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "Nothing was changed. A rotation now would be:\n"
        "What                                  Value\n"
        "Current root                          01:aa\n"
        "Provider                              consul\n"
        "Key of the new root                   ec 384\n"
        "Without cross-signing                 false\n"
        "Staged                                false\n"
        "Trusted roots afterwards              2\n"
        "Current root is trusted until         2027-01-15T10:00:00Z\n"
        "Cross-signed certificates in a chain  1\n"
        "Bytes of a chain, at most             5000\n"
        "Bytes allowed                         32768\n"
        "Valid leaves of the current root      7\n"
        "Risk                                  leaves change\n"
    )
    assert [request.body for request in api.requests] == [
        {"Action": "plan", "PrivateKeyType": "ec", "PrivateKeyBits": 384}
    ]
    assert json.loads(run("ca rotate --dry-run -format json").out) == PLAN


@pytest.mark.parametrize(
    ("argv", "body"),
    [
        ("", {}),
        ("-force-without-cross-signing", {"ForceWithoutCrossSigning": True}),
        ("--staged", {"Staged": True}),
        ("-staged -wait-for 1h30m", {"Staged": True, "Wait": "1h30m"}),
    ],
)
def test_rotate_asks_for_what_was_given(run: Run, api: FakeApi, argv: str, body: dict[str, object]) -> None:
    api.answer("PUT", ROTATION, status(None, last()))
    result = run(f"ca rotate {argv}")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith(TABLE)
    assert [request.body for request in api.requests] == [{"Action": "rotate", **body}]


def test_rotate_that_is_refused(run: Run, api: FakeApi) -> None:
    api.answer("PUT", ROTATION, "possible from tomorrow on", status=422)
    result = run("ca rotate")
    assert (result.code, result.out) == (1, "")
    assert result.err == "Error rotating the root: Unexpected response code: 422 (possible from tomorrow on)\n"


def test_rotate_of_nobody(run: Run) -> None:
    assert run("ca rotate -http-addr 127.0.0.1:1").code == 3
    assert run("ca rotate -wait -http-addr 127.0.0.1:1").code == 3


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("rotate --dry-run --wait", "--dry-run and --wait cannot be given together"),
        ("rotate --wait-for 1m", "--wait-for requires --staged"),
        ("rotate --staged --wait-for 5", "argument --wait-for: '5' is not allowed: must be a duration as in 10m"),
        ("rotate --key-type dsa", "invalid choice: 'dsa'"),
        ("rotate --key-bits many", "must be a whole number"),
        ("rotate --stale", "unrecognized arguments: --stale"),
        ("rotation stop", "invalid choice: 'stop'"),
        ("rotation pause --stale", "--stale cannot be given together with pause"),
        ("distrust", "required: ROOT-ID"),
        ("set-config -config-file x --wait-for 1m", "--wait-for requires --staged"),
    ],
)
def test_usage_errors(run: Run, api: FakeApi, argv: str, text: str) -> None:
    result = run(f"ca {argv}")
    assert (result.code, api.requests) == (2, [])
    assert text in result.err


def test_roots_that_are_cut_off_are_named(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROTATION, {**status(None, last()), "CutOffRoots": ["01:aa"]})
    assert "do not lead to 01:aa" in run("ca rotation").err
    api.answer("PUT", ROTATION, {**PLAN, "CutOffRoots": ["01:aa"]})
    assert re.search(r"Cut off +01:aa", run("ca rotate -dry-run").out)


# -- waiting


def test_wait_looks_until_the_new_root_signs(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROTATION, status(None, last(number="r0")))
    api.answer("PUT", ROTATION, status(UNDER_WAY))
    api.then("GET", ROTATION, status(UNDER_WAY))
    api.then("GET", ROTATION, "no leader", status=500)
    api.then("GET", ROTATION, status(None, last()))
    result = run("ca rotate -staged -wait")
    assert (result.code, result.err) == (0, "")
    assert result.out == f"Rotated at 2027-01-15T08:00:00Z: root 02:aa signs from now on.\n{TABLE}"
    assert [request.method for request in api.requests] == ["GET", "PUT", "GET", "GET", "GET"]


def test_wait_goes_on_when_the_server_stops_waiting(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROTATION, status())
    api.answer("PUT", ROTATION, "the rotation is still under way and goes on", status=504)
    api.then("GET", ROTATION, status(UNDER_WAY))
    api.then("GET", ROTATION, status(None, last()))
    assert run("ca rotate -wait").code == 0


def test_wait_fails_when_the_rotation_is_given_up(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROTATION, status())
    api.answer("PUT", ROTATION, status(UNDER_WAY))
    api.then("GET", ROTATION, status(None, last("", reason="given up by an operator")))
    result = run("ca rotate -staged -wait")
    assert (result.code, result.out) == (1, "")
    assert result.err == "Error rotating the root: the rotation was given up: given up by an operator\n"


def test_wait_fails_when_nothing_was_begun(run: Run, api: FakeApi) -> None:
    api.answer("GET", ROTATION, status(None, last(number="r0")))
    api.answer("PUT", ROTATION, "it may or may not have taken effect", status=504)
    result = run("ca rotate -wait")
    assert (result.code, result.err) == (
        1,
        "Error rotating the root: no rotation was begun: it may or may not have taken effect\n",
    )


def test_wait_gives_a_lost_server_up_in_the_end(run: Run, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.cli.ca_rotation._PATIENCE_SECONDS", 0.0)
    api.answer("GET", ROTATION, status())
    api.answer("PUT", ROTATION, status(UNDER_WAY))
    api.then("GET", ROTATION, "no leader", status=500)
    result = run("ca rotate -staged -wait")
    assert (result.code, result.err) == (1, "Error rotating the root: Unexpected response code: 500 (no leader)\n")


def test_wait_on_a_terminal_shows_how_far_it_is(
    run: Run, api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    # Long enough for what was shown to be drawn.
    monkeypatch.setattr("cluster.cli.ca_rotation._LOOK_AGAIN_SECONDS", 0.2)
    api.answer("GET", ROTATION, status())
    api.answer("PUT", ROTATION, status(UNDER_WAY))
    api.then("GET", ROTATION, status(UNDER_WAY))
    api.then("GET", ROTATION, status(None, last()))
    result = run("ca rotate -staged -wait")
    assert "waiting for clients to fetch the new root (75 % have it)" in result.err
    assert "Waiting for http" not in result.err  # one sign of life at a time
    assert "waiting" not in result.out


# -- distrust and set-config


def test_distrust(run: Run, api: FakeApi) -> None:
    api.answer("DELETE", f"{ROOTS}/01:aa")
    result = run("ca distrust 01:aa")
    assert (result.code, result.out) == (0, "Root 01:aa is no longer trusted.\n")
    assert json.loads(run("ca distrust 01:aa -format json").out) == {"Success": True}


def test_distrust_that_is_refused(run: Run, api: FakeApi) -> None:
    api.answer("DELETE", f"{ROOTS}/01:aa", "root 01:aa is active", status=422)
    result = run("ca distrust 01:aa")
    assert (result.code, result.err) == (
        1,
        "Error removing root 01:aa: Unexpected response code: 422 (root 01:aa is active)\n",
    )


@pytest.mark.parametrize(
    ("in_file", "argv", "sent"),
    [
        ({"RotationMode": "staged", "RotationWait": "1m"}, "", {"RotationMode": "staged", "RotationWait": "1m"}),
        ({}, "-staged", {"RotationMode": "staged"}),
        (
            {"rotationMode": "direct", "ROTATIONWAIT": "1m"},
            "-staged -wait-for 2m",
            {"RotationMode": "staged", "RotationWait": "2m"},
        ),
    ],
)
def test_set_config_may_be_staged(
    run: Run, api: FakeApi, tmp_path: Path, in_file: dict[str, str], argv: str, sent: dict[str, str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"Provider": "consul"} | in_file))
    api.answer("PUT", CONFIGURATION)
    assert run(f"ca set-config -config-file config.json {argv}").code == 0
    assert api.last.body == {"Provider": "consul"} | sent
