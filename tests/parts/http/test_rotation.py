"""Rotation over HTTP: status, planning, steering, and the end of trust in an old root."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.api.access import Caller
from cluster.api.ca import RotateRequest, Steering
from cluster.api.reads import ReadLevel
from cluster.base.errors import CommitUnknown, InternalError, NoLeader, Refused
from fsm.ca import Intermediate, RotationPhase
from tests.kit import samples
from tests.kit.fake_service import NOW
from tests.parts.http.conftest import Running, Start

ROTATION = "/v1/connect/ca/rotation"
CONFIGURATION = "/v1/connect/ca/configuration"
ROOTS = "/v1/connect/ca/roots"


def called(api: Running, name: str) -> list[Any]:
    return [args[0] for called_name, args in api.service.calls if called_name == name]


def root_object(name: str, *, is_active: bool, retired: bool = False) -> dict[str, object]:
    return {
        "ID": name,
        "Active": is_active,
        "RotatedOutAt": "2027-01-15T08:00:00Z" if retired else None,
        "PruneAt": "2027-01-15T10:00:00Z" if retired else None,
        "NotAfter": "2027-01-16T08:00:00Z",
    }


# -- status


async def test_without_any_rotation_only_the_roots_are_there(api: Running) -> None:
    reply = await api.get(ROTATION)
    assert reply.json() == {
        "Rotation": None,
        "Last": None,
        "Roots": [root_object("aa:r1", is_active=True)],
        "CutOffRoots": [],
    }
    assert (reply.headers["X-Consul-Index"], reply.headers["X-Consul-KnownLeader"]) == ("1", "true")
    assert "rotation_uptake" not in [name for name, _ in api.service.calls]


async def test_a_waiting_rotation_says_what_it_waits_for(api: Running) -> None:
    reply = await api.put(ROTATION, {"Action": "rotate", "Staged": True, "Wait": "1h"})
    assert reply.json()["Rotation"] == {
        "ID": "rotation-1",
        "Phase": "wait",
        "StartedAt": "2027-01-15T08:00:00Z",
        "PhaseSince": "2027-01-15T08:00:00Z",
        "Provider": "consul",
        "Staged": True,
        "Forced": False,
        "Paused": False,
        "WaitUntil": "2027-01-15T09:00:00Z",
        "WaitingFor": "clients to fetch the new root, until 2027-01-15T09:00:00Z at the latest",
        "NewRootID": "aa:r2",
        "Uptake": {"Watchers": 4, "WatchersSeen": 3, "Identities": 10, "IdentitiesRenewed": 2, "Percent": 75},
    }
    roots = [root_object("aa:r1", is_active=True), root_object("aa:r2", is_active=False)]
    assert reply.json()["Roots"] == roots
    assert (await api.get(ROTATION)).json() == reply.json()


@pytest.mark.parametrize("phase", [phase for phase in RotationPhase if phase is not RotationPhase.WAIT])
async def test_every_other_phase_has_a_sentence_and_no_uptake(api: Running, phase: RotationPhase) -> None:
    await api.put(ROTATION, {"Action": "rotate", "Staged": True})
    rotation = api.service.state.rotation
    assert rotation is not None
    shown_root = None if phase is RotationPhase.GENERATE else rotation.root
    api.service.state = replace(api.service.state, rotation=replace(rotation, phase=phase, root=shown_root))
    shown = (await api.get(ROTATION)).json()["Rotation"]
    assert (shown["Phase"], shown["WaitUntil"], shown["Uptake"]) == (phase.value, None, None)
    assert shown["WaitingFor"]
    assert shown["NewRootID"] == ("" if phase is RotationPhase.GENERATE else "aa:r2")


@pytest.mark.parametrize("error", [NoLeader("none"), CommitUnknown("too slow")])
async def test_uptake_is_null_when_the_leader_cannot_say(api: Running, error: Exception) -> None:
    await api.put(ROTATION, {"Action": "rotate", "Staged": True})
    api.service.fail_with["rotation_uptake"] = error
    reply = await api.get(ROTATION)
    assert (reply.status, reply.json()["Rotation"]["Uptake"]) == (200, None)


async def test_without_a_leader_status_is_500_and_stale_answers_without_uptake(api: Running) -> None:
    await api.put(ROTATION, {"Action": "rotate", "Staged": True})
    api.service.has_leader = False
    api.service.calls.clear()
    assert (await api.get(ROTATION)).status == 500
    reply = await api.get(f"{ROTATION}?stale")
    assert (reply.status, reply.json()["Rotation"]["Uptake"]) == (200, None)
    assert reply.headers["X-Consul-KnownLeader"] == "false"
    assert called(api, "read") == [ReadLevel.LINEARIZABLE, ReadLevel.STALE]


async def test_too_stale_is_read_again_from_the_leader(api: Running) -> None:
    api.service.last_contact_ms = 900
    assert (await api.get(f"{ROTATION}?max_stale=500ms")).status == 200
    assert called(api, "read") == [ReadLevel.STALE, ReadLevel.LINEARIZABLE]


async def test_forced_rotation_says_until_when_clients_may_fail(api: Running) -> None:
    reply = await api.put(ROTATION, {"Action": "rotate", "ForceWithoutCrossSigning": True})
    assert reply.json()["Last"] == {
        "ID": "rotation-1",
        "EndedAt": "2027-01-15T08:00:00Z",
        "RootID": "aa:r2",
        "Reason": "",
        "Forced": True,
        "ClientsMayFailUntil": "2027-01-15T10:00:00Z",
    }
    assert (await api.ask("DELETE", f"{ROOTS}/aa:r1")).status == 200
    assert (await api.get(ROTATION)).json()["Last"]["ClientsMayFailUntil"] is None


async def test_cross_signed_rotation_fails_no_client(api: Running) -> None:
    reply = await api.put(ROTATION, {"Action": "rotate"})
    assert (reply.json()["Rotation"], reply.json()["Last"]["ClientsMayFailUntil"]) == (None, None)
    roots = [root_object("aa:r1", is_active=False, retired=True), root_object("aa:r2", is_active=True)]
    assert reply.json()["Roots"] == roots


async def test_roots_that_new_leaves_do_not_lead_to_are_named_in_every_answer(api: Running) -> None:
    plan = await api.put(ROTATION, {"Action": "plan", "ForceWithoutCrossSigning": True})
    assert plan.json()["CutOffRoots"] == ["aa:r1"]
    assert "X-Quorumca-Cut-Off-Roots" not in (await api.put(CONFIGURATION, {"Provider": "consul"})).headers
    reply = await api.put(ROTATION, {"Action": "rotate", "ForceWithoutCrossSigning": True})
    assert reply.json()["CutOffRoots"] == ["aa:r1"]
    assert (await api.get(ROTATION)).json()["CutOffRoots"] == ["aa:r1"]
    assert (await api.put(ROTATION, {"Action": "plan"})).json()["CutOffRoots"] == ["aa:r1"]
    reply = await api.put(CONFIGURATION, {"Provider": "consul"})
    assert reply.headers["X-Quorumca-Cut-Off-Roots"] == "aa:r1"


async def test_roots_that_will_be_cut_off_before_they_are_pruned_are_named(api: Running) -> None:
    header = "X-Quorumca-Cut-Off-Early-Roots"
    assert header not in (await api.put(CONFIGURATION, {"Provider": "consul"})).headers
    old = samples.root("r1", is_active=False, rotated_out_at=NOW, prune_at=NOW + 1000, not_after=NOW + 5000)
    link = Intermediate("cross-signed", "r2-key", "r1-key", NOW + 2000)
    for end, named in ((NOW + 999, "r1"), (NOW + 1000, None)):
        await api.service.change(roots=(old, samples.root("r2", intermediates=(link,), not_after=end)))
        reply = await api.put(CONFIGURATION, {"Provider": "consul"})
        assert reply.headers.get(header) == named


# -- rotate and plan


async def test_plan_changes_nothing_and_says_all(api: Running) -> None:
    before = api.service.state
    body = {"Action": "plan", "PrivateKeyType": "rsa", "PrivateKeyBits": 4096, "Staged": True}
    assert (await api.put(ROTATION, body)).json() == {
        "ActiveRootID": "aa:r1",
        "Provider": "consul",
        "PrivateKeyType": "rsa",
        "PrivateKeyBits": 4096,
        "Forced": False,
        "Staged": True,
        "ChainBytes": 5000,
        "MaxChainBytes": 32768,
        "Links": 1,
        "TrustedRoots": 2,
        "AffectedLeaves": 0,
        "RetiredUntil": "2027-01-15T10:00:00Z",
        "Risks": ["leaves change"],
        "CutOffRoots": [],
    }
    assert api.service.state is before
    assert called(api, "plan_rotation") == [RotateRequest("rsa", 4096, is_staged=True, wait_seconds=600)]


@pytest.mark.parametrize(
    ("body", "request_made"),
    [
        ({}, RotateRequest()),
        ({"privatekeytype": "ec", "Staged": None, "Wait": None}, RotateRequest(key_type="ec")),
        ({"PrivateKeyBits": 521}, RotateRequest(key_bits=521)),
        ({"ForceWithoutCrossSigning": True}, RotateRequest(is_forced=True)),
        ({"Staged": True}, RotateRequest(is_staged=True, wait_seconds=600)),
        ({"Staged": True, "Wait": "0"}, RotateRequest(is_staged=True, wait_seconds=0)),
        ({"Staged": True, "Wait": "720h"}, RotateRequest(is_staged=True, wait_seconds=2_592_000)),
        ({"Staged": True, "Wait": 1_500_000_000}, RotateRequest(is_staged=True, wait_seconds=2)),
    ],
)
async def test_rotate_passes_on_what_was_given(
    api: Running, body: dict[str, object], request_made: RotateRequest
) -> None:
    assert (await api.put(ROTATION, {"Action": "rotate", **body})).status == 200
    assert called(api, "rotate") == [request_made]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "Action = '': must be one of rotate, plan, pause, resume, activate, abort"),
        ({"Action": "Rotate"}, "Action = 'Rotate': must be one of rotate, plan"),
        ({"Action": 1}, "Action = 1: must be a string"),
        ({"Action": "rotate", "stagd": True}, "unknown field 'stagd': allowed for Action rotate are Action, Private"),
        ({"Action": "pause", "Staged": True}, "unknown field 'staged': allowed for Action pause are Action"),
        ({"Action": "rotate", "PrivateKeyType": "dsa"}, "PrivateKeyType = 'dsa': must be one of ec, rsa"),
        ({"Action": "plan", "PrivateKeyBits": 2000}, "PrivateKeyBits = 2000: must be one of 256, 384, 521, 2048, 4096"),
        (
            {"Action": "rotate", "PrivateKeyType": "rsa", "PrivateKeyBits": 256},
            "PrivateKeyBits = 256: must be one of 2048, 4096",
        ),
        ({"Action": "rotate", "PrivateKeyBits": 0}, "PrivateKeyBits = 0: must be one of"),
        ({"Action": "rotate", "PrivateKeyBits": "256"}, "PrivateKeyBits = '256': must be a whole number"),
        ({"Action": "rotate", "Staged": "yes"}, "Staged = 'yes': must be true or false"),
        ({"Action": "rotate", "Wait": "5m"}, 'Wait: is allowed together with "Staged": true only'),
        ({"Action": "rotate", "Staged": True, "Wait": "5"}, "Wait = '5': must be a Go duration as in 10m"),
        ({"Action": "rotate", "Staged": True, "Wait": "-1s"}, "from 0s to 720h0m0s"),
        ({"Action": "rotate", "Staged": True, "Wait": "721h"}, "from 0s to 720h0m0s"),
        ({"Action": "rotate", "Staged": True, "Wait": True}, "Wait = True: must be"),
        ({"Action": "rotate", "Staged": True, "Wait": 1.5}, "Wait = 1.5: must be"),
    ],
)
async def test_malformed_requests_are_400_and_reach_nobody(api: Running, body: dict[str, object], text: str) -> None:
    reply = await api.put(ROTATION, body)
    assert (reply.status, api.service.calls) == (400, [])
    assert text in reply.text


@pytest.mark.parametrize(
    ("error", "status"), [(Refused("from tomorrow on"), 422), (InternalError("no"), 500), (CommitUnknown("?"), 504)]
)
@pytest.mark.parametrize(
    ("action", "method"), [("rotate", "rotate"), ("plan", "plan_rotation"), ("pause", "steer_rotation")]
)
async def test_refusals_have_their_status_and_text(
    api: Running, action: str, method: str, error: Exception, status: int
) -> None:
    api.service.fail_with[method] = error
    reply = await api.put(ROTATION, {"Action": action})
    assert (reply.status, reply.text) == (status, str(error))


async def test_what_is_done_is_not_called_refused_when_the_leader_is_lost_behind_it(api: Running) -> None:
    original = api.service.rotate

    async def rotate(caller: Caller, request: RotateRequest) -> None:
        await original(caller, request)
        api.service.has_leader = False

    api.service.rotate = rotate  # type: ignore[method-assign]
    reply = await api.put(ROTATION, {"Action": "rotate"})
    assert (reply.status, reply.json()["Last"]["RootID"]) == (200, "aa:r2")


# -- steering


async def test_pause_resume_activate(api: Running) -> None:
    await api.put(ROTATION, {"Action": "rotate", "Staged": True})
    paused = (await api.put(ROTATION, {"Action": "pause"})).json()["Rotation"]
    assert (paused["Paused"], paused["WaitingFor"]) == (True, "an operator to resume it, or to activate the new root")
    assert (await api.put(ROTATION, {"Action": "resume"})).json()["Rotation"]["Paused"] is False
    done = (await api.put(ROTATION, {"Action": "activate"})).json()
    assert (done["Rotation"], done["Last"]["RootID"]) == (None, "aa:r2")
    assert called(api, "steer_rotation") == [Steering.PAUSE, Steering.RESUME, Steering.ACTIVATE]


async def test_abort_leaves_the_roots_as_they_were_and_says_why(api: Running) -> None:
    await api.put(ROTATION, {"Action": "rotate", "Staged": True})
    aborted = (await api.put(ROTATION, {"Action": "abort"})).json()
    assert (aborted["Last"]["RootID"], aborted["Last"]["Reason"]) == ("", "given up by an operator")
    assert aborted["Roots"] == [root_object("aa:r1", is_active=True)]


@pytest.mark.parametrize("action", ["pause", "resume", "activate", "abort"])
async def test_without_a_rotation_there_is_nothing_to_steer(api: Running, action: str) -> None:
    reply = await api.put(ROTATION, {"Action": action})
    assert (reply.status, reply.text) == (422, "no rotation is under way")


# -- distrust


async def test_a_retired_root_is_distrusted_and_the_active_one_is_not(api: Running) -> None:
    await api.put(ROTATION, {"Action": "rotate"})
    reply = await api.ask("DELETE", f"{ROOTS}/AA:R1")
    assert (reply.status, reply.text) == (200, "")
    assert [root["ID"] for root in (await api.get(ROOTS)).json()["Roots"]] == ["aa:r2"]
    assert (await api.ask("DELETE", f"{ROOTS}/aa:r2")).status == 422
    assert (await api.ask("DELETE", f"{ROOTS}/aa:r1")).status == 404


async def test_roots_cannot_be_deleted_all_at_once(api: Running) -> None:
    assert (await api.ask("DELETE", ROOTS)).status == 405
    assert (await api.get(f"{ROOTS}/aa:r1")).status == 405


@pytest.mark.parametrize(("method", "path"), [("GET", ROTATION), ("PUT", ROTATION), ("DELETE", f"{ROOTS}/aa:r1")])
async def test_without_connect_there_is_no_rotation(start: Start, method: str, path: str) -> None:
    api = await start(connect={"enabled": False})
    reply = await api.ask(method, path, json={"Action": "rotate"})
    assert (reply.status, reply.text) == (500, "Connect must be enabled in order to use this endpoint")


# -- PUT configuration


@pytest.mark.parametrize(
    ("body", "staged", "seconds"),
    [
        ({}, False, 0),
        ({"RotationMode": ""}, False, 0),
        ({"RotationMode": "direct", "RotationWait": None}, False, 0),
        ({"RotationMode": "staged"}, True, 600),
        ({"rotationmode": "staged", "rotationwait": "90s"}, True, 90),
        ({"RotationMode": "staged", "RotationWait": 60_000_000_000}, True, 60),
        ({"RotationMode": "staged", "RotationWait": "0s"}, True, 0),
    ],
)
async def test_put_configuration_may_be_staged(
    api: Running, body: dict[str, object], staged: bool, seconds: int
) -> None:
    assert (await api.put(CONFIGURATION, {"Provider": "consul", **body})).status == 200
    (update,) = called(api, "configure")
    assert (update.is_staged, update.wait_seconds) == (staged, seconds)
    assert update.config == {}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"RotationMode": "Staged"}, "RotationMode = 'Staged': must be staged, direct or empty"),
        ({"RotationMode": 1}, "RotationMode = 1: must be a string"),
        ({"RotationMode": "staged", "RotationWait": "721h"}, "RotationWait = '721h': must be a Go duration as in 10m"),
        ({"RotationMode": "staged", "RotationWait": [1]}, "RotationWait = [1]: must be a Go duration"),
        ({"RotationWait": "10m"}, "RotationWait: is allowed together with RotationMode staged only"),
    ],
)
async def test_put_configuration_that_is_staged_wrongly_is_400(
    api: Running, body: dict[str, object], text: str
) -> None:
    reply = await api.put(CONFIGURATION, {"Provider": "consul", **body})
    assert (reply.status, api.service.calls) == (400, [])
    assert text in reply.text
