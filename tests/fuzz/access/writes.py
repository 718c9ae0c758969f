"""JSON of operators, down to the command that is proposed for it; and the header that tokens travel in between servers.

What can be proposed can be applied: a command that comes of any input is within the bounds of the log.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from cluster.access import render, writers
from cluster.access.inputs import AuthMethodInput, BindingRuleInput, PolicyInput, RoleInput, TokenInput, read_input
from cluster.access.login import MetaRefused, description_of
from cluster.access.method_writers import MethodWriter
from cluster.access.secret_ids import hash_of
from cluster.api.access import MAX_SECRET_ID
from cluster.base.errors import BadRequest, NotFound, PermissionDenied
from cluster.http.body import decode_object
from cluster.rpc.operation import NotUnderstood
from cluster.rpc.tokens import pack_tokens, unpack_tokens
from fsm.acl import Acl
from fsm.apply import apply
from fsm.codec import check_command, dump_command, dump_state, load_command, load_state
from fsm.commands import Applied
from fsm.state import State
from tests.fuzz.access.changes import Mutate, of_json, of_text
from tests.fuzz.access.logins import done, method_seeds
from tests.fuzz.access.prompt import promptly
from tests.kit import acl_samples
from tests.kit.acl_samples import NOW, uuid

INPUT_ERRORS: Final = (BadRequest, NotFound, PermissionDenied, MetaRefused)
HEADER_ERRORS: Final = (NotUnderstood,)

_STATE: Final = acl_samples.with_one_of_each(State())
_ACL: Final = replace(_STATE.acl, methods=(acl_samples.method(config_json=method_seeds()[0][1:].decode(), sealed=b""),))


def _hashed(secret_id: str) -> bytes:
    return hash_of(secret_id, b"k" * 32)


class _Prover:
    """Every key set answers."""

    async def check(self, config: object) -> None: ...


class _Sealer:
    def open_bare(self, what: str, sealed: bytes) -> bytes:
        return sealed.removeprefix(what.encode())

    def seal_bare(self, what: str, plain: bytes) -> bytes:
        return what.encode() + plain


_METHODS: Final[Any] = MethodWriter(_Prover(), _Sealer())  # type: ignore[arg-type]


def _new_policy(body: Any) -> Any:
    return writers.set_policy(_ACL, "", read_input(PolicyInput, "Policy", body))


def _policy(body: Any) -> Any:
    return writers.set_policy(_ACL, uuid(1), read_input(PolicyInput, "Policy", body))


def _new_role(body: Any) -> Any:
    return writers.set_role(_ACL, "", read_input(RoleInput, "Role", body))


def _role(body: Any) -> Any:
    return writers.set_role(_ACL, uuid(1), read_input(RoleInput, "Role", body))


def _new_token(body: Any) -> Any:
    return writers.new_token(_ACL, read_input(TokenInput, "Token", body), _hashed, NOW).command


def _token(body: Any) -> Any:
    return writers.changed_token(_ACL, uuid(1), read_input(TokenInput, "Token", body), _hashed, NOW)


def _method(body: Any) -> Any:
    given = read_input(AuthMethodInput, "AuthMethod", body)
    return _METHODS.set_method(_ACL, done(_METHODS.prepared(_ACL, "", given)))


def _new_rule(body: Any) -> Any:
    return _METHODS.set_binding_rule(_ACL, "", read_input(BindingRuleInput, "BindingRule", body))


def _rule(body: Any) -> Any:
    return _METHODS.set_binding_rule(_ACL, uuid(1), read_input(BindingRuleInput, "BindingRule", body))


def _bootstrap(body: Any) -> Any:
    secret = body.get("bootstrapsecret", "") if isinstance(body, dict) else ""
    if not isinstance(secret, str):
        raise BadRequest("no text")
    return writers.management_token(secret, "", _hashed, NOW).command


_WRITES: Final[tuple[Callable[[Any], Any], ...]] = (
    *(_new_policy, _policy, _new_role, _role, _new_token, _token, _method, _new_rule, _rule, _bootstrap),
)
_LINKS: Final = [{"ID": uuid(1)}, {"Name": "policy-1"}]
_RIGHTS: Final = {
    "Policies": _LINKS,
    "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}, {"ServiceName": "api"}],
    "NodeIdentities": [{"NodeName": "n1", "Datacenter": "dc1"}],
}


def input_seeds() -> list[bytes]:
    policy = {"Name": "web", "Description": "d", "Rules": 'service "web" { policy = "write" }', "Datacenters": ["dc1"]}
    role = {"Name": "team", "Description": "d", **_RIGHTS}
    token = {"Description": "d", **_RIGHTS, "Roles": [{"Name": "role-1"}]}
    new_token = {**token, "AccessorID": uuid(77), "SecretID": uuid(78), "ExpirationTTL": "1h", "Local": False}
    rule = {
        "AuthMethod": "jwt-1",
        "Selector": "value.project == web",
        "BindType": "service",
        "BindName": "${value.project}",
    }
    method = {"Name": "ci", "Type": "jwt", "MaxTokenTTL": "5m", "Config": json.loads(method_seeds()[0][1:])}
    bodies: list[Any] = [
        *(policy, {**policy, "ID": uuid(1)}, role, {**role, "ID": uuid(1)}, new_token),
        *(
            {**token, "AccessorID": uuid(1), "ExpirationTime": "0001-01-01T00:00:00Z", "Hash": "x", "CreateIndex": 3},
            method,
        ),
        *(rule, {**rule, "ID": uuid(1)}, {"BootstrapSecret": uuid(79)}),
    ]
    return [bytes([number]) + json.dumps(body).encode() for number, body in enumerate(bodies)] + [
        bytes([4]) + json.dumps({**token, "ExpirationTime": "2027-01-15T09:00:00Z"}).encode(),
        bytes([len(bodies)]) + json.dumps({"pod": "web-1", "b": "c"}).encode(),
    ]


_INPUT_WORDS: Final = (
    *(b'"Name"', b'"ID"', b'"Policies"', b'"Roles"', b'"ExpirationTTL"', b'"ExpirationTime"', b'"Local"', b'"Rules"'),
    *(
        b'"Hash"',
        b'"Namespace"',
        b'"default"',
        b'"TemplatedPolicies"',
        b'"SecretID"',
        b'"<hidden>"',
        b'"1h"',
        b"60000000000",
    ),
    *(b'"2027-01-15T08:30:00Z"', b'"2027-01-15T08:30:00+23:59"', b'"0001-01-01T00:00:00Z"', b'"9999-12-31T23:59:59Z"'),
    *(b"[", b"]", b"{", b"}", b",", b":", b"null", b"true"),
)
mutated_input: Final[Mutate] = of_json(_INPUT_WORDS)


def written(data: bytes) -> object:
    number = (data[0] if data else 0) % (len(_WRITES) + 1)
    body = dict(decode_object(data[1:]))
    if number == len(_WRITES):
        if not all(isinstance(value, str) for value in body.values()):
            raise BadRequest("no texts")
        return description_of(body)
    command = promptly(len(data), lambda: _WRITES[number](body))
    check_command(command)
    assert load_command(dump_command(command)) == command
    state, result = apply(replace(_STATE, acl=_ACL), command)
    if isinstance(result, Applied):
        assert load_state(dump_state(state)) == state
        _check_shown(state.acl)
    return command


def _check_shown(acl: Acl) -> None:
    """All that was written can be shown."""
    shown = [
        *(render.token_object(one, render.Names.of(acl)) for one in acl.tokens),
        *(render.role_object(one, render.Names.of(acl)) for one in acl.roles),
        *(render.policy_object(one) for one in acl.policies),
        *(render.method_object(one) for one in acl.methods),
        *(render.rule_object(one) for one in acl.binding_rules),
    ]
    assert json.dumps(shown, ensure_ascii=False).encode()


# -- the header between servers


def header_seeds() -> list[bytes]:
    several = pack_tokens([(uuid(1), "10.0.0.7"), ("", ""), ("x" * MAX_SECRET_ID, ""), ("\u00e9\ud800", "::1")])
    return [b"\x04" + several.encode(), b"\x01" + pack_tokens([(uuid(2), "")]).encode(), b"\x03,,YQ", b"\x02"]


mutated_header: Final[Mutate] = of_text(
    (b",", b",,", b"=", b"YQ", b"YQ==", b"YR", b"-", b"_", b"+", b"7aCA", b"_w", b"A" * 400)
)


def header(data: bytes) -> object:
    """As many as there are requests; each as somebody could have sent it."""
    count, text = (data[0] if data else 0) % 5 or 1, data[1:].decode("latin-1")
    found = promptly(len(data), lambda: unpack_tokens(text, count))
    assert len(found) == count
    assert all(len(one.secret_id) <= MAX_SECRET_ID for one in found)
    assert unpack_tokens(pack_tokens(found), count) == found
    return found
