"""Blocking queries and access control: each list waits for its own news, and who waits is judged again meanwhile."""

import asyncio
import json
from dataclasses import replace

import pytest

from cluster.access.authorizer import Authorizer
from cluster.access.rules import parse_rules
from cluster.api.access import Caller
from cluster.base.errors import TokenUnknown
from fsm.acl import ANONYMOUS, AclCommand, DeleteTokens, SetAuthMethod, SetBindingRule, SetPolicy, SetRole, SetToken
from tests.kit.acl_samples import binding_rule, method, policy, role, token, uuid
from tests.kit.callers import MANAGER
from tests.parts.http.conftest import Reply, Running

NUMBER = 70
#: What changes each list, and nothing else.
LISTS: dict[str, AclCommand] = {
    "tokens": SetToken(token(NUMBER)),
    "policies": SetPolicy(policy(NUMBER)),
    "roles": SetRole(role(NUMBER)),
    "auth-methods": SetAuthMethod(method("jwt-70")),
    "binding-rules": SetBindingRule(binding_rule(NUMBER)),
}
#: One of each list, which is answered with the list's index.
ONES = {
    "tokens": f"token/{uuid(1)}",
    "policies": f"policy/{uuid(1)}",
    "roles": f"role/{uuid(1)}",
    "auth-methods": "auth-method/jwt-1",
    "binding-rules": f"binding-rule/{uuid(1)}",
}
LEAF = "/v1/agent/connect/ca/leaf/web"
HEADERS = {"X-Consul-Token": MANAGER.secret_id}


async def ask(api: Running, path: str) -> Reply:
    return await api.get(f"/v1/acl/{path}", headers=HEADERS)


@pytest.mark.parametrize("name", LISTS)
async def test_list_waits_for_its_own_news_and_no_others(api: Running, name: str) -> None:
    await api.service.commit(LISTS["auth-methods" if name != "auth-methods" else "policies"])  # the newest is elsewhere
    index = int((await ask(api, name)).headers["X-Consul-Index"])
    assert (await ask(api, ONES[name])).headers["X-Consul-Index"] == str(index)
    waiting = asyncio.ensure_future(ask(api, f"{name}?index={index}&wait=30s"))
    for other, command in LISTS.items():
        if other not in (name, "auth-methods" if name != "auth-methods" else "policies"):
            await api.service.commit(command)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await api.service.commit(LISTS[name])
    reply = await asyncio.wait_for(waiting, 5)
    assert reply.status == 200
    assert int(reply.headers["X-Consul-Index"]) == api.service.state.index > index


def admit(api: Running, rules: str) -> Caller:
    authorizer = Authorizer(parse_rules(rules), allows_by_default=False)
    caller = Caller(uuid(77), uuid(7), authorizer)
    api.service.callers[caller.secret_id] = caller
    return caller


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ('service "web" { policy = "read" }', "lacks permission 'service:write' on \"web\""),
        ('service_prefix "" { policy = "write" } service "web" { policy = "deny" }', "lacks permission"),
        ("", "lacks permission"),
    ],
)
async def test_leaf_is_waited_for_by_those_who_may_have_it(api: Running, rules: str, said: str) -> None:
    caller = admit(api, 'service "web" { policy = "write" }')
    waiting = asyncio.ensure_future(api.get(f"{LEAF}?index=99&wait=30s", headers={"X-Consul-Token": caller.secret_id}))
    await asyncio.sleep(0.7)  # it has been judged again once, and may stay
    assert not waiting.done()
    admit(api, rules)
    reply = await asyncio.wait_for(waiting, 5)
    assert reply.status == 403
    assert said in reply.text
    assert "-----" not in reply.text


async def test_leaf_is_not_waited_for_with_a_token_that_has_ended(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = admit(api, 'service "web" { policy = "write" }')
    waiting = asyncio.ensure_future(api.get(f"{LEAF}?index=99&wait=30s", headers={"X-Consul-Token": caller.secret_id}))
    await asyncio.sleep(0.1)

    def is_gone(_self: object, _caller: Caller) -> Caller:
        raise TokenUnknown("ACL not found")

    monkeypatch.setattr(type(api.service), "judged_again", is_gone)
    reply = await asyncio.wait_for(waiting, 5)
    assert (reply.status, reply.text) == (403, "ACL not found")


async def test_what_goes_with_something_else_is_news_too(api: Running) -> None:
    await api.service.commit(SetToken(token(NUMBER)))
    index = (await ask(api, "tokens")).headers["X-Consul-Index"]
    waiting = asyncio.ensure_future(ask(api, f"tokens?index={index}&wait=30s"))
    await asyncio.sleep(0.05)
    await api.service.commit(DeleteTokens((uuid(NUMBER),)))
    assert uuid(NUMBER) not in (await asyncio.wait_for(waiting, 5)).text


@pytest.mark.parametrize("secret_id", ["", MANAGER.secret_id])
async def test_own_token_tells_nothing_of_the_others(api: Running, secret_id: str) -> None:
    """Neither by its index nor by when a wait ends: each login would be seen by who has no token."""
    headers = {"X-Consul-Token": secret_id} if secret_id else {}
    [own] = [one for one in api.service.state.acl.tokens if one.accessor_id == (uuid(1) if secret_id else ANONYMOUS)]
    path = "/v1/acl/token/self"
    await api.service.commit(SetToken(token(NUMBER)))
    assert api.service.state.acl.tokens_index > own.modify_index
    index = (await api.get(path, headers=headers)).headers["X-Consul-Index"]
    assert index == str(own.modify_index)
    assert (await api.get(f"{path}?index={own.modify_index - 1}&wait=60s", headers=headers)).status == 200
    assert (await api.get(f"{path}?index={index}&wait=10ms", headers=headers)).headers["X-Consul-Index"] == index
    waiting = asyncio.create_task(api.get(f"{path}?index={index}&wait=60s", headers=headers))
    for number in range(1, 4):
        await api.service.commit(SetToken(token(NUMBER + number)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    await api.service.commit(SetToken(replace(own, description="another"), own.modify_index))
    reply = await waiting
    assert (reply.status, json.loads(reply.text)["Description"]) == (200, "another")
    assert reply.headers["X-Consul-Index"] == str(api.service.state.acl.tokens_index)
