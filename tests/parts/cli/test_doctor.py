"""`doctor`: what it asks, prints and ends with; what it finds is tested beside its checks."""

import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from cluster.cli.api_flags import parse_address
from cluster.client.api import Api
from cluster.client.errors import Exit
from tests.kit.fake_api import FakeApi, serving
from tests.parts.cli.conftest import Run

OWN: dict[str, dict[str, Any]] = {
    "Config": {"NodeName": "ca-1"},
    "Stats": {"raft": {"leader": "ca-1"}, "quorumca": {"leader": "true"}, "ca": {"initialized": "true"}},
}
HEALTH = "/v1/operator/autopilot/health"


def healthy(api: FakeApi) -> None:
    api.answer("GET", "/v1/agent/self", OWN)
    api.answer("GET", "/v1/status/leader", '"127.0.0.1:8300"')
    for path in ("/v1/agent/metrics", "/v1/connect/ca/roots", "/v1/connect/ca/rotation", "/v1/operator/digest"):
        api.answer("GET", path, {})
    api.answer("GET", HEALTH, {"Servers": [{"Name": name, "Healthy": True} for name in ("ca-1", "ca-2", "ca-3")]})


@pytest.fixture
def second() -> Iterator[FakeApi]:
    with serving() as fake:
        yield fake


def test_healthy_cluster_exits_0(run: Run, api: FakeApi) -> None:
    healthy(api)
    result = run("doctor")
    assert (result.code, result.out) == (0, f"Looked at http://{api.address}: nothing is wrong.\n")
    by_path = {request.path: request.query for request in api.requests}
    assert by_path["/v1/connect/ca/roots"] == {"stale": ""}
    assert by_path[HEALTH] == {}


def test_trouble_is_explained_and_exits_4(run: Run, api: FakeApi) -> None:
    healthy(api)
    servers = [{"Name": "ca-1", "Healthy": True}, {"Name": "ca-2", "Healthy": False, "LastContact": None}]
    api.answer("GET", HEALTH, {"FailureTolerance": 0, "Servers": servers}, status=429)
    result = run("doctor")
    assert (result.code, int(Exit.UNHEALTHY)) == (4, 4)
    assert result.out.startswith("CRITICAL server-unhealthy: ca-2: the leader has not heard from it")
    assert "\n    next: on its machine: quorumca doctor --config FILE; gone for good:" in result.out
    assert result.out.endswith(f"Looked at http://{api.address}: 1 critical.\n")
    shown = json.loads(run("doctor --format json").out)
    assert (shown["Healthy"], shown["LookedAt"]) == (False, [f"http://{api.address}"])
    (finding,) = shown["Findings"]
    assert (finding["Severity"], finding["Code"], finding["Subject"]) == ("critical", "server-unhealthy", "ca-2")
    assert all(finding.values())


def test_several_nodes_are_asked_each_once(run: Run, api: FakeApi, second: FakeApi) -> None:
    healthy(api)
    healthy(second)
    flags = f"--http-addr {api.address} -http-addr {second.address} --http-addr {second.address}"
    result = run(f"doctor {flags} --token secret")
    assert (result.code, result.out) == (
        0,
        f"Looked at http://{api.address}, http://{second.address}: nothing is wrong.\n",
    )
    for asked in (api, second):
        assert [request.path for request in asked.requests].count("/v1/agent/self") == 1
        assert {request.token for request in asked.requests} == {"secret"}


@pytest.mark.parametrize("path", ["/v1/agent/self", "/v1/agent/metrics", "/v1/operator/digest", HEALTH])
def test_what_the_token_does_not_give_is_said(run: Run, api: FakeApi, path: str) -> None:
    healthy(api)
    api.answer("GET", path, "Permission denied: anonymous token lacks permission 'x'", status=403)
    result = run("doctor")
    assert result.code == Exit.UNHEALTHY
    assert "WARNING no-right-to-look: " in result.out
    assert "Unexpected response code: 403 (Permission denied" in result.out
    assert result.out.endswith("1 warning.\n")


def test_node_without_a_leader_is_not_asked_what_it_would_wait_for(run: Run, api: FakeApi) -> None:
    healthy(api)
    api.answer("GET", "/v1/agent/self", {**OWN, "Stats": {"raft": {"leader": ""}}})
    assert "CRITICAL no-leader" in run("doctor").out
    assert HEALTH not in [request.path for request in api.requests]


