"""What running nodes say, and what is found wrong with it: one view for each trouble, and none of a healthy cluster."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster.doctor.findings import Finding, Severity, is_well, ranked
from cluster.doctor.live import findings_of
from cluster.doctor.look import NodeView
from cluster.tls.certificates import new_ca

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
DAY = timedelta(days=1)


def pem(start: datetime, days: int) -> str:
    return new_ca(start, days).cert_pem


def root(name: str = "aa", *, start: datetime = NOW - DAY, days: int = 100, **changes: Any) -> dict[str, Any]:
    base = {"ID": name, "Active": True, "RootCert": pem(start, days), "IntermediateCerts": None, "SigningKeyID": "xx"}
    return base | changes


ROOT = root()


def gauge(name: str, value: float, **labels: str) -> dict[str, Any]:
    return {"Name": f"quorumca_{name}", "Value": value, "Labels": labels}


def server(name: str, *, is_healthy: bool = True) -> dict[str, Any]:
    return {"Name": name, "Healthy": is_healthy, "LastContact": "20ms"}


def own(name: str = "a", leader: str = "a", **ca: str) -> dict[str, Any]:
    facts = {"initialized": "true", "trouble": "", **ca}
    return {
        "Config": {"NodeName": name},
        "Stats": {"raft": {"leader": leader}, "quorumca": {"leader": str(name == leader).lower()}, "ca": facts},
    }


def view(name: str = "a", leader: str = "a", **changes: Any) -> NodeView:
    """Of a node of a healthy cluster, but for the changes."""
    base = NodeView(
        f"http://{name}:8500",
        own=own(name, leader),
        metrics={
            "Gauges": [
                gauge("disk_free_bytes", 5e9),
                gauge("disk_low", 0),
                gauge("tick_age_seconds", 3),
                gauge("node_cert_not_after_seconds", (NOW + 100 * DAY).timestamp(), certificate="node"),
            ],
            "Counters": [{"Name": "quorumca_scrub_damage", "Sum": 0.0, "Labels": {"file": "journal"}}],
        },
        health={"Healthy": True, "FailureTolerance": 1, "Servers": [server("a"), server("b"), server("c")]},
        roots={"TrustDomain": "11.consul", "Roots": [ROOT]},
        rotation={"Rotation": None, "Last": None},
        digest={"AppliedIndex": 7, "StateDigest": "s", "LedgerCount": 1, "LedgerDigest": "l"},
        ahead=(-0.9, 0.2),
    )
    return replace(base, **changes)


def found(*views: NodeView) -> list[Finding]:
    return ranked(findings_of(views, NOW))


def the_one(*views: NodeView) -> Finding:
    (finding,) = found(*views)
    assert all((finding.what, finding.why, finding.next))
    return finding


def kind(finding: Finding) -> tuple[Severity, str, str]:
    return finding.severity, finding.code, finding.subject


def test_nothing_is_wrong_with_a_healthy_cluster() -> None:
    assert found(view("a"), view("b"), view("c")) == []


# -- leader and servers


def test_node_that_does_not_tell_a_token_of_itself_is_not_said_to_be_away() -> None:
    path = "/v1/agent/self"
    refused = "Unexpected response code: 403 (Permission denied: anonymous token lacks permission 'agent:read')"
    silent = NodeView("http://b:8500", refusals={path: refused}, forbidden=[path], leader_address="127.0.0.1:8301")
    codes = [code for _, code, _ in map(kind, found(view(), silent))]
    assert "no-right-to-look" in codes
    assert "node-unreachable" not in codes


@pytest.mark.parametrize(
    ("refusal", "advises"),
    [
        ("403 (Permission denied: anonymous token lacks permission 'agent:read' on \"b\")", True),
        ("403 (ACL system must be bootstrapped before making any requests that require authorization: ...)", True),
        ("403 (Permission denied: token with AccessorID '1' lacks permission 'agent:read' on \"b\")", False),
        ("403 (ACL not found)", False),
    ],
)
def test_whoever_has_no_token_learns_how_the_first_one_is_made(refusal: str, advises: bool) -> None:
    path = "/v1/agent/self"
    silent = NodeView("http://b:8500", refusals={path: refusal}, forbidden=[path], leader_address="127.0.0.1:8301")
    [finding] = [one for one in found(view(), silent) if one.code == "no-right-to-look"]
    assert ("quorumca acl bootstrap" in finding.next) == advises


@pytest.mark.parametrize(
    ("said", "without"),
    [
        ((True, True, True), ""),
        ((False, False, False), ""),
        ((None, None, None), ""),
        ((True, None, True), ""),  # a release before does not say so
        ((False, None), ""),
        (("true", False), ""),
        ((True, False, True), "b"),
        ((False, True, False), "a, c"),
    ],
)
def test_first_token_is_closed_on_every_server_or_on_none(said: tuple[object, ...], without: str) -> None:
    views = [
        view(name, own=own(name) | ({} if is_set is None else {"DebugConfig": {"ACLInitialManagementFile": is_set}}))
        for name, is_set in zip("abc", said, strict=False)
    ]
    expected = [(Severity.WARNING, "initial-management-differs", without)] if without else []
    assert [kind(finding) for finding in found(*views)] == expected


def test_unreachable_node_is_a_warning_while_another_answers() -> None:
    gone = NodeView("http://b:8500", unreachable="cannot reach http://b:8500: Connection refused")
    assert kind(the_one(view(), gone)) == (Severity.WARNING, "node-unreachable", "http://b:8500")
    assert kind(the_one(gone)) == (Severity.CRITICAL, "node-unreachable", "http://b:8500")


def test_no_leader_anywhere() -> None:
    finding = the_one(view("a", leader="", health={}), view("b", leader="", health={}))
    assert kind(finding) == (Severity.CRITICAL, "no-leader", "a, b")
    assert "removed" not in finding.next


def test_server_that_alone_is_asked_and_knows_no_leader_may_have_been_removed() -> None:
    """The others refuse it, and it cannot hear why."""
    finding = the_one(view("a", leader="", health={}))
    assert kind(finding) == (Severity.CRITICAL, "no-leader", "a")
    assert "may have been removed: quorumca members --http-addr ANOTHER" in finding.next
    assert "bring the other servers back" in finding.next


def test_node_that_knows_no_leader_while_others_do() -> None:
    finding = the_one(view("a"), view("b", leader="", health={}))
    assert kind(finding) == (Severity.WARNING, "no-leader-known", "b")
    assert "--http-addr http://a:8500" in finding.next


def test_leader_that_was_not_asked_is_a_note() -> None:
    finding = the_one(view("b", leader="a"))
    assert kind(finding) == (Severity.NOTE, "leader-not-asked", "b")
    assert is_well([finding])


@pytest.mark.parametrize(("tolerance", "severity"), [(1, Severity.WARNING), (0, Severity.CRITICAL)])
def test_unhealthy_server(tolerance: int, severity: Severity) -> None:
    health = {"FailureTolerance": tolerance, "Servers": [server("a"), server("b"), server("c", is_healthy=False)]}
    finding = the_one(view(health=health))
    assert kind(finding) == (severity, "server-unhealthy", "c")
    assert "remove-peer -id c" in finding.next


def test_single_server_is_a_note() -> None:
    assert kind(the_one(view(health={"Servers": [server("a")]}))) == (Severity.NOTE, "single-server", "a")


# -- the CA


def test_trouble_of_the_ca_is_shown_in_its_own_words() -> None:
    finding = the_one(view(own=own(trouble="provider vault: connection refused")))
    assert kind(finding) == (Severity.CRITICAL, "ca-trouble", "a")
    assert finding.what == "provider vault: connection refused"


def test_each_warning_of_the_provider_is_shown_in_its_own_words() -> None:
    findings = found(view(own=own(warnings="the Vault token expires\nanother root")))
    assert [kind(finding) for finding in findings] == [(Severity.WARNING, "ca-warning", "a")] * 2
    assert [finding.what for finding in findings] == ["the Vault token expires", "another root"]


def test_ca_that_is_not_initialised() -> None:
    finding = the_one(view(own=own(initialized="false"), roots={}))
    assert kind(finding) == (Severity.CRITICAL, "ca-not-initialised", "a")


def test_leader_that_does_not_look_for_work() -> None:
    finding = the_one(view(metrics={"Gauges": [gauge("tick_age_seconds", 500)]}))
    assert kind(finding) == (Severity.WARNING, "leader-idle", "a")


@pytest.mark.parametrize(
    ("listed", "severity", "code"),
    [
        (root(start=NOW - 100 * DAY, days=99), Severity.CRITICAL, "root-expired"),
        (root(start=NOW - 81 * DAY, days=100), Severity.WARNING, "root-expires-soon"),
        (root(start=NOW + DAY), Severity.WARNING, "root-not-valid-yet"),
    ],
)
def test_active_root_that_ends(listed: dict[str, Any], severity: Severity, code: str) -> None:
    assert kind(the_one(view(roots={"Roots": [listed]}))) == (severity, code, "aa")


def test_active_root_with_more_than_a_fifth_of_its_life_is_fine() -> None:
    assert found(view(roots={"Roots": [root(start=NOW - 79 * DAY, days=100)]})) == []


def test_retired_root_matters_only_once_it_has_expired() -> None:
    soon = root("bb", start=NOW - 99 * DAY, days=100, Active=False)
    assert found(view(roots={"Roots": [ROOT, soon]})) == []
    expired = root("bb", start=NOW - 100 * DAY, days=99, Active=False)
    finding = the_one(view(roots={"Roots": [ROOT, expired]}))
    assert kind(finding) == (Severity.WARNING, "retired-root-expired", "bb")
    assert finding.next == "quorumca ca distrust bb"


@pytest.mark.parametrize(
    ("age", "signs", "expected"),
    [
        (100, True, [(Severity.CRITICAL, "intermediate-expired", "aa")]),
        (85, True, [(Severity.WARNING, "intermediate-expires-soon", "aa")]),
        (100, False, [(Severity.WARNING, "cross-signed-expired", "aa")]),
        (85, False, []),
        (10, True, []),
    ],
)
def test_intermediates(age: int, signs: bool, expected: list[Any]) -> None:
    from cryptography import x509

    intermediate = pem(NOW - age * DAY, 99)
    cert = x509.load_pem_x509_certificate(intermediate.encode())
    key_id = cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex(":")
    listed = root(IntermediateCerts=[intermediate], SigningKeyID=key_id if signs else "xx")
    assert [kind(finding) for finding in found(view(roots={"Roots": [listed]}))] == expected


def test_nodes_of_different_clusters() -> None:
    finding = the_one(view("a"), view("b", roots={"TrustDomain": "22.consul", "Roots": [ROOT]}))
    assert kind(finding) == (Severity.CRITICAL, "several-clusters", "a, b")


# -- rotation

ROTATION = {"ID": "r1", "Phase": "cross-sign", "PhaseSince": "2027-01-15T07:59:00Z", "WaitUntil": None, "Paused": False}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"PhaseSince": "2027-01-15T07:50:00Z"}, [(Severity.WARNING, "rotation-stuck", "r1")]),
        ({"Phase": "wait", "PhaseSince": "2027-01-14T08:00:00Z", "WaitUntil": "2027-01-15T09:00:00Z"}, []),
        ({"Phase": "wait", "WaitUntil": "2027-01-15T07:50:00Z"}, [(Severity.WARNING, "rotation-stuck", "r1")]),
        ({"Phase": "wait", "Paused": True}, [(Severity.NOTE, "rotation-paused", "r1")]),
    ],
)
def test_rotation_under_way(changes: Mapping[str, Any], expected: list[Any]) -> None:
    findings = found(view(rotation={"Rotation": {**ROTATION, **changes}, "Last": None}))
    assert [kind(finding) for finding in findings] == expected


def test_rotation_that_was_given_up_or_forced_is_a_note() -> None:
    given_up = view(rotation={"Rotation": None, "Last": {"ID": "r1", "Reason": "no key", "ClientsMayFailUntil": None}})
    assert kind(the_one(given_up)) == (Severity.NOTE, "rotation-given-up", "r1")
    last = {"ID": "r1", "Reason": "", "ClientsMayFailUntil": "2027-01-15T09:00:00Z"}
    assert kind(the_one(view(rotation={"Rotation": None, "Last": last}))) == (Severity.NOTE, "rotation-forced", "r1")
    last["ClientsMayFailUntil"] = "2027-01-15T07:00:00Z"
    assert found(view(rotation={"Rotation": None, "Last": last})) == []


# -- machines


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (-DAY, [(Severity.CRITICAL, "node-certificate-expired", "a")]),
        (5 * DAY, [(Severity.WARNING, "node-certificate-expires-soon", "a")]),
        (20 * DAY, []),
    ],
)
def test_certificate_of_a_node(left: timedelta, expected: list[Any]) -> None:
    metrics = {"Gauges": [gauge("node_cert_not_after_seconds", (NOW + left).timestamp(), certificate="node")]}
    assert [kind(finding) for finding in found(view(metrics=metrics))] == expected


@pytest.mark.parametrize(
    ("left", "is_late", "expected"),
    [
        (timedelta(hours=30), False, None),
        (20 * DAY, True, (Severity.WARNING, "node-certificate-expires-soon", "a")),
        (timedelta(hours=-1), True, (Severity.CRITICAL, "node-certificate-expired", "a")),
        (timedelta(hours=-1), False, (Severity.CRITICAL, "node-certificate-expired", "a")),
    ],
)
def test_certificate_that_a_node_renews_by_itself(left: timedelta, is_late: bool, expected: Any) -> None:
    metrics = {
        "Gauges": [
            gauge("node_cert_not_after_seconds", (NOW + left).timestamp(), certificate="node"),
            gauge("node_cert_expires_soon", float(is_late), certificate="node"),
        ]
    }
    findings = found(view(own={**own(), "DebugConfig": {"TLSRenews": True}}, metrics=metrics))
    assert [kind(finding) for finding in findings] == ([expected] if expected else [])
    for finding in findings:
        assert "should have renewed it by itself" in finding.what
        assert "join-token -name a -rejoin" in finding.next
        assert "tls cert create" not in finding.next


def test_certificate_of_the_api_is_not_renewed_by_the_node() -> None:
    metrics = {
        "Gauges": [
            gauge("node_cert_not_after_seconds", (NOW + DAY).timestamp(), certificate="http"),
            gauge("node_cert_expires_soon", 1.0, certificate="http"),
        ]
    }
    finding = the_one(view(own={**own(), "DebugConfig": {"TLSRenews": True}}, metrics=metrics))
    assert kind(finding) == (Severity.WARNING, "node-certificate-expires-soon", "a")
    assert "by itself" not in finding.what


@pytest.mark.parametrize(("free", "severity"), [(100e6, Severity.WARNING), (1e6, Severity.CRITICAL)])
def test_disk_alarm(free: float, severity: Severity) -> None:
    finding = the_one(view(metrics={"Gauges": [gauge("disk_low", 1), gauge("disk_free_bytes", free)]}))
    assert kind(finding) == (severity, "disk-low", "a")


@pytest.mark.parametrize(
    ("file", "severity", "code"),
    [("ledger", Severity.CRITICAL, "ledger-damaged"), ("journal", Severity.WARNING, "journal-damaged")],
)
def test_damage_that_a_node_has_found(file: str, severity: Severity, code: str) -> None:
    counters = [{"Name": "quorumca_scrub_damage", "Sum": 1.0, "Labels": {"file": file}}]
    assert kind(the_one(view(metrics={"Counters": counters}))) == (severity, code, "a")


def test_nodes_that_differ_at_the_same_index() -> None:
    other = {"AppliedIndex": 7, "StateDigest": "s", "LedgerCount": 1, "LedgerDigest": "other"}
    assert kind(the_one(view("a"), view("b", digest=other))) == (Severity.CRITICAL, "nodes-differ", "a, b")
    assert found(view("a"), view("b", digest={**other, "AppliedIndex": 8})) == []


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        ((-0.9, 0.2), []),
        ((-3.0, 8.0), []),  # a slow answer proves nothing
        ((6.0, 7.1), [(Severity.WARNING, "clock-skew", "b")]),
        ((-120.0, -118.0), [(Severity.CRITICAL, "clock-skew", "b")]),
    ],
)
def test_clock_of_one_node(ahead: tuple[float, float], expected: list[Any]) -> None:
    assert [kind(finding) for finding in found(view("a"), view("b", ahead=ahead))] == expected


def test_when_all_nodes_agree_it_is_our_own_clock() -> None:
    finding = the_one(view("a", ahead=(60.0, 61.0)), view("b", ahead=(59.5, 61.5)))
    assert kind(finding) == (Severity.WARNING, "own-clock-wrong", "this machine")
    two = found(view("a", ahead=(60.0, 61.0)), view("b", ahead=(-61.0, -60.0)))
    assert [finding.code for finding in two] == ["clock-skew", "clock-skew"]


# -- order


def test_the_worst_is_first_and_nothing_is_said_twice() -> None:
    gone = NodeView("http://b:8500", unreachable="no")
    findings = found(view(own=own(trouble="no provider"), health={"Servers": [server("a")]}), gone, gone)
    assert [finding.code for finding in findings] == ["ca-trouble", "node-unreachable", "single-server"]
    assert not is_well(findings)


@pytest.mark.parametrize("odd", [[], "text", None, 5])
def test_answers_that_are_not_understood_are_passed_over(odd: Any) -> None:
    strange = view(
        own={"Config": odd, "Stats": {"raft": {"leader": "a"}, "ca": odd, "quorumca": {"leader": "true"}}},
        metrics={"Gauges": odd, "Counters": odd},
        roots={"Roots": odd},
        rotation={"Rotation": odd, "Last": odd},
        health={"Servers": odd},
        digest={"AppliedIndex": odd} if odd is None else {},
    )
    assert [finding.code for finding in found(strange)] == ["ca-not-initialised"]


def of_policy(name: str, policy: str) -> NodeView:
    found = view(name)
    return replace(found, own={**found.own, "DebugConfig": {"ACLDefaultPolicy": policy} if policy else {}})


def test_nodes_that_differ_in_what_they_allow_by_default_are_named() -> None:
    views = [of_policy("a", "deny"), of_policy("b", "allow"), of_policy("c", "deny"), of_policy("d", "")]
    [finding] = [one for one in findings_of(views, NOW) if one.code == "default-policy-differs"]
    assert finding.severity is Severity.WARNING
    assert finding.what == "allow: b; deny: a, c"


@pytest.mark.parametrize("policies", [["deny", "deny"], ["allow", "allow"], ["deny", ""], ["", ""], ["deny"]])
def test_nodes_of_one_default_policy_are_well(policies: list[str]) -> None:
    views = [of_policy(name, policy) for name, policy in zip("ab", policies, strict=False)]
    assert "default-policy-differs" not in [one.code for one in findings_of(views, NOW)]
