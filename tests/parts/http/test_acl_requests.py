"""What is asked of access control in a form that is none: refused in Consul's words, before anybody hears of it."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from cluster.access.render import Names
from cluster.api.access import Caller
from fsm.acl import Acl, AclCommand, SetBindingRule, SetPolicy, SetRole, SetToken
from tests.kit.acl_samples import binding_rule, policy, role, token, uuid
from tests.kit.callers import MANAGER
from tests.parts.http.conftest import Reply, Running

HEADERS = {"X-Consul-Token": MANAGER.secret_id}
LONG = "x" * 257
#: Of whoever asks.
HERE = "127.0.0.1"


async def ask(api: Running, method: str, path: str, body: bytes | None = None) -> Reply:
    return await api.ask(method, f"/v1/acl/{path}", data=body, headers=HEADERS)


def written(api: Running) -> list[str]:
    return [name for name, _ in api.service.calls if name != "read"]


BODIES = {
    "bootstrap": "Request decoding failed",
    "token": "Token decoding failed",
    f"token/{uuid(1)}": "Token decoding failed",
    f"token/{uuid(1)}/clone": "Token decoding failed",
    "policy": "Policy decoding failed",
    f"policy/{uuid(1)}": "Policy decoding failed",
    "role": "Role decoding failed",
    "auth-method": "AuthMethod decoding failed",
    "auth-method/jwt-1": "AuthMethod decoding failed",
    "binding-rule": "BindingRule decoding failed",
    "login": "Failed to decode request body",
}


async def test_service_is_told_from_where_it_is_asked(api: Running) -> None:
    assert (await ask(api, "PUT", f"token/{uuid(1)}/clone")).status == 200
    [(caller, *_)] = [arguments for name, arguments in api.service.calls if name == "clone"]
    assert isinstance(caller, Caller)
    assert caller.asked_from == HERE


@pytest.mark.parametrize(("path", "text"), BODIES.items())
@pytest.mark.parametrize("body", [b"[", b"[]", b'"x"', b"\xff", b'{"a":1,"A":1}', b"{" * 5000])
async def test_body_that_is_no_object_is_refused_by_the_name_of_what_it_should_be(
    api: Running, path: str, text: str, body: bytes
) -> None:
    reply = await ask(api, "PUT", path, body)
    assert (reply.status, reply.text.startswith(f"{text}: ")) == (400, True), reply.text
    assert written(api) == []


@pytest.mark.parametrize(
    ("path", "text", "body"),
    [
        # Taken for none, it would use up the bootstrap, with another secret than the one that was meant.
        ("bootstrap", "Request decoding failed: unknown field", {"BootstrapSecrets": uuid(1)}),
        ("bootstrap", "Request decoding failed: Expected `str`, got `int`", {"BootstrapSecret": 1}),
        (f"token/{uuid(1)}/clone", "Token decoding failed: unknown field", {"Descripton": "x"}),
        ("login", "Failed to decode request body: unknown field", {"AuthMethod": "a", "Bearer": "b"}),
        ("login", "Failed to decode request body: Expected `str`, got `int`", {"AuthMethod": "a", "Meta": {"x": 1}}),
        ("login", "Failed to decode request body: namespace is 'team'", {"AuthMethod": "a", "Namespace": "team"}),
    ],
)
async def test_unknown_field_and_wrong_type_are_mistakes(
    api: Running, path: str, text: str, body: dict[str, Any]
) -> None:
    reply = await ask(api, "PUT", path, json.dumps(body).encode())
    assert (reply.status, reply.text.startswith(text)) == (400, True), reply.text
    assert written(api) == []


@pytest.mark.parametrize(
    ("path", "body", "call"),
    [
        ("bootstrap", b"", ("bootstrap", ("", HERE))),
        ("bootstrap", b' {"bootstrapSECRET": "x"} ', ("bootstrap", ("x", HERE))),
        (f"token/{uuid(1)}/clone", b"", ("clone", (MANAGER, uuid(1), ""))),
        (f"token/{uuid(1)}/clone", b'{"description": "x"}', ("clone", (MANAGER, uuid(1), "x"))),
        # The keys of a Meta are data: their case stays.
        (
            "login",
            b'{"authmethod": "a", "BEARERTOKEN": "b", "Meta": {"Pod": "P", "pod": "p"}, "Namespace": "default"}',
            ("login", ("a", "b", {"Pod": "P", "pod": "p"}, HERE)),
        ),
        ("login", b'{"AuthMethod": "a", "Meta": null}', ("login", ("a", "", {}, HERE))),
    ],
)
async def test_names_match_without_case(api: Running, path: str, body: bytes, call: tuple[str, Any]) -> None:
    assert (await ask(api, "PUT", path, body)).status == 200
    assert call in api.service.calls


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("token/", "Missing token AccessorID"),
        ("policy/", "Missing policy ID"),
        ("policy/name/", "Missing policy name"),
        ("role/", "Missing role ID"),
        ("role/name/", "Missing role name"),
        ("auth-method/", "Missing auth method name"),
        ("binding-rule/", "Missing binding rule ID"),
        (f"policy/{LONG}", "is longer than any: it has 257 characters"),
        (f"auth-method/{LONG}", "is longer than any: it has 257 characters"),
        ("token/x", "AccessorID 'x' is not a valid UUID"),
    ],
)
async def test_path_that_names_nothing(api: Running, path: str, text: str) -> None:
    for method in ("GET", "DELETE"):
        if method == "DELETE" and ("name/" in path or path == "token/x"):
            continue
        reply = await ask(api, method, path)
        assert (reply.status, text in reply.text) == (400, True), (method, reply)
    assert written(api) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("policy/x", "Policy ID invalid UUID"),
        (f"policy/{uuid(1)}0", "Policy ID invalid UUID"),
        ("role/x", "Role ID invalid UUID"),
        ("binding-rule/x", "Binding Rule ID invalid UUID"),
    ],
)
async def test_id_that_is_none_is_not_written(api: Running, path: str, text: str) -> None:
    reply = await ask(api, "PUT", path, b"{}")
    assert (reply.status, reply.text) == (400, text)
    assert written(api) == []


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("policy", SetPolicy(policy(0xABC))),
        ("role", SetRole(role(0xABC))),
        ("binding-rule", SetBindingRule(binding_rule(0xABC))),
        ("token", SetToken(token(0xABC))),
    ],
)
async def test_ids_are_the_same_in_either_case(api: Running, path: str, command: AclCommand) -> None:
    await api.service.commit(command)
    for found in (uuid(0xABC), uuid(0xABC).upper()):
        assert (await ask(api, "GET", f"{path}/{found}")).status == 200
        assert (await ask(api, "DELETE", f"{path}/{found}")).status == 200
        assert api.service.calls[-1][1][-1] == uuid(0xABC)


@pytest.mark.parametrize("path", ["tokens", "roles"])
async def test_list_takes_one_look_at_all_names_and_gives_others_their_turn(
    api: Running, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """As many objects as there can be, each with thousands of names to choose from: else a node stands still."""
    looks, turns, of = 0, 0, Names.of

    def counted(acl: Acl) -> Names:
        nonlocal looks
        looks += 1
        return of(acl)

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += looks > 0

    monkeypatch.setattr("cluster.access.render.Names.of", counted)
    roles = tuple(replace(role(1), role_id=uuid(n)) for n in range(1000))
    tokens = tuple(replace(token(1), accessor_id=uuid(n)) for n in range(1000))
    state = api.service.state
    api.service.state = replace(state, acl=replace(state.acl, roles=roles, tokens=tokens))
    others = asyncio.create_task(take_turns())
    reply = await ask(api, "GET", path)
    others.cancel()
    assert (reply.status, len(reply.json())) == (200, 1000)
    assert looks == 1
    assert turns > 7
