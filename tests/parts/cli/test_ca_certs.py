import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.kit.fake_api import FakeApi
from tests.parts.cli.conftest import Run

CERTS = "/v1/connect/ca/certs"
CERT = {
    "SerialNumber": "01:2f",
    "Kind": "service",
    "Service": "web",
    "SpiffeID": "spiffe://1.consul/ns",
    "IssuerKeyID": "aa:bb",
    "PublicKeySHA256": "cc",
    "ValidAfter": "2026-01-01T00:00:00Z",
    "ValidBefore": "2026-01-04T00:00:00Z",
    "RequestedBy": "",
    "CreateIndex": 12,
}


def test_list_as_table_says_how_to_go_on(run: Run, api: FakeApi) -> None:
    api.answer("GET", CERTS, {"Certs": [CERT], "Next": "12"})
    result = run("ca certs")
    assert result.code == 0
    assert result.out == (
        "SerialNumber  Kind     Service  SpiffeID              ValidBefore           RequestedBy\n"
        "01:2f         service  web      spiffe://1.consul/ns  2026-01-04T00:00:00Z  -\n"
    )
    assert result.err == "There are more: go on with --after 12\n"


def test_list_shows_tokens_where_there_were_any(run: Run, api: FakeApi) -> None:
    api.answer("GET", CERTS, {"Certs": [CERT, CERT | {"RequestedByAccessorID": "1-2"}], "Next": None})
    header, *rows = [re.split(r"  +", line) for line in run("ca certs").out.splitlines()]
    assert header[-2:] == ["RequestedBy", "RequestedByAccessorID"]
    assert [row[-2:] for row in rows] == [["-", "-"], ["-", "1-2"]]


def test_list_as_json(run: Run, api: FakeApi) -> None:
    answer = {"Certs": [CERT], "Next": None}
    api.answer("GET", CERTS, answer)
    result = run("ca certs -format json")
    assert (json.loads(result.out), result.err) == (answer, "")


def test_filters_become_the_query(run: Run, api: FakeApi) -> None:
    api.answer("GET", CERTS, {"Certs": [], "Next": None})
    argv = (
        "-service web -spiffe-id spiffe://x/y -kind mesh-gateway -issuer aa:bb -accessor 1-2 -limit 5 -after 7 -stale"
    )
    assert run(f"ca certs {argv} -expires-before 2027-01-31").code == 0
    assert api.last.query == {
        "service": "web",
        "spiffe_id": "spiffe://x/y",
        "kind": "mesh-gateway",
        "issuer": "aa:bb",
        "accessor": "1-2",
        "limit": "5",
        "after": "7",
        "stale": "",
        "expires_before": "2027-01-31T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("text", "sent"),
    [("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"), ("2027-01-31T12:00:00+02:00", "2027-01-31T10:00:00Z")],
)
def test_expiry_is_sent_in_utc(run: Run, api: FakeApi, text: str, sent: str) -> None:
    api.answer("GET", CERTS, {"Certs": []})
    run("ca", "certs", "--expires-before", text)
    assert api.last.query["expires_before"] == sent


def test_expiry_from_now_on(run: Run, api: FakeApi) -> None:
    api.answer("GET", CERTS, {"Certs": []})
    earliest = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=72)
    run("ca certs --expires-before 72h")
    sent = datetime.fromisoformat(api.last.query["expires_before"])
    assert earliest <= sent <= datetime.now(UTC) + timedelta(hours=72)


def test_one_certificate(run: Run, api: FakeApi) -> None:
    api.answer("GET", f"{CERTS}/01:2F", CERT)
    result = run("ca certs 01:2F")
    assert result.code == 0
    shown = dict(re.split(r"  +", line) for line in result.out.splitlines()[1:])
    unsaid = dict.fromkeys(("RequestedVia", "RequestedByAccessorID"), "-")
    assert shown == {name: str(value) or "-" for name, value in CERT.items()} | unsaid
    assert json.loads(run("ca certs 01:2F -format=json").out) == CERT


def test_serial_cannot_leave_its_path(run: Run, api: FakeApi) -> None:
    api.answer("GET", f"{CERTS}/..%2Froots%3F", "unknown serial", status=404)
    result = run("ca certs ../roots?")
    assert result.err == ("Error querying certificate ../roots?: Unexpected response code: 404 (unknown serial)\n")
    assert result.code == 1


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("0e -limit 3", "SERIAL cannot be given together with filters"),
        ("-limit many", "argument --limit: 'many' is not allowed: must be a whole number from 1 to 1000"),
        ("-kind root", "argument --kind: invalid choice: 'root' (choose from"),
        ("-expires-before soon", "argument --expires-before: 'soon' is not allowed: must be a time as in"),
        ("-expires-before 9999999999h", "argument --expires-before: '9999999999h' is not allowed"),
    ],
)
def test_usage_errors(run: Run, argv: str, text: str) -> None:
    result = run(f"ca certs {argv}")
    assert result.code == 2
    assert text in result.err
