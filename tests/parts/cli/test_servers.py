"""`members` and `operator raft`."""

import json

import pytest

from tests.kit.fake_api import FakeApi
from tests.parts.cli.conftest import Run

HEALTH = "/v1/operator/autopilot/health"
CONFIGURATION = "/v1/operator/raft/configuration"
TRANSFER = "/v1/operator/raft/transfer-leader"
PEER = "/v1/operator/raft/peer"


def member(name: str, *, is_leader: bool = False, is_voter: bool = True, status: str = "alive") -> dict[str, object]:
    return {
        "ID": name,
        "Name": name,
        "Address": "127.0.0.1:8300",
        "SerfStatus": status,
        "Version": "0.1.0",
        "Leader": is_leader,
        "LastContact": "12ms",
        "Healthy": status == "alive",
        "Voter": is_voter,
    }


SERVERS = [member("a", is_leader=True), member("b", status="failed"), member("c", is_voter=False)]
TABLE = (
    "Node  Address         Status  Role      Version  LastContact\n"
    "a     127.0.0.1:8300  alive   leader    0.1.0    12ms\n"
    "b     127.0.0.1:8300  failed  follower  0.1.0    12ms\n"
    "c     127.0.0.1:8300  alive   learner   0.1.0    12ms\n"
)


@pytest.mark.parametrize(
    ("is_healthy", "status", "err"),
    [(True, 200, ""), (False, 429, "The cluster is not healthy; failure tolerance: 0\n")],
)
def test_members(run: Run, api: FakeApi, is_healthy: bool, status: int, err: str) -> None:
    answer = {"Healthy": is_healthy, "FailureTolerance": 0, "Servers": SERVERS}
    api.answer("GET", HEALTH, answer, status=status)
    result = run("members")
    assert (result.code, result.out, result.err) == (0, TABLE, err)
    assert json.loads(run("members -format json").out) == answer


def test_members_when_429_is_no_answer(run: Run, api: FakeApi) -> None:
    api.answer("GET", HEALTH, "Rate limit reached", status=429)
    result = run("members")
    assert (result.code, result.out) == (1, "")
    assert "did not answer with a JSON object: Rate limit reached" in result.err


def test_list_peers(run: Run, api: FakeApi) -> None:
    servers = [
        {"ID": "a", "Node": "a", "Address": "127.0.0.1:8300", "Leader": True, "ProtocolVersion": "3", "Voter": True},
        {"ID": "b", "Node": "b", "Address": "127.0.0.1:8301", "Leader": False, "ProtocolVersion": "3", "Voter": False},
    ]
    api.answer("GET", CONFIGURATION, {"Servers": servers, "Index": 4})
    result = run("operator raft list-peers -stale")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        "Node  ID  Address         State     Voter  RaftProtocol\n"
        "a     a   127.0.0.1:8300  leader    true   3\n"
        "b     b   127.0.0.1:8301  follower  false  3\n"
    )
    assert api.last.query == {"stale": ""}
    assert json.loads(run("operator raft list-peers -format=json").out)["Index"] == 4


@pytest.mark.parametrize(("argv", "query"), [([], {}), (["-id", "b"], {"id": "b"})])
def test_transfer_leader(run: Run, api: FakeApi, argv: list[str], query: dict[str, str]) -> None:
    api.answer("POST", TRANSFER, {"Success": True})
    result = run("operator", "raft", "transfer-leader", *argv)
    assert (result.code, result.out, api.last.query) == (0, "Success\n", query)


def test_transfer_leader_that_did_not_happen(run: Run, api: FakeApi) -> None:
    api.answer("POST", TRANSFER, {"Success": False})
    result = run("operator raft transfer-leader")
    assert (result.code, result.out) == (1, "")
    assert result.err == "Error transferring leadership: the leader did not hand over\n"


def test_add_peer(run: Run, api: FakeApi) -> None:
    api.answer("PUT", PEER)
    result = run("operator raft add-peer -id d -address h:8300 -rpc h:8400")
    assert (result.code, result.out) == (0, 'Added peer with id "d"\n')
    assert api.last.body == {"ID": "d", "Address": "h:8300", "RPC": "h:8400"}


@pytest.mark.parametrize(("name", "value"), [("id", "b"), ("address", "127.0.0.1:8301")])
def test_remove_peer(run: Run, api: FakeApi, name: str, value: str) -> None:
    api.answer("DELETE", PEER)
    result = run("operator", "raft", "remove-peer", f"-{name}", value)
    assert (result.code, result.out) == (0, f'Removed peer with {name} "{value}"\n')
    assert api.last.query == {name: value}
    assert json.loads(run("operator", "raft", "remove-peer", f"-{name}", value, "-format", "json").out) == {
        "Success": True
    }


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("remove-peer", "Please provide either -id or -address"),
        ("remove-peer -id a -address b:1", "Please provide either -id or -address"),
        ("add-peer -id a", "required: --address, --rpc"),
        ("transfer-leader -stale", "unrecognized arguments: --stale"),
    ],
)
def test_usage_errors(run: Run, api: FakeApi, argv: str, text: str) -> None:
    result = run(f"operator raft {argv}")
    assert (result.code, api.requests) == (2, [])
    assert text in result.err


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("members", "Error retrieving members: "),
        ("operator raft list-peers", "Error getting peers: "),
        ("operator raft transfer-leader", "Error transferring leadership: "),
        ("operator raft add-peer -id a -address b:1 -rpc b:2", "Error adding peer: "),
        ("operator raft remove-peer -id a", "Error removing peer: "),
    ],
)
def test_failures_say_what_failed(run: Run, api: FakeApi, argv: str, text: str) -> None:
    result = run(argv)
    assert (result.code, result.out) == (1, "")
    assert result.err == f"{text}Unexpected response code: 404 (no such path)\n"