def test_unreachable_node_is_a_finding(run: Run) -> None:
    result = run("doctor --http-addr 127.0.0.1:1")
    assert result.code == Exit.UNHEALTHY
    assert result.out.startswith("CRITICAL node-unreachable: http://127.0.0.1:1: cannot reach")


def test_config_alone_asks_no_node(run: Run, api: FakeApi) -> None:
    Path("node.toml").write_text("nonsense = 1\n")
    result = run("doctor --config node.toml")
    assert (result.code, api.requests) == (Exit.UNHEALTHY, [])
    assert "CRITICAL config: node.toml: nonsense: unknown key" in result.out
    healthy(api)
    both = run(f"doctor --config node.toml --http-addr {api.address}")
    assert f"Looked at node.toml, http://{api.address}: " in both.out


def test_control_characters_of_a_server_do_not_reach_the_terminal(run: Run, api: FakeApi) -> None:
    healthy(api)
    api.answer("GET", "/v1/agent/self", {**OWN, "Stats": {**OWN["Stats"], "ca": {"trouble": "no\x1b[2J"}}})
    result = run("doctor")
    assert "ca-trouble: ca-1: no\ufffd[2J" in result.out


# -- the clock


@pytest.mark.parametrize("ahead", [0, 300, -300])
def test_clock_of_a_server_is_measured(api: FakeApi, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr("cluster.client.api.time.time", lambda: real() - ahead)
    monkeypatch.setattr("http.server.email.utils.formatdate", lambda _t=None, **_o: formatdate(real(), usegmt=True))
    api.answer("GET", "/x", "")
    measured = Api(parse_address(api.address)).clock_ahead("/x")
    assert measured is not None
    low, high = measured
    assert low <= ahead <= high
    assert high - low < 5


# -- access control

SELF = "/v1/agent/self"
ROTATION = "/v1/connect/ca/rotation"
DENIED = "Permission denied: anonymous token lacks permission 'agent:read' on \"ca-1\""


@pytest.mark.parametrize("status", [401, 403])
def test_node_that_does_not_let_us_look_is_up_and_is_looked_at_as_far_as_it_lets_us(
    run: Run, api: FakeApi, status: int
) -> None:
    healthy(api)
    for path in (SELF, "/v1/agent/metrics", ROTATION, "/v1/operator/digest", HEALTH):
        api.answer("GET", path, DENIED, status)
    api.answer("GET", "/v1/status/ready", "ready\n")
    shown = json.loads(run("doctor --format json").out)
    (finding,) = shown["Findings"]
    assert (finding["Severity"], finding["Code"]) == ("warning", "no-right-to-look")
    assert "agent:read and operator:read missing" in finding["What"]
    assert DENIED in finding["What"]
    assert "builtin/global-read-only" in finding["Next"]
    asked = [request.path for request in api.requests]
    assert {"/v1/status/leader", "/v1/status/ready", "/v1/connect/ca/roots"} <= {*asked}


def test_what_anybody_may_see_is_found_without_rights(run: Run, api: FakeApi) -> None:
    healthy(api)
    api.answer("GET", SELF, DENIED, 403)
    api.answer("GET", "/v1/status/ready", "not ready: there is no CA yet", 503)
    out = run("doctor").out
    assert f"CRITICAL not-ready: http://{api.address}: not ready: there is no CA yet" in out
    api.answer("GET", "/v1/status/leader", '""')
    assert "CRITICAL no-leader" in run("doctor").out
    api.answer("GET", "/v1/status/leader", DENIED, 403)  # it does not say whether there is one
    assert "no-leader" not in run("doctor").out


def test_only_the_right_that_is_missing_is_named(run: Run, api: FakeApi) -> None:
    healthy(api)
    api.answer("GET", ROTATION, "Permission denied", 403)
    result = run("doctor")
    assert (result.code, result.out.count("WARNING")) == (4, 1)
    assert "WARNING no-right-to-look: ca-1: it runs, and does not let you look: operator:read missing" in result.out


def test_node_that_fails_is_not_one_that_forbids(run: Run, api: FakeApi) -> None:
    healthy(api)
    api.answer("GET", SELF, "boom", 500)
    assert "CRITICAL node-unreachable" in run("doctor").out
