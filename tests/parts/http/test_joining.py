"""/v1/operator/agent-ca and /v1/operator/join-token."""

from typing import Any

import pytest

from cluster.api.joining import JoinTokenWanted
from cluster.base.errors import Refused
from cluster.http.openapi.document import DOCUMENT
from tests.parts.http.conftest import Running

CA = "/v1/operator/agent-ca"
TOKEN = "/v1/operator/join-token"
NEW = {"Name": "n4", "Address": "10.0.0.4:8300", "RPC": "10.0.0.4:8400"}
GIVEN = {"Certificate": "a certificate", "PrivateKey": "a key"}


def described(name: str) -> list[str]:
    return list(DOCUMENT["components"]["schemas"][name]["properties"])


async def test_agent_ca_is_given_shown_without_its_key_and_taken_away(api: Running) -> None:
    assert (await api.get(CA)).status == 404
    assert (await api.put(CA, {**GIVEN, "NodeCertTTL": "24h"})).status == 200
    assert ("set_agent_ca", ("a certificate", "a key", 86_400)) in api.service.calls
    answer = (await api.get(CA)).json()
    assert list(answer) == described("AgentCA")
    assert answer["NodeCertTTL"] == "24h0m0s"
    assert (await api.ask("DELETE", CA)).status == 200
    assert (await api.get(CA)).status == 404


async def test_certificates_are_for_days_unless_it_is_said(api: Running) -> None:
    await api.put(CA, GIVEN)
    assert ("set_agent_ca", ("a certificate", "a key", 3 * 86_400)) in api.service.calls


@pytest.mark.parametrize(
    "body",
    [
        {"Certificate": "a certificate"},
        {"PrivateKey": "s3cret"},
        {**GIVEN, "PrivateKey": ["s3cret"]},
        {**GIVEN, "NodeCertTTL": "1s"},
        {**GIVEN, "NodeCertTTL": "10000h"},
        {**GIVEN, "NodeCertTTL": "x"},
        {**GIVEN, "Key": "s3cret"},
        [],
    ],
)
async def test_agent_ca_that_is_none_is_400_and_its_key_not_repeated(api: Running, body: Any) -> None:
    answer = await api.put(CA, body)
    assert answer.status == 400
    assert "s3cret" not in answer.text + str(api.log.events)
    assert "set_agent_ca" not in dict(api.service.calls)


async def test_token_is_shown_once_with_what_the_machine_needs(api: Running) -> None:
    asked = {**NEW, "TTL": "5m", "Rejoin": True, "Force": True}
    answer = await api.put(TOKEN, asked)
    assert (
        "new_join_token",
        (JoinTokenWanted("n4", "10.0.0.4:8300", "10.0.0.4:8400", 300, True, True),),
    ) in api.service.calls
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert list(body) == described("JoinToken")
    assert (body["Token"], body["CAFingerprint"], body["JoinAddress"]) == ("s3cret", "ab" * 32, "")
    assert "s3cret" not in str(api.log.events)


async def test_token_is_for_minutes_unless_it_is_said(api: Running) -> None:
    await api.put(TOKEN, NEW)
    wanted = JoinTokenWanted("n4", "10.0.0.4:8300", "10.0.0.4:8400", 900, False)
    assert ("new_join_token", (wanted,)) in api.service.calls


async def test_server_that_comes_back_is_where_it_was(api: Running) -> None:
    await api.put(TOKEN, {"Name": "n4", "Rejoin": True})
    assert ("new_join_token", (JoinTokenWanted("n4", "", "", 900, True),)) in api.service.calls


@pytest.mark.parametrize(
    "body",
    [
        {},
        {**NEW, "Name": "N4"},
        {**NEW, "Name": "a/b"},
        {**NEW, "Name": 7},
        {**NEW, "Address": "x"},
        {**NEW, "RPC": "x:0"},
        {**NEW, "TTL": "59s"},
        {**NEW, "TTL": "61m"},
        {**NEW, "Rejoin": "yes"},
        {**NEW, "Force": True},
        {**NEW, "Adress": "10.0.0.4:8300"},
        {"Name": "n4", "Address": "10.0.0.4:8300"},
        {"Name": "n4", "RPC": "10.0.0.4:8400"},
        {"Name": "n4", "Rejoin": True, "RPC": "x"},
        [],
    ],
)
async def test_token_that_is_none_is_400(api: Running, body: Any) -> None:
    assert (await api.put(TOKEN, body)).status == 400
    assert "new_join_token" not in dict(api.service.calls)


async def test_refusal_has_its_reason(api: Running) -> None:
    api.service.fail_with["new_join_token"] = Refused("n4 is a server already")
    answer = await api.put(TOKEN, NEW)
    assert (answer.status, answer.text) == (422, "n4 is a server already")
