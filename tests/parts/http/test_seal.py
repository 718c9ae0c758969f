"""/v1/operator/seal."""

import pytest

from cluster.base.errors import NoLeader, Refused
from cluster.http.openapi.document import DOCUMENT
from tests.parts.http.conftest import Running

PATH = "/v1/operator/seal"


def keys_of(answer: dict[str, list[dict[str, object]]]) -> set[object]:
    return {node["KeyID"] for node in answer["Nodes"]}


async def test_status_shows_every_server(api: Running) -> None:
    answer = (await api.get(PATH)).json()
    assert answer["Settled"] is True
    assert [node["Node"] for node in answer["Nodes"]] == ["n1", "n2", "n3"]
    assert keys_of(answer) == {"old-key"}
    described = DOCUMENT["components"]["schemas"]["Seal"]["properties"]
    assert set(answer) == set(described)
    assert list(answer["Nodes"][0]) == list(described["Nodes"]["items"]["properties"])


@pytest.mark.parametrize(
    ("body", "keeps_key"),
    [({}, False), ({"KeepKey": True}, True), ({"keepkey": False}, False), ({"keep_key": True}, True)],
)
async def test_change_is_made_as_asked_and_answered_with_the_status(
    api: Running, body: dict[str, object], keeps_key: bool
) -> None:
    answer = (await api.put(PATH, body)).json()
    assert ("rotate_seal", (keeps_key,)) in api.service.calls
    assert keys_of(answer) == {"old-key" if keeps_key else "new-key"}


@pytest.mark.parametrize(
    ("error", "status"), [(Refused("node-2: it is missing"), 422), (NoLeader("No cluster leader"), 503)]
)
async def test_refusal_has_its_reason(api: Running, error: Exception, status: int) -> None:
    api.service.fail_with["rotate_seal"] = error
    answer = await api.put(PATH, {})
    assert (answer.status, answer.text.strip()) == (status, str(error))


@pytest.mark.parametrize("body", [[], 7, {"KeepKey": "yes"}])
async def test_anything_else_is_400_and_asks_nobody(api: Running, body: object) -> None:
    assert (await api.put(PATH, body)).status == 400
    assert "rotate_seal" not in dict(api.service.calls)
