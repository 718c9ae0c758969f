"""Where a secret is put in the wrong place or form, the error says so without repeating it."""

import json

import pytest

from cluster.access.agent_tokens import AgentTokens
from cluster.access.inputs import TokenInput, read_input
from cluster.base.errors import BadRequest, NotFound
from tests.parts.http.conftest import Running

SECRET = "5ec7e7d0-1a2b-4c3d-8e4f-a0b1c2d3e4f5"


@pytest.mark.parametrize("given", [[SECRET], {"a": SECRET}, {SECRET: 1}])
@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("PUT", "/v1/agent/token/agent", "Token"),
        ("PUT", "/v1/acl/bootstrap", "BootstrapSecret"),
        ("POST", "/v1/acl/login", "BearerToken"),
    ],
)
async def test_secret_of_the_wrong_type_is_not_shown(
    api: Running, method: str, path: str, name: str, given: object
) -> None:
    reply = await api.ask(method, path, json={name: given})
    assert reply.status == 400
    assert name.lower() in reply.text.lower()
    assert SECRET not in reply.text
    assert SECRET not in json.dumps(api.log.events, default=repr)


@pytest.mark.parametrize(
    "given", ["agent.token", "/etc/quorumca/agent.token", f"{SECRET}\n", f"{{{SECRET}}}", SECRET.replace("-", ""), "é"]
)
@pytest.mark.parametrize("kind", ["agent", "agent_recovery", "default"])
async def test_token_of_a_node_is_a_uuid_and_what_is_none_is_not_repeated(api: Running, kind: str, given: str) -> None:
    reply = await api.ask("PUT", f"/v1/agent/token/{kind}", json={"Token": given})
    assert (reply.status, reply.text) == (
        400,
        "Token is not allowed: must be a SecretID, which is a UUID, or empty to take one away",
    )
    assert "put_agent_token" not in [name for name, _ in api.service.calls]


@pytest.mark.parametrize("given", [SECRET, SECRET.upper(), ""])
async def test_token_of_a_node_that_is_one_is_set(api: Running, given: str) -> None:
    assert (await api.ask("PUT", "/v1/agent/token/agent", json={"Token": given})).status == 200


@pytest.mark.parametrize("secret", [SECRET, SECRET.upper()])
def test_secret_in_the_place_of_a_name_is_not_shown(secret: str) -> None:
    with pytest.raises(NotFound, match=r'^Token "<hidden>" is unknown$'):
        AgentTokens("n").put(secret, "x")
    with pytest.raises(NotFound, match=r'^Token "agnet" is unknown$'):
        AgentTokens("n").put("agnet", "x")
    for body in ({secret: "x"}, {"Policies": [{secret: "x"}]}, {secret.lower(): 1, secret.upper(): 2}):
        with pytest.raises(BadRequest) as caught:
            read_input(TokenInput, "Token", body)
        assert "<hidden>" in str(caught.value)
        assert SECRET not in str(caught.value).lower()
