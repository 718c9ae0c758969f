"""What operators write: Consul's texts for every mistake, and the command that comes of what is right."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.access import writers
from cluster.access.inputs import PolicyInput, RoleInput, TokenInput, read_input
from cluster.base.errors import BadRequest, NotFound, PermissionDenied
from fsm.acl import ANONYMOUS, GLOBAL_MANAGEMENT, Acl, NodeIdentity, ServiceIdentity, SetPolicy, SetRole, SetToken
from fsm.apply import apply
from fsm.commands import Applied, Command
from fsm.state import State
from tests.kit.acl_samples import INIT, NOW, policy, role, token, uuid

SECRET = "0b5a33bd-2a5c-4c3c-8d5a-111111111111"
RESERVED = "00000000-0000-0000-0000-000000000099"


def hashed(secret_id: str) -> bytes:
    return secret_id.encode().rjust(36, b"\0")[:36]


def acl_of(*commands: Command) -> Acl:
    state = State()
    for command in (INIT, *commands):
        state, result = apply(state, command)
        assert isinstance(result, Applied), result
    return state.acl


ACL = acl_of(SetPolicy(policy(1)), SetRole(role(1)), SetToken(token(1, secret_hash=hashed(SECRET))))


def new(**fields: Any) -> writers.NewToken:
    return writers.new_token(ACL, read_input(TokenInput, "Token", fields), hashed, NOW)


def change(accessor_id: str = uuid(1), **fields: Any) -> SetToken:
    return writers.changed_token(ACL, accessor_id, read_input(TokenInput, "Token", fields), hashed, NOW)


def test_new_token_has_ids_of_its_own_and_what_was_asked_for() -> None:
    made = new(
        Description="d",
        policies=[{"Name": "policy-1"}, {"ID": uuid(1)}, {"ID": GLOBAL_MANAGEMENT}],
        ROLES=[{"name": "role-1"}],
        ServiceIdentities=[
            {"ServiceName": "web", "Datacenters": ["dc1"]},
            {"ServiceName": "web", "Datacenters": ["dc2", "dc1"]},
            {"ServiceName": "api"},
        ],
        NodeIdentities=[{"NodeName": "n1", "Datacenter": "dc1"}] * 2,
        ExpirationTTL="2m",
        CreateTime="0001-01-01T00:00:00Z",
        Hash=None,
    )
    found = made.command.token
    assert found.secret_hash == hashed(made.secret_id)
    assert made.command.replaces == 0
    assert (found.policies, found.roles) == ((uuid(1), GLOBAL_MANAGEMENT), (uuid(1),))
    assert found.service_identities == (ServiceIdentity("web", ("dc1", "dc2")), ServiceIdentity("api"))
    assert found.node_identities == (NodeIdentity("n1", "dc1"),)
    assert (found.created_at, found.expires_at, found.is_local) == (NOW, NOW + 120, False)
    assert made.secret_id not in repr(made)
    assert new().secret_id != new().secret_id


def test_ids_may_be_given() -> None:
    made = new(AccessorID=uuid(9).upper(), SecretID=uuid(8), ExpirationTTL=120 * 10**9)
    assert (made.command.token.accessor_id, made.secret_id) == (uuid(9), uuid(8))
    assert made.command.token.expires_at == NOW + 120


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"AccessorID": "x"}, "Invalid Token: AccessorID - not a valid UUID"),
        ({"AccessorID": "x" * 36}, "Invalid Token: AccessorID - not a valid UUID"),
        ({"AccessorID": RESERVED}, "Invalid Token: AccessorID - UUIDs with the prefix"),
        ({"AccessorID": uuid(1)}, "Invalid Token: AccessorID is already in use"),
        ({"SecretID": "x"}, "Invalid Token: SecretID - not a valid UUID"),
        ({"SecretID": RESERVED}, "are reserved"),
        ({"SecretID": SECRET}, "Invalid Token: SecretID is already in use"),
        ({"ExpirationTTL": "-1s"}, "Token Expiration TTL '-1s' should be > 0"),
        ({"ExpirationTTL": "x"}, "invalid duration"),
        ({"ExpirationTTL": "59s"}, "ExpirationTime cannot be less than 1m0s in the future (was 59s)"),
        ({"ExpirationTTL": "25h"}, "ExpirationTime cannot be more than 24h0m0s in the future (was 25h0m0s)"),
        ({"ExpirationTime": "2020-01-01T00:00:00Z"}, "ExpirationTime cannot be before CreateTime"),
        ({"ExpirationTime": "yesterday"}, "must be RFC 3339"),
        (
            {"ExpirationTTL": "2m", "ExpirationTime": "2030-01-01T00:00:00Z"},
            "Token Expiration TTL and Expiration Time cannot both be set",
        ),
        ({"Policies": [{"Name": "x"}]}, 'No such ACL policy with name "x"'),
        ({"Policies": [{"ID": uuid(7)}]}, 'No such ACL policy with ID "'),
        ({"Roles": [{"Name": "x"}]}, 'No such ACL role with name "x"'),
        ({"Roles": [{"ID": uuid(7)}]}, 'No such ACL role with ID "'),
        (
            {"ServiceIdentities": [{}]},
            "Service identity is missing the service name field on this token",
        ),
        (
            {"ServiceIdentities": [{"ServiceName": "Web"}]},
            'Service identity "Web" has an invalid name. Only lowercase alphanumeric characters',
        ),
        (
            {"Local": True, "ServiceIdentities": [{"ServiceName": "web", "Datacenters": ["dc1"]}]},
            'Service identity "web" cannot specify a list of datacenters on a local token',
        ),
        ({"NodeIdentities": [{"Datacenter": "dc1"}]}, "Node identity is missing the node name field on this token"),
        ({"NodeIdentities": [{"NodeName": "n"}]}, "Node identity is missing the datacenter field on this token"),
        ({"NodeIdentities": [{"NodeName": "-", "Datacenter": "x"}]}, 'Node identity "-" has an invalid name'),
        ({"AuthMethod": "jwt-1"}, "AuthMethod field is disallowed outside of login"),
        ({"TemplatedPolicies": [{}]}, "templated policies are not supported"),
        ({"Polices": []}, "Token decoding failed: unknown field"),
        ({"Local": "yes"}, "Token decoding failed"),
        ({"Namespace": "other"}, 'there is none but "default"'),
        ({"Description": "x" * 5000}, "Token decoding failed"),
        ({"Policies": [{}] * 300}, "Token decoding failed"),
        ({"local": True, "LOCAL": True}, "is given twice"),
    ],
)
def test_mistake_in_a_token_is_told_in_consuls_words(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        new(**fields)
    assert said in str(refused.value)


def test_change_replaces_every_list_and_keeps_the_secret_and_the_end() -> None:
    command = change(Description="new", Policies=[{"ID": GLOBAL_MANAGEMENT}], SecretID="<hidden>")
    old = ACL.tokens[-1]
    assert command.replaces == old.modify_index
    assert command.token == replace(
        old,
        description="new",
        policies=(GLOBAL_MANAGEMENT,),
        roles=(),
        service_identities=(),
        node_identities=(),
    )
    assert change(SecretID=SECRET).token.secret_hash == old.secret_hash


@pytest.mark.parametrize(
    ("accessor_id", "fields", "said"),
    [
        (uuid(1), {"AccessorID": uuid(2)}, "Token Accessor ID in URL and payload do not match"),
        (uuid(2), {}, 'Cannot find token "'),
        (uuid(1), {"SecretID": uuid(5)}, "Changing a token's SecretID is not permitted"),
        (uuid(1), {"Local": True}, "Cannot toggle local mode of"),
        (uuid(1), {"AuthMethod": "x"}, "Cannot change AuthMethod of"),
        (uuid(1), {"ExpirationTTL": "5m"}, "Cannot change expiration time of"),
    ],
)
def test_what_cannot_be_changed_of_a_token(accessor_id: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        change(accessor_id, **fields)
    assert said in str(refused.value)


def test_clone_has_the_rights_and_ids_of_its_own() -> None:
    made = writers.cloned_token(ACL, uuid(1), "copy", hashed, NOW)
    old, found = ACL.tokens[-1], made.command.token
    assert (found.policies, found.roles, found.description) == (old.policies, old.roles, "copy")
    assert found.accessor_id != old.accessor_id
    assert found.secret_hash == hashed(made.secret_id) != old.secret_hash
    with pytest.raises(PermissionDenied, match="token does not exist"):
        writers.cloned_token(ACL, uuid(7), "", hashed, NOW)


def test_some_tokens_cannot_be_deleted() -> None:
    with pytest.raises(BadRequest, match="not permitted on the anonymous token"):
        writers.check_token_deletion(ANONYMOUS, uuid(1))
    with pytest.raises(BadRequest, match="request's authorization token"):
        writers.check_token_deletion(uuid(1), uuid(1))
    writers.check_token_deletion(uuid(1), uuid(2))


def put_policy(policy_id: str = "", **fields: Any) -> SetPolicy:
    return writers.set_policy(ACL, policy_id, read_input(PolicyInput, "Policy", fields))


@pytest.mark.parametrize(
    ("policy_id", "fields", "said"),
    [
        ("", {"ID": uuid(3), "Name": "x"}, "Cannot specify the ID when creating a new policy"),
        ("", {}, "Invalid Policy: no Name is set"),
        ("", {"Name": "x" * 129}, "Length must be greater than 0 and less than 128"),
        ("", {"Name": "/x"}, "Names cannot be prefixed with '/' or 'builtin/'"),
        ("", {"Name": "builtin/x"}, "Names cannot be prefixed with '/' or 'builtin/'"),
        ("", {"Name": "a/b/c"}, "Only alphanumeric characters, a single '/', '-' and '_' are allowed"),
        ("", {"Name": "a b"}, "Only alphanumeric characters"),
        ("", {"Name": "policy-1"}, 'Invalid Policy: A Policy with Name "policy-1" already exists'),
        ("", {"Name": "x", "Rules": "servicee {"}, "Failed to parse ACL rules"),
        (uuid(1), {"ID": uuid(2), "Name": "x"}, "Policy ID in URL and payload do not match"),
        (GLOBAL_MANAGEMENT, {"Name": "m", "Rules": 'acl = "read"'}, "Changing the Rules for the builtin"),
        (GLOBAL_MANAGEMENT, {"Name": "m", "Datacenters": ["dc1"]}, "Changing the Datacenters of the"),
    ],
)
def test_mistake_in_a_policy_is_told_in_consuls_words(policy_id: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        put_policy(policy_id, **fields)
    assert said in str(refused.value)


def test_policy_is_made_renamed_and_described() -> None:
    made = put_policy(Name="a/b", Rules='operator = "read"', Datacenters=["dc1"])
    assert (made.policy.name, made.policy.datacenters, made.replaces) == ("a/b", ("dc1",), 0)
    renamed = put_policy(GLOBAL_MANAGEMENT, Name="all", Description="everything")
    assert (renamed.policy.name, renamed.policy.rules) == ("all", ACL.policies[0].rules)
    kept = put_policy(GLOBAL_MANAGEMENT, Name="global-management", Description="x")
    assert kept.policy.description == "x"
    with pytest.raises(NotFound, match="cannot find policy"):
        put_policy(uuid(7), Name="x")
    with pytest.raises(BadRequest, match="not permitted on the builtin global-management policy"):
        writers.check_policy_deletion(GLOBAL_MANAGEMENT)


@pytest.mark.parametrize(
    ("role_id", "fields", "said"),
    [
        ("", {}, "Invalid Role: no Name is set"),
        ("", {"Name": "a/b"}, "Invalid Role: invalid Name. Only alphanumeric characters, '-' and '_' are allowed"),
        ("", {"Name": "role-1"}, 'Invalid Role: A Role with Name "role-1" already exists'),
        ("", {"Name": "x", "Policies": [{"Name": "y"}]}, 'No such ACL policy with name "y"'),
        ("", {"Name": "x", "ServiceIdentities": [{}]}, "missing the service name field on this role"),
        (uuid(1), {"ID": uuid(2), "Name": "x"}, "Role ID in URL and payload do not match"),
    ],
)
def test_mistake_in_a_role_is_told_in_consuls_words(role_id: str, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        writers.set_role(ACL, role_id, read_input(RoleInput, "Role", fields))
    assert said in str(refused.value)


@pytest.mark.parametrize("value", [None, [], "x", 1, {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": 1}}}}}}}}}])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(BadRequest, match="Token decoding failed"):
        read_input(TokenInput, "Token", value)
